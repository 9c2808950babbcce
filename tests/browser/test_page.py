"""The chat page by itself: a fake stands in for the model, so these tests take no time."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

FAKE = Path(__file__).with_name("fake_webllm.js").read_text(encoding="utf-8")


@pytest.fixture
def open_page(page, url):
    """Open the chat page over a fake model: open_page(pieces=[...], ...)."""

    def open_page(query="", **fake):
        page.add_init_script(f"window.fake = {json.dumps(fake)}")
        page.route("**/webllm.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
        page.goto(f"{url}/{query}")
        return page

    return open_page


def wait_for(page, state):
    page.wait_for_function("state => document.body.dataset.state === state", arg=state)


def ask(page, text):
    wait_for(page, "ready")
    page.get_by_role("textbox").fill(text)
    page.get_by_role("textbox").press("Enter")


def answer(page):
    return page.locator('[data-role="assistant"]').last


def test_a_question_is_answered_in_the_log_with_its_speed(open_page):
    page = open_page()
    ask(page, "Hi")
    expect(page.get_by_role("log")).to_contain_text("Hello, world")
    expect(answer(page)).to_have_text("Hello, world")
    expect(page.locator("#stats")).to_have_text("2 tokens · 12.3 tokens/s · first after 0.5 s")
    wait_for(page, "ready")


def test_what_a_model_writes_is_text_and_never_html(open_page):
    html = '<img src="x" onerror="window.broken = true"><script>window.broken = true</script><b>bold</b>'
    page = open_page(pieces=[html[:9], html[9:]])
    ask(page, "<i>Hi</i>")
    expect(answer(page)).to_have_text(html)
    assert page.locator("#messages :is(img, script, b, i)").count() == 0
    assert page.evaluate("window.broken") is None


def test_the_next_question_comes_with_the_conversation_so_far(open_page):
    page = open_page()
    ask(page, "One")
    ask(page, "Two")
    wait_for(page, "ready")
    assert page.evaluate("requests[1].map(({role, content}) => [role, content])") == [
        ["user", "One"],
        ["assistant", "Hello, world"],
        ["user", "Two"],
    ]


def test_new_chat_forgets_the_conversation(open_page):
    page = open_page()
    ask(page, "One")
    wait_for(page, "ready")
    page.get_by_role("button", name="New chat").click()
    expect(answer(page)).to_have_count(0)
    ask(page, "Two")
    wait_for(page, "ready")
    assert page.evaluate("requests[1].length") == 1


def test_stop_ends_the_answer_and_keeps_what_there_is(open_page):
    page = open_page(pieces=["word "] * 1000, delay=20)
    ask(page, "Hi")
    expect(answer(page)).to_contain_text("word word")
    page.get_by_role("button", name="Stop").click()
    wait_for(page, "ready")
    assert len(answer(page).text_content()) < 5000
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_enter_sends_and_shift_enter_starts_a_line(open_page):
    page = open_page()
    wait_for(page, "ready")
    box = page.get_by_role("textbox")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    assert box.input_value() == "one\ntwo"
    box.press("Enter")
    expect(page.locator('[data-role="user"]')).to_have_text("one two")  # white space is normalised here
    assert box.input_value() == ""


def test_there_is_one_textbox(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.get_by_role("textbox").count() == 1


def test_progress_is_told_in_megabytes_and_seconds(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.locator("#loading-text").text_content() == "49 of 98 MB · 25 MB/s, 2 s left"
    expect(page.locator("#loading")).to_be_hidden()


def test_a_prompt_in_the_address_is_asked_at_once(open_page):
    page = open_page("?prompt=Hi%20there")
    expect(answer(page)).to_have_text("Hello, world")
    expect(page.locator('[data-role="user"]')).to_have_text("Hi there")


def test_a_software_adapter_is_announced(open_page):
    page = open_page(adapter={"name": "SwiftShader", "software": True})
    wait_for(page, "ready")
    expect(page.get_by_role("status").first).to_contain_text("No GPU was found")


def test_a_refused_request_is_shown_and_the_next_one_works(open_page):
    page = open_page(error={"name": "ContextFull", "message": "the prompt has 9 tokens"})
    ask(page, "Hi")
    wait_for(page, "error")
    expect(page.get_by_role("alert")).to_contain_text("the prompt has 9 tokens")
    expect(answer(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_no_script_or_style_is_inline(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.locator("script:not([src]), style, [style*=':']:not(#prompt), [onclick]").count() == 0


@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_is_never_wider_than_the_window(page, open_page, width):
    page.set_viewport_size({"width": width, "height": 640})
    open_page(pieces=["x" * 400])
    ask(page, "y" * 400)
    wait_for(page, "ready")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

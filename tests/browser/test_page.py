"""The chat page by itself: a fake stands in for the model, so these tests take no time."""

import pytest
from playwright.sync_api import expect

from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

LOST = {"name": "DeviceLost", "message": "the driver was reset"}
SLOW = {"pieces": ["word "] * 1000, "delay": 20}


def wait_for(page, state):
    expect(page.locator("body")).to_have_attribute("data-state", state)


def ask(page, text):
    wait_for(page, "ready")
    page.get_by_role("textbox").fill(text)
    page.get_by_role("textbox").press("Enter")


def answer(page):
    return page.locator('[data-role="assistant"]').last


def texts(page):
    return page.locator("#messages .text").all_text_contents()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def clipboard(page):
    return page.evaluate("navigator.clipboard.readText()")


def sent(page, number):
    return page.evaluate(
        "number => requests[number].messages.map(({role, content}) => [role, content])",
        number,
    )


# Asking


def test_a_question_is_answered_in_the_log_with_its_speed(open_page):
    page = open_page()
    ask(page, "Hi")
    expect(page.get_by_role("log")).to_contain_text("Hello, world")
    expect(answer(page)).to_have_text("Hello, world")
    expect(page.locator("#stats")).to_have_text("2 tokens · 12.3 tokens/s · first after 0.5 s")
    wait_for(page, "ready")


def test_the_context_used_is_told_and_new_chat_frees_it(open_page):
    page = open_page(context=2048)
    ask(page, "Hi")
    expect(page.locator("#context-text")).to_have_text("312 of 2048 tokens")
    meter = page.get_by_role("meter", name="Context used")
    assert meter.evaluate("meter => [meter.value, meter.max]") == [312, 2048]
    press(page, "New chat")
    expect(page.locator("#context-text")).to_have_text("0 of 2048 tokens")


def test_an_answer_that_was_cut_off_says_so(open_page):
    page = open_page(finish="length")
    ask(page, "Hi")
    expect(page.locator("#stats")).to_contain_text("cut off at the limit")


def test_the_next_question_comes_with_the_conversation_so_far(open_page):
    page = open_page()
    ask(page, "One")
    ask(page, "Two")
    wait_for(page, "ready")
    assert sent(page, 1) == [["user", "One"], ["assistant", "Hello, world"], ["user", "Two"]]


def test_new_chat_forgets_the_conversation(open_page):
    page = open_page()
    ask(page, "One")
    wait_for(page, "ready")
    press(page, "New chat")
    expect(answer(page)).to_have_count(0)
    ask(page, "Two")
    wait_for(page, "ready")
    assert len(sent(page, 1)) == 1


def test_new_chat_ends_a_running_answer_and_nothing_of_it_comes_later(open_page):
    page = open_page(**SLOW)
    ask(page, "Hi")
    expect(answer(page)).to_contain_text("word word")
    press(page, "New chat")
    wait_for(page, "ready")
    expect(page.locator("#stats")).to_be_empty()
    assert texts(page) == []


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_ends_the_answer_and_keeps_what_there_is(open_page, how):
    page = open_page(**SLOW)
    ask(page, "Hi")
    expect(answer(page)).to_contain_text("word word")
    press(page, "Stop") if how == "button" else page.keyboard.press(how)
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


def test_the_box_grows_with_its_text(open_page):
    page = open_page()
    wait_for(page, "ready")
    box = page.get_by_role("textbox")
    low = box.bounding_box()["height"]
    box.fill("one\ntwo\nthree")
    high = box.bounding_box()["height"]
    box.press("Enter")
    assert high > 2 * low - 30 > low / 2
    assert box.bounding_box()["height"] == low


def test_there_is_one_textbox(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.get_by_role("textbox").count() == 1


def test_a_prompt_in_the_address_is_asked_at_once(open_page):
    page = open_page("?prompt=Hi%20there")
    expect(answer(page)).to_have_text("Hello, world")
    expect(page.locator('[data-role="user"]')).to_have_text("Hi there")


def test_the_last_answer_can_be_made_anew(open_page):
    page = open_page()
    ask(page, "One")
    ask(page, "Two")
    wait_for(page, "ready")
    page.evaluate("fake.pieces = ['Better']")
    press(page, "Regenerate")
    expect(answer(page)).to_have_text("Better")
    assert sent(page, 2) == sent(page, 1)
    assert texts(page) == ["One", "Hello, world", "Two", "Better"]


def test_the_last_question_can_be_changed_and_a_draft_waits(open_page):
    page = open_page()
    ask(page, "One")
    ask(page, "Two")
    wait_for(page, "ready")
    box = page.get_by_role("textbox")
    box.fill("a draft")
    press(page, "Edit")
    expect(box).to_have_value("Two")
    expect(box).to_be_focused()
    box.fill("Three")
    box.press("Enter")
    wait_for(page, "ready")
    assert sent(page, 2) == [["user", "One"], ["assistant", "Hello, world"], ["user", "Three"]]
    assert texts(page) == ["One", "Hello, world", "Three", "Hello, world"]
    expect(box).to_have_value("a draft")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_an_edit_can_be_given_up(open_page, how):
    page = open_page()
    ask(page, "One")
    wait_for(page, "ready")
    page.get_by_role("textbox").fill("a draft")
    press(page, "Edit")
    press(page, "Cancel") if how == "button" else page.keyboard.press(how)
    expect(page.get_by_role("textbox")).to_have_value("a draft")
    expect(page.locator("#editing")).to_be_hidden()
    ask(page, "Two")
    wait_for(page, "ready")
    assert len(sent(page, 1)) == 3


# What a message shows


def test_what_a_model_writes_is_text_and_never_html(open_page):
    html = '<img src="x" onerror="window.broken = true"><script>window.broken = true</script><b>bold</b>'
    page = open_page(pieces=[html[:9], html[9:]])
    ask(page, "<i>Hi</i>")
    expect(answer(page)).to_have_text(html)
    assert page.locator("#messages :is(img, script, b, i)").count() == 0
    assert page.evaluate("window.broken") is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\n\n```python\nx = 1\n\n  y\n```\n\nb  c\n", ["x = 1\n\n  y\n"]),
        ("~~~\n```\n~~~~\nb", ["```\n"]),
        ("````md\n```js\n```\n````\n", ["```js\n```\n"]),
        ("```\nnot closed", ["not closed"]),
        ("```one\na\n```\n```two\nb\n```", ["a\n", "b\n"]),
        ("   ```\n<b>x</b>\n   ```", ["<b>x</b>\n"]),
        ("    ```\nindented too far", []),
        ("```not a fence``` in a line\n``too short\n", []),
        (" \t two  spaces\r\n\n\nand\u00a0more ", []),
    ],
)
def test_code_is_set_apart_and_not_one_character_is_lost(open_page, text, code):
    page = open_page(pieces=list(text))
    ask(page, "Hi")
    wait_for(page, "ready")
    assert answer(page).text_content() == text
    visible = "code => [...code.children].filter(line => !line.hidden).map(line => line.textContent).join('')"
    assert [block.evaluate(visible) for block in answer(page).locator("pre code").all()] == code


def test_fences_are_not_shown_but_the_language_is(open_page):
    page = open_page(pieces=["Like so:\n\n```python\nx = 1\n```\n"])
    ask(page, "Hi")
    wait_for(page, "ready")
    assert "`" not in answer(page).inner_text()
    language = page.locator(".language")
    assert language.evaluate("element => getComputedStyle(element, '::before').content") == '"python"'


def test_messages_code_and_the_whole_conversation_can_be_copied(context, open_page):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = open_page(pieces=["Use:\n```\nx  = 1\n```\n"])
    ask(page, "How?")
    wait_for(page, "ready")
    page.locator(".message.assistant").get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert clipboard(page) == "Use:\n```\nx  = 1\n```\n"
    press(page, "Copy code")
    expect(page.get_by_role("button", name="Copy code")).to_have_class("quiet copy done")
    assert clipboard(page) == "x  = 1\n"
    press(page, "Copy chat")
    page.wait_for_timeout(50)
    assert clipboard(page) == "You:\nHow?\n\ntiny:\nUse:\n```\nx  = 1\n```\n\n"


# Errors


def test_a_refused_request_is_shown_and_the_question_is_in_the_box_again(open_page):
    page = open_page(error={"name": "RequestError", "message": "the prompt has 9 tokens"})
    ask(page, "Hi")
    wait_for(page, "error")
    expect(page.get_by_role("alert")).to_contain_text("the prompt has 9 tokens")
    expect(answer(page)).to_have_count(0)
    expect(page.get_by_role("textbox")).to_have_value("Hi")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_full_context_offers_a_new_chat(open_page):
    page = open_page(error={"name": "ContextFull", "message": "4096 tokens"})
    ask(page, "Hi")
    page.get_by_role("alert").wait_for()
    page.locator("#alert").get_by_role("button", name="New chat").click()
    wait_for(page, "ready")
    expect(page.locator("#alert")).to_be_hidden()


def test_half_an_answer_is_kept_when_the_rest_fails(open_page):
    page = open_page(error={"name": "RequestError", "message": "no"}, errorAfter=1)
    ask(page, "Hi")
    wait_for(page, "error")
    assert texts(page) == ["Hi", "Hello"]


def test_an_answer_stays_when_another_one_cannot_be_made(open_page):
    page = open_page()
    ask(page, "Hi")
    wait_for(page, "ready")
    page.evaluate("fake.error = {name: 'RequestError', message: 'no'}")
    press(page, "Regenerate")
    wait_for(page, "error")
    assert texts(page) == ["Hi", "Hello, world"]
    expect(page.get_by_role("textbox")).to_have_value("")


def test_after_a_lost_gpu_the_model_is_loaded_again_and_the_conversation_goes_on(open_page):
    page = open_page()
    ask(page, "One")
    wait_for(page, "ready")
    page.evaluate("error => { fake.error = error; fake.loadErrors = [error, null]; }", LOST)
    ask(page, "Two")
    expect(page.get_by_role("alert")).to_contain_text("the driver was reset")
    press(page, "Reload the model")  # fails the first time
    wait_for(page, "error")
    press(page, "Reload the model")
    wait_for(page, "ready")
    expect(page.locator("#alert")).to_be_hidden()
    page.get_by_role("textbox").press("Enter")  # the question is in the box again
    wait_for(page, "ready")
    assert page.evaluate("reloads") == 2
    assert texts(page) == ["One", "Hello, world", "Two", "Hello, world"]
    assert len(sent(page, 2)) == 3


# Loading


def test_progress_is_told_in_megabytes_and_seconds(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.locator("#loading-text").text_content() == "49 of 98 MB · 25 MB/s, 2 s left"
    expect(page.locator("#loading")).to_be_hidden()


def test_a_software_adapter_is_announced(open_page):
    page = open_page(adapter={"name": "SwiftShader", "software": True})
    wait_for(page, "ready")
    expect(page.get_by_role("status").first).to_contain_text("No GPU was found")


def test_a_load_can_be_cancelled_and_started_again(open_page):
    page = open_page(loading=True)
    press(page, "Cancel")
    wait_for(page, "ready")
    expect(page.get_by_role("alert")).to_have_text("tiny was not loaded.")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.evaluate("fake.loading = false")
    press(page, "Load it")
    ask(page, "Hi")
    expect(answer(page)).to_have_text("Hello, world")


FILE = {"name": "mine.gguf", "mimeType": "", "buffer": b"GGUF"}


def test_after_a_file_that_does_not_open_another_can_be_picked(open_page):
    error = {"name": "NotAModel", "message": "mine.gguf: no GGUF file"}
    page = open_page("?model=", loadErrors=[error, error, None])
    wait_for(page, "ready")
    for _ in range(2):  # the same file twice: it may have been mended
        page.get_by_label("Open a model file").set_input_files(FILE)
        wait_for(page, "error")
        expect(page.get_by_role("alert")).to_contain_text("no GGUF file")
        expect(page.get_by_label("Open a model file")).to_be_visible()
    page.get_by_label("Open a model file").set_input_files(FILE)
    wait_for(page, "ready")
    expect(page.locator("#picker")).to_be_hidden()
    assert page.evaluate("loads") == ["mine.gguf"] * 3


def test_a_model_that_does_not_load_can_be_tried_again(open_page):
    page = open_page(loadErrors=[{"name": "FetchError", "message": "the connection broke"}, None])
    wait_for(page, "error")
    press(page, "Try again")
    wait_for(page, "ready")


def drop(page, name):
    make = "name => { const data = new DataTransfer(); data.items.add(new File(['GGUF'], name)); return data; }"
    data = page.evaluate_handle(make, name)
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": data})


def test_a_model_file_that_is_dropped_takes_the_place_of_the_model(open_page):
    page = open_page()
    ask(page, "Hi")
    wait_for(page, "ready")
    drop(page, "Mine.GGUF")
    wait_for(page, "ready")
    expect(page.locator("#model")).to_have_text("Mine.GGUF")
    assert page.evaluate("[loads, closes]") == [["tiny", "Mine.GGUF"], 1]
    assert texts(page) == []
    expect(page.locator("body")).not_to_have_class("dropping")


def test_a_file_that_is_dropped_takes_the_place_of_a_running_load(open_page):
    page = open_page(loading=True)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.evaluate("fake.loading = false")
    drop(page, "mine.gguf")
    wait_for(page, "ready")
    expect(page.locator("#model")).to_have_text("mine.gguf")
    expect(page.locator("#alert")).to_be_hidden()


def test_a_file_that_is_dropped_takes_the_place_of_a_running_reload(open_page):
    """Which fails as its model is closed; that is no longer told."""
    page = open_page(error=LOST)
    ask(page, "Hi")
    page.evaluate("fake.loading = true")
    press(page, "Reload the model")
    wait_for(page, "loading")
    drop(page, "mine.gguf")
    assert page.evaluate("[reloads, closes, loads]") == [1, 1, ["tiny", "mine.gguf"]]
    wait_for(page, "loading")
    expect(page.locator("#alert")).to_be_hidden()
    expect(page.locator("#model")).to_have_text("mine.gguf")
    press(page, "Cancel")
    expect(page.get_by_role("alert")).to_have_text("mine.gguf was not loaded.")


def test_a_dropped_file_of_another_kind_changes_nothing(open_page):
    page = open_page()
    ask(page, "Hi")
    wait_for(page, "ready")
    drop(page, "holiday.jpg")
    expect(page.locator("#notice")).to_contain_text("holiday.jpg was not opened")
    assert page.evaluate("loads") == ["tiny"]
    assert texts(page) == ["Hi", "Hello, world"]


def test_a_signal_ends_a_load_with_its_reason(page, own_site):
    (own_site / "models" / "slow.gguf").write_bytes(b"GGUF" + bytes(1000))
    with serve_in_thread(own_site) as server:
        page.goto(f"{server.url}/?model=")
        aborted = page.evaluate(
            """async () => {
                const told = (error) => error.name ?? error;
                const controller = new AbortController();
                const running = webllm.load("models/slow.gguf", {signal: controller.signal}).catch(told);
                setTimeout(() => controller.abort("no longer wanted"), 50);
                const before = webllm.load("models/slow.gguf", {signal: AbortSignal.abort()}).catch(told);
                return [await running, await before];
            }"""
        )
    assert aborted == ["no longer wanted", "AbortError"]


# How it looks


def test_no_script_or_style_is_inline(open_page):
    page = open_page()
    wait_for(page, "ready")
    assert page.locator("script:not([src]), style, [style*=':']:not(#prompt), [onclick]").count() == 0


@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_is_never_wider_than_the_window(page, open_page, width):
    page.set_viewport_size({"width": width, "height": 640})
    open_page(pieces=["x" * 400, "\n```\n", "x" * 400])
    ask(page, "y" * 400)
    wait_for(page, "ready")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('main').scrollWidth") <= width
    press(page, "Settings")
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.locator(".fields").evaluate("fields => fields.scrollWidth - fields.clientWidth") == 0


def test_nothing_blinks_for_those_who_want_less_motion(page, open_page):
    blinking = "text => getComputedStyle(text, '::after').animationName"
    open_page(**SLOW)
    ask(page, "Hi")
    assert answer(page).evaluate(blinking) == "blink"
    page.emulate_media(reduced_motion="reduce")
    assert answer(page).evaluate(blinking) == "none"

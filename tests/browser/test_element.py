"""<web-llm-chat> on a page that has nothing else, under the strict policy; a fake stands in for the model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import FAKE
from tests.browser.test_accessibility import AXE, VIOLATIONS

pytestmark = pytest.mark.browser

LOST = {"name": "DeviceLost", "message": "the driver was reset"}
FULL = {"name": "ContextFull", "message": "the prompt has 9000 tokens"}
BROKEN = {"name": "FetchError", "message": "http://127.0.0.1/models/tiny.gguf: the connection broke"}
SLOW = {"pieces": ["word "] * 1000, "delay": 20}
HOSTILE = '</div><img src="x" onerror="window.broken = 1"><script>window.broken = 1</script><b>bold</b>'

USE_FAKE = Path(__file__).with_name("use_fake.js")


@pytest.fixture
def open_element(page: Page, strict_url: str) -> Iterator[Callable[..., Locator]]:
    """Open element.html over a fake model. Nothing may break the policy. `events` are what the element tells."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(error.message))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)

    def open_element(**fake: Any) -> Locator:
        page.add_init_script(f"window.fake = {json.dumps(fake)}; window.events = []; window.requests = [];")
        page.add_init_script(
            """for (const name of ["ready", "message", "error"])
                 document.addEventListener(name, ({ target, detail }) => {
                   if (target.localName === "web-llm-chat") events.push([name, detail.content ?? detail.name ?? ""]);
                 }, true);"""
        )
        page.add_init_script(path=USE_FAKE)
        page.route("**/fake.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
        page.goto(f"{strict_url}/element.html")
        return page.locator("web-llm-chat")

    yield open_element
    assert wrong == []


def wait_for(chat: Locator, state: str) -> None:
    expect(chat).to_have_attribute("data-state", state)


def ask(chat: Locator, text: str = "Hi") -> None:
    wait_for(chat, "ready")
    chat.get_by_role("textbox").fill(text)
    chat.get_by_role("textbox").press("Enter")


def press(chat: Locator, name: str) -> None:
    chat.get_by_role("button", name=name, exact=True).click()


def texts(chat: Locator) -> list[str]:
    return chat.locator("[part=text]").all_text_contents()


def test_an_element_alone_is_a_whole_chat(page: Page, open_element: Callable[..., Locator]) -> None:
    chat = open_element()
    expect(chat.get_by_text("How often should I water")).to_be_visible()
    ask(chat, "One")
    wait_for(chat, "ready")
    expect(chat.get_by_text("How often should I water")).to_be_hidden()
    expect(chat.get_by_text("2 tokens · 12.3 tokens/s")).to_be_visible()
    ask(chat, "Two")
    wait_for(chat, "ready")
    assert texts(chat) == ["One", "Hello, world", "Two", "Hello, world"]
    request = page.evaluate("requests[1]")
    assert [m["role"] for m in request["messages"]] == ["system", "user", "assistant", "user"]
    assert "gardener" in request["messages"][0]["content"]
    assert (request["temperature"], request["max_tokens"], request["stream"]) == (0, 200, True)
    assert page.evaluate("events").count(["message", "Hello, world"]) == 2
    assert page.evaluate("events")[0][0] == "ready"
    press(chat, "New chat")
    assert texts(chat) == []
    expect(chat.get_by_role("textbox")).to_be_focused()
    assert page.evaluate("scrollY") == 0


def test_a_page_asks_through_methods_and_reads_properties(page: Page, open_element: Callable[..., Locator]) -> None:
    chat = open_element(delay=100)
    got = chat.evaluate(
        """async (chat) => {
            chat.system = "Be brief.";
            chat.options = { seed: 7 };
            const asked = chat.ask("Hi");
            await chat.load();
            const refused = await chat.ask("too soon").catch(({ name }) => name);
            const answer = await asked;
            const { length } = chat.messages;
            chat.reset();
            const { temperature, maxTokens, shared, context, llm } = chat;
            const attributes = [temperature, maxTokens, shared, context, chat.getAttribute("system")];
            return [refused, answer, length, chat.messages.length, llm.info.adapter.name, ...attributes];
        }"""
    )
    assert got == ["RequestError", "Hello, world", 2, 0, "Fake GPU", 0, 200, False, None, "Be brief."]
    assert page.evaluate("[requests[0].seed, requests[0].messages[0].content]") == [7, "Be brief."]


def test_stop_keeps_what_there_is_and_reset_keeps_nothing(page: Page, open_element: Callable[..., Locator]) -> None:
    chat = open_element(**SLOW)
    for how in (lambda: press(chat, "Stop"), lambda: page.keyboard.press("Escape")):
        ask(chat)
        expect(chat.locator(".assistant").last).to_contain_text("word word")
        how()
        wait_for(chat, "ready")
    assert len(texts(chat)) == 4 and all(len(text) < 5000 for text in texts(chat))
    asked = chat.evaluate_handle("chat => { window.asked = chat.ask('More').catch(({ name }) => name); }")
    expect(chat.locator(".assistant").last).to_contain_text("word word")
    press(chat, "New chat")
    assert page.evaluate("asked") == "AbortError"
    wait_for(chat, "ready")
    assert texts(chat) == []
    asked.dispose()


def test_stop_before_the_first_word_gives_the_question_back(page: Page, open_element: Callable[..., Locator]) -> None:
    """As when another tab's answer has the turn."""
    chat = open_element(waits=True)
    ask(chat, "Wait")
    wait_for(chat, "generating")
    press(chat, "Stop")
    wait_for(chat, "ready")
    expect(chat.get_by_role("textbox")).to_have_value("Wait")
    assert texts(chat) == []


def test_what_a_model_writes_stays_text_in_its_message(page: Page, open_element: Callable[..., Locator]) -> None:
    chat = open_element(pieces=[HOSTILE[:7], HOSTILE[7:], "\n```js\n", HOSTILE, "\n```\n"])
    before = page.locator("body > *").count()
    ask(chat, HOSTILE)
    wait_for(chat, "ready")
    assert texts(chat) == [HOSTILE, f"{HOSTILE}\n```js\n{HOSTILE}\n```\n"]
    assert chat.locator("img, b, script").count() == 0
    assert page.evaluate("window.broken") is None and page.locator("body > *").count() == before


def test_loading_shows_megabytes_and_can_be_cancelled_and_begun_again(
    page: Page, open_element: Callable[..., Locator]
) -> None:
    chat = open_element(loading=True)
    expect(chat.get_by_text("49 of 98 MB")).to_be_visible()
    press(chat, "Cancel")
    wait_for(chat, "idle")
    page.evaluate("fake.loading = false")
    press(chat, "Load it")
    wait_for(chat, "ready")
    assert page.evaluate("loads").count("smollm2-135m-instruct") == 2
    assert page.evaluate("events") == [["ready", ""]]


def test_what_goes_wrong_is_told_with_a_way_out(page: Page, open_element: Callable[..., Locator]) -> None:
    chat = open_element(loadErrors=[BROKEN])
    wait_for(chat, "error")
    expect(chat.get_by_role("alert")).to_contain_text("the connection broke")
    press(chat, "Try again")
    page.evaluate("error => Object.assign(fake, { error, errorAfter: 1 })", LOST)
    ask(chat, "One")
    wait_for(chat, "error")
    press(chat, "Reload the model")
    wait_for(chat, "ready")
    assert page.evaluate("reloads") == 1 and texts(chat) == ["One", "Hello"]
    page.evaluate("error => Object.assign(fake, { error, errorAfter: 0 })", FULL)
    ask(chat, "Two")
    wait_for(chat, "error")
    expect(chat.get_by_role("textbox")).to_have_value("Two")
    chat.get_by_role("button", name="New chat").first.click()  # beside the message
    wait_for(chat, "ready")
    errors = [detail for name, detail in page.evaluate("events") if name == "error"]
    assert errors == ["FetchError", "DeviceLost", "ContextFull"]


def test_a_lazy_element_waits_for_the_visitor_and_one_without_a_model_says_so(
    page: Page, open_element: Callable[..., Locator]
) -> None:
    wait_for(open_element(), "ready")
    page.evaluate(
        """() => {
            const lazy = document.createElement("web-llm-chat");
            Object.assign(lazy, { loading: "lazy", model: "lazy.gguf", label: "Late" });
            document.querySelector("web-llm-chat").replaceWith(lazy);
        }"""
    )
    chat = page.get_by_role("region", name="Late")
    press(chat, "Load it")
    expect(page.locator("web-llm-chat")).to_have_attribute("data-state", "ready")
    assert page.evaluate("[loads.at(-1), closes]") == ["lazy.gguf", 1]  # what was taken out has let go of its model
    page.evaluate("document.querySelector('web-llm-chat').removeAttribute('loading')")
    page.evaluate("document.querySelector('web-llm-chat').model = ''")
    expect(chat.get_by_role("alert")).to_contain_text('<web-llm-chat model="..."')


def test_an_element_that_is_moved_keeps_its_model_and_its_conversation(
    page: Page, open_element: Callable[..., Locator]
) -> None:
    chat = open_element()
    ask(chat)
    wait_for(chat, "ready")
    page.evaluate("document.body.append(document.querySelector('web-llm-chat'))")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.evaluate("[loads.length, closes]") == [1, 0] and len(texts(chat)) == 2


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_axe_finds_no_violation_in_any_state(
    page: Page, open_element: Callable[..., Locator], scheme: Any, width: int
) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 640})
    chat = open_element(loading=True, adapter={"name": "SwiftShader", "software": True})
    page.evaluate(AXE.read_text(encoding="utf-8"))

    def violations() -> Any:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        return page.evaluate(VIOLATIONS)

    expect(chat.get_by_text("49 of 98 MB")).to_be_visible()
    assert violations() == []
    press(chat, "Cancel")
    assert violations() == []
    page.evaluate("fake.loading = false; fake.pieces = ['So:\\n```python\\n', 'x = 1  # long '.repeat(9), '\\n```\\n']")
    press(chat, "Load it")
    ask(chat)
    wait_for(chat, "ready")
    assert violations() == []
    page.evaluate("error => Object.assign(fake, { error, errorAfter: 1 })", LOST)
    ask(chat)
    wait_for(chat, "error")
    assert violations() == []

"""The chat page for those who do not see it or use no mouse: axe-core in every state, focus, and what is announced."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
WORKER = Path(__file__).with_name("fake_worker.js")
VIOLATIONS = """async () => (await axe.run({ preload: false })).violations.map(({ id, nodes }) =>
    `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`)"""
SLOW = {"pieces": ["word "] * 1000, "delay": 20}
CODE = {"pieces": ["So:\n\n```python\n", "x = 1  # a line that is longer than a phone is wide\n" * 3, "```\n"]}
RIGHT = {"nmse": 0.0, "most": 1e-7, "gb_per_s": 12.3, "error": None, "file": None, "line": None}
COPY = {"kernel": "copy", "variants": [], "files": ["copy"], "case": "copy", "feature": None}
KERNELS = {"kernels": [COPY], "files": {"copy": "one\ntwo\nthree"}}
LOST = {"name": "DeviceLost", "message": "the driver was reset"}
STORED = [{"name": "big", "bytes": 98_000_000, "stored_bytes": 40_000_000, "complete": False}]
BROKEN = {"name": "FetchError", "message": "http://127.0.0.1/models/tiny.gguf: the connection broke"}


def wait_for(page, state):
    expect(page.locator("body")).to_have_attribute("data-state", state)


def ask(page):
    wait_for(page, "ready")
    page.get_by_role("textbox").fill("Hi")
    page.get_by_role("textbox").press("Enter")


def loading(open_page):
    expect(open_page(loading=True).get_by_role("button", name="Cancel")).to_be_visible()


def ready(open_page):
    wait_for(open_page(), "ready")


def without_a_model(open_page):
    expect(open_page("?model=").get_by_label("Open a model file")).to_be_visible()


def generating(open_page):
    page = open_page(**SLOW, adapter={"name": "SwiftShader", "software": True})
    ask(page)
    expect(page.get_by_role("log")).to_contain_text("word")


def conversation(open_page):
    page = open_page(**CODE)
    ask(page)
    ask(page)
    wait_for(page, "ready")


def editing(open_page):
    page = open_page()
    ask(page)
    page.get_by_role("button", name="Edit").click()


def settings(open_page):
    page = open_page()
    wait_for(page, "ready")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("9")


def stored_models(open_page):
    page = open_page(stored=STORED)
    wait_for(page, "ready")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Delete big").click()


def load_error(open_page):
    wait_for(open_page(loadErrors=[BROKEN]), "error")


def lost(open_page):
    page = open_page(error=LOST, errorAfter=1)
    ask(page)
    expect(page.get_by_role("button", name="Reload the model")).to_be_visible()


def compat(open_page):
    page = open_page("compat.html")
    page.get_by_role("button", name="Load").click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_contain_text("decoding")


def playground(open_page, edited=RIGHT):
    page = open_page("playground.html", playground=KERNELS, asItWas=RIGHT, edited=edited)
    page.get_by_role("textbox").fill("one\ntwo")
    page.get_by_role("textbox").press("Control+Enter")
    return page


def playground_result(open_page):
    expect(playground(open_page).get_by_role("table")).to_be_visible()


def playground_error(open_page):
    wrong = {"nmse": None, "most": 1e-7, "gb_per_s": None, "error": "copy.wgsl, line 2: no", "file": "copy", "line": 2}
    expect(playground(open_page, wrong).get_by_role("alert")).to_contain_text("line 2")


CHAT_PAGE = [
    loading,
    ready,
    without_a_model,
    generating,
    conversation,
    editing,
    settings,
    stored_models,
    load_error,
    lost,
]
STATES = [*CHAT_PAGE, compat, playground_result, playground_error]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_no_violation(page, open_page, state, scheme, width):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 640})
    page.route("**/worker.js", lambda route: route.fulfill(path=WORKER))  # of a page that bundles the real modules
    state(open_page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(VIOLATIONS) == []


def test_axe_would_find_one(page, open_page):
    ready(open_page)
    page.evaluate("document.getElementById('prompt').ariaLabel = null")
    page.evaluate("document.getElementById('prompt').placeholder = ''")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert [violation.split(":")[0] for violation in page.evaluate(VIOLATIONS)] == ["label"]


def test_tab_goes_through_the_page_in_reading_order(page, open_page):
    conversation(open_page)
    page.locator("h1").click()  # the way begins here
    names = []
    for _ in range(15):
        page.keyboard.press("Tab")
        names.append(page.evaluate("(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"))
    assert names == [
        "Copy chat", "New chat", "Settings",
        "Conversation", "Copy", "Copy code", "Code", "Copy",
        "Copy", "Edit", "Copy code", "Code", "Copy", "Regenerate",
        "Your message",
    ]  # fmt: skip


def test_whatever_has_the_focus_shows_it(page, open_page):
    conversation(open_page)
    page.locator("h1").click()
    for _ in range(15):
        page.keyboard.press("Tab")
        outlined = "e => getComputedStyle(e.id === 'prompt' ? e.form : e).outlineStyle"
        assert page.locator(":focus").evaluate(outlined) == "solid"


def test_the_focus_is_in_the_prompt_when_the_model_is_ready_and_after_new_chat(page, open_page):
    conversation(open_page)
    expect(page.get_by_role("textbox")).to_be_focused()
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("textbox")).to_be_focused()


def test_send_hands_the_focus_to_stop_and_stop_to_the_prompt(page, open_page):
    open_page(**SLOW)
    wait_for(page, "ready")
    page.get_by_role("textbox").fill("Hi")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox")).to_be_focused()


def test_regenerate_hands_the_focus_to_stop(page, open_page):
    open_page(pieces=["a", "b"], delay=300)
    ask(page)
    wait_for(page, "ready")
    page.get_by_role("button", name="Regenerate").press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    wait_for(page, "ready")
    expect(page.get_by_role("textbox")).to_be_focused()


def test_a_closed_dialog_gives_the_focus_back_and_its_escape_stops_nothing(page, open_page):
    generating(open_page)
    button = page.get_by_role("button", name="Settings")
    button.press("Enter")
    expect(page.locator("#settings-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
    wait_for(page, "generating")


def test_an_answer_is_announced_once_when_it_is_whole(page, open_page):
    open_page(pieces=["Hello", ", world"], delay=100)
    wait_for(page, "ready")
    page.evaluate(
        """() => {
            window.announced = [];
            const announcer = document.getElementById("announcer");
            const note = () => announcer.textContent && announced.push(announcer.textContent);
            new MutationObserver(note).observe(announcer, {childList: true});
        }"""
    )
    ask(page)
    expect(page.locator("#announcer")).to_have_text("tiny: Hello, world")
    assert page.evaluate("announced") == ["tiny: Hello, world"]
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")

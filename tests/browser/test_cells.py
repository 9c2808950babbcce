"""`<script type="text/python">`: cells in a page, under the strict policy, with a small model."""

import os
import shutil

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import POLICY
from tests.browser.test_accessibility import AXE, VIOLATIONS
from tests.models.reference import Shape, random_model, write_gguf
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

MINUTE = 60_000
HTML = "<img src=x onerror='broken = 1'><b>bold</b>"
CELLS = f"""<!doctype html><html lang="en"><title>Cells</title><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><link rel="icon" href="../icon.svg">
<link rel="stylesheet" href="../demo.css">
<script type="module" src="../webllm.js"></script><main><h1>Cells</h1>
<script type="text/python">
    import asyncio, sys
    await asyncio.sleep(0)
    print("one", 2)
    print("careful", file=sys.stderr)
    x = 40
    x + 2
</script>
<script type="text/python" data-name="hostile">
    class Html:
        def _repr_html_(self): return "{HTML}"
        def __repr__(self): return "{HTML}"
    print("{HTML}")
    Html()
</script>
<script type="text/python" data-name="wrong">
    def divide(): return x / 0
    divide()
</script>
<p id="elsewhere">not yet</p>
<script type="text/python" data-output="elsewhere">
    llm = await webllm.load("../models/tiny.gguf", kv="f32", exact=True)
    ids = [i async for i in llm.generate([1, 2, 3], max_tokens=4)]
    print(len(ids), webllm.__version__)
</script>
<script type="text/python" data-run="manual" data-editable data-name="mine">
    for i in range(10**9):
        print("word", i)
        await asyncio.sleep(0.01)
</script></main>"""


@pytest.fixture(scope="module")
def page(browser, site, tmp_path_factory):
    """The cells above, in a folder of their own, after those that run by themselves."""
    own = shutil.copytree(site, tmp_path_factory.mktemp("cells") / "site", copy_function=os.link)
    write_gguf(random_model(Shape(layers=1)), own / "models" / "tiny.gguf")
    (own / "pages").mkdir()
    (own / "pages" / "cells.html").write_text(CELLS, encoding="utf-8")
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda error: wrong.append(error.message))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    with serve_in_thread(own, headers={"Content-Security-Policy": POLICY}) as server:
        page.goto(f"{server.url}/pages/cells.html")
        expect(page.locator("web-llm-cell").nth(3)).to_have_attribute("data-state", "done", timeout=2 * MINUTE)
        yield page
    page.close()
    assert wrong == []


def cell(page, number):
    return page.locator("web-llm-cell").nth(number)


def test_what_a_cell_prints_and_its_last_value_are_shown(page):
    assert cell(page, 0).locator("[part=stdout]").text_content() == "one 2\n"
    assert cell(page, 0).locator("[part=stderr]").text_content() == "careful\n"
    assert cell(page, 0).locator("[part=value]").text_content() == "42"
    expect(cell(page, 0).get_by_role("button")).to_have_count(0)  # it ran by itself and has ended


def test_nothing_that_a_cell_shows_becomes_html(page):
    assert cell(page, 1).locator("[part=stdout]").text_content() == f"{HTML}\n"
    assert cell(page, 1).locator("[part=value]").text_content() == HTML
    assert cell(page, 1).locator("img, b").count() == 0 and page.evaluate("window.broken") is None


def test_an_error_is_a_traceback_of_the_cells_own_code_and_the_next_cells_run(page):
    text = cell(page, 2).get_by_role("group", name="Error").text_content()
    assert text.startswith("Traceback") and "ZeroDivisionError: division by zero" in text
    assert 'File "wrong", line 2' in text and "return x / 0" in text and "cells.py" not in text


def test_a_cell_loads_a_model_by_an_address_relative_to_its_page_and_writes_where_it_is_told(page):
    assert page.locator("#elsewhere").text_content() == "4 0.1.0\n"


def test_a_cell_is_edited_run_and_stopped_and_python_goes_on(page):
    mine = cell(page, 4)
    expect(mine).to_have_attribute("data-state", "idle")
    mine.get_by_role("button", name="Run").click()
    expect(mine.locator("[part=stdout]")).to_contain_text("word 3")
    mine.get_by_role("button", name="Stop").click()
    expect(mine).to_have_attribute("data-state", "error")
    expect(mine.get_by_role("group", name="Error")).to_have_text("KeyboardInterrupt: stopped")
    mine.get_by_role("textbox").fill("x = x + 1\nllm.name[-9:], x")
    mine.get_by_role("textbox").press("Shift+Enter")
    expect(mine.locator("[part=value]")).to_have_text("('tiny.gguf', 41)")
    expect(mine.get_by_role("group", name="Error")).to_be_hidden()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_axe_finds_no_violation(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 640})
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(VIOLATIONS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_python_that_does_not_listen_is_started_anew(page):
    """The last test here: the names are gone after it."""
    mine = cell(page, 4)
    mine.get_by_role("textbox").fill("while True: pass")
    mine.get_by_role("button", name="Run").click()
    mine.get_by_role("button", name="Stop").click()
    mine.get_by_role("button", name="Restart Python").click()
    expect(mine.get_by_role("group", name="Error")).to_contain_text("run them again")
    mine.get_by_role("textbox").fill("'llm' in globals(), 'y' * 10")
    mine.get_by_role("textbox").press("Control+Enter")
    expect(mine.locator("[part=value]")).to_have_text("(False, 'yyyyyyyyyy')", timeout=MINUTE)
    mine.get_by_role("textbox").fill("for i in range(9000): print('a' * 100)")
    mine.get_by_role("textbox").press("Control+Enter")
    expect(mine.locator("[part=stdout]")).to_contain_text("is not shown")
    assert len(mine.locator("[part=stdout]").text_content()) < 201_000

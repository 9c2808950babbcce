"""The notebooks in JupyterLite, from a site that `make lite` makes: Python, the model and the GPU are the browser's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from webllm.display import answer_html
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "docs" / "notebooks"
MINUTE = 60_000  # milliseconds
ENDLESS = [
    "import piplite\nawait piplite.install('webllm')",
    "import webllm\nllm = await webllm.load('smollm2-135m-instruct', context=512)",
    "answer = await llm.chat.show('Write a long poem about the sea.', temperature=0, logit_bias={2: -100})",
    "print(answer.choices[0].finish_reason)",
]


@pytest.fixture(scope="module")
def lite_url(site, tmp_path_factory):
    """Address of a JupyterLite site with the wheel that was built now, and a notebook of the tests' own."""
    out, notebooks = tmp_path_factory.mktemp("lite") / "site", tmp_path_factory.mktemp("notebooks")
    shutil.copytree(NOTEBOOKS, notebooks, dirs_exist_ok=True)
    endless = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in ENDLESS])
    nbformat.write(endless, notebooks / "endless.ipynb")
    command = [
        sys.executable,
        ROOT / "docs" / "make_lite.py",
        out,
        "--wheels",
        site / "wheels",
        "--notebooks",
        notebooks,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    with serve_in_thread(out) as server:
        yield server.url


def open_notebook(browser, url, name):
    """The page of one notebook; it is so tall that every cell is drawn."""
    page = browser.new_page(viewport={"width": 1200, "height": 4000})
    page.goto(f"{url}/notebooks/index.html?path={name}")
    # JupyterLab takes no notice of who runs cells before the kernel is there.
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=4 * MINUTE)
    return page


def start_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".jp-InputPrompt", has_text="[*]").first).to_be_visible(timeout=MINUTE)


def wait_for_all(page):
    expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0, timeout=6 * MINUTE)
    failed = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
    assert failed.all_inner_texts() == []


def outputs_of(page, number):
    return page.locator(".jp-Cell").nth(number).locator(".jp-OutputArea-output").all_inner_texts()


@pytest.mark.parametrize(
    "name", ["1-chat.ipynb", pytest.param("2-inside.ipynb", marks=pytest.mark.slow)], ids=["chat", "inside"]
)
def test_a_notebook_shows_what_it_shows_natively_and_no_request_leaves_the_machine(logged, lite_url, name):
    """What a notebook keeps was shown by Jupyter, and tests/models/test_notebooks.py compares that."""
    browser, close = logged
    page = open_notebook(browser, lite_url, name)
    start_all(page)
    wait_for_all(page)
    kept = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    load = next(i for i, cell in enumerate(kept) if "webllm.load" in cell.source)
    bar, model = outputs_of(page, load)
    assert re.search(r"weights: 100%.*96\.6M/96\.6M", bar)
    assert "swiftshader" in model and "with a full context" in model
    same = [i for i, cell in enumerate(kept) if "same" in cell.metadata.get("tags", ())]
    for i in same:
        wanted = [output.get("text") or output["data"]["text/plain"] for output in kept[i].outputs]
        assert [text.strip() for text in outputs_of(page, i)] == [text.strip() for text in wanted]
    assert close() == []


@pytest.mark.slow  # another load
def test_an_answer_has_a_button_that_ends_it(browser, lite_url):
    """And webllm alone, without tqdm and markdown-it-py, loads in silence and shows text."""
    page = open_notebook(browser, lite_url, "endless.ipynb")
    start_all(page)
    button = page.get_by_role("button", name="Stop", exact=True)
    expect(page.locator(".jp-OutputArea-output div", has_text=re.compile("^In"))).to_be_visible(timeout=4 * MINUTE)
    button.click()
    wait_for_all(page)
    expect(button).to_have_count(0)
    assert outputs_of(page, 1) == []
    assert outputs_of(page, 2)[0].startswith("In")
    assert outputs_of(page, 3) == ["abort\n"]


HOSTILE = """<script>window.done = 1</script><img src="/x" onerror="window.done = 2">

![picture](/picture.png) [link](javascript:window.done=3)

```html
<b onclick="window.done = 4">&lt;</b>
```
<svg onload="window.done = 5"></svg>
"""


def test_what_a_model_writes_does_nothing_in_a_notebook_but_be_read(page, url, requests_seen):
    page.goto(f"{url}/notices.txt")
    page.evaluate("html => { document.body.innerHTML = html; }", answer_html(HOSTILE))
    assert page.locator("body").locator("script, img, svg, b, [onclick], [onerror]").count() == 0
    assert page.locator("a").evaluate_all("links => links.map(({ href }) => href)") == [f"{url}/picture.png"]
    assert page.locator("code").inner_text() == '<b onclick="window.done = 4">&lt;</b>\n'
    page.evaluate("fetch('/last')")  # what the text asks for would have come before
    assert page.evaluate("window.done") is None
    assert requests_seen[-1].path == "/last"
    assert not {"/x", "/picture.png"} & {request.path for request in requests_seen}

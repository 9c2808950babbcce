"""Make the pictures of the pages in docs/: `python docs/make_screenshots.py`. Needs a Chromium, but no model.

The stand-in for webllm.js that the tests use answers, so that the pictures are the same every time. They are drawn with
the fonts of the machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from webllm import kernels
from webllm.demo import browser_flags, find_browser
from webllm.static_server import serve_in_thread

ROOT = Path(__file__).parent.parent
FAKE = (ROOT / "tests" / "browser" / "fake_webllm.js").read_text(encoding="utf-8")
LITE = ROOT / "build" / "lite" / "site"
MOST_BYTES = 100_000

ANSWERS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "How do I sum a list of numbers in Python?": """\
Use the built-in `sum`. It adds the items from left to right:

```python
numbers = [3, 1, 4, 1, 5]
print(sum(numbers))  # 14
```

An empty list gives 0. For fractions that must add up exactly, `math.fsum` keeps what rounding would lose.""",
}

USE_FAKE = (ROOT / "tests" / "browser" / "use_fake.js").read_text(encoding="utf-8")
TOMATOES = "Water them deeply two or three times a week, in the morning, and keep the leaves dry."
# Answers cells as the worker does, and has no Python.
FAKE_WORKER = ROOT / "tests" / "browser" / "fake_worker.js"
WORKER = """
const SHOWN = {
  "cell 1": ["loaded in 0.9 s\\n", "'Your GPU'"],
  "cell 2": ["The capital of France is Paris.", null],
  "cell 3": ["", "['Gr', 'apes', ' are', ' a', ' fruit']"],
};
onmessage = ({ data: { id, args } }) => {
  const [stdout, value] = SHOWN[args.name];
  if (stdout) postMessage({ id, event: { stdout } });
  postMessage({ id, value: { value, error: null } });
};
"""


def main() -> None:
    """Write docs/page-*.png; after `make lite` notebook.png too."""
    with serve_in_thread(ROOT / "build" / "page") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=browser_flags(gpu=False))
        page = converse(browser, server.url, "light", {"width": 1100, "height": 800})
        save(page, "page-light.png")
        page.set_viewport_size({"width": 740, "height": 880})
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("System prompt").fill("You answer briefly, and with code where it helps.")
        page.get_by_label("Temperature").fill("0.7")
        page.get_by_label("Top p").fill("0.9")
        page.locator("#settings-title").click()  # no field has the focus
        save(page, "page-settings.png")
        save(converse(browser, server.url, "dark", {"width": 390, "height": 780}, scale=1.5), "page-dark-phone.png")
        save(use_compat(browser, server.url), "page-compat.png")
        save(break_a_kernel(browser, server.url), "page-playground.png")
        save(ask_element(browser, server.url), "page-element.png")
        save(run_cells(browser, server.url), "page-python.png")
        browser.close()
        if LITE.is_dir():
            browser = playwright.chromium.launch(executable_path=find_browser(), args=browser_flags(gpu=False))
            with serve_in_thread(LITE) as lite:
                save(run_notebook(browser, lite.url), "notebook.png")
            browser.close()


def run_notebook(browser: Browser, url: str) -> Page:
    """Return the first notebook in JupyterLite, where the default model has answered."""
    page = browser.new_page(viewport={"width": 900, "height": 720})
    page.goto(f"{url}/notebooks/index.html?path=1-chat.ipynb")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=300_000)  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".jp-OutputArea-output", has_text="stop 42 8").wait_for(timeout=300_000)
    page.locator(".jp-Cell").nth(5).scroll_into_view_if_needed()
    return page


def converse(browser: Browser, url: str, scheme: str, viewport: dict[str, int], scale: float = 1) -> Page:
    """Return the page after the conversation above."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=scale)
    page = open_page(context.new_page(), f"{url}/?model=smollm2-135m-instruct")
    for question, answer in ANSWERS.items():
        page.evaluate("answer => { fake.pieces = answer.match(/\\S*\\s*/g).filter(Boolean); }", answer)
        page.locator("body[data-state=ready]").wait_for()
        page.get_by_role("textbox").fill(question)
        page.get_by_role("textbox").press("Enter")
        page.locator("body[data-state=ready]").wait_for()
    return page


def open_page(page: Page, address: str, **fake: Any) -> Page:
    """Return the page over the stand-in."""
    told = {"adapter": {"name": "Your GPU", "software": False}, **fake}
    page.add_init_script(f"window.fake = {json.dumps(told)}")
    page.route("**/webllm.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
    page.goto(address)
    return page


def use_compat(browser: Browser, url: str) -> Page:
    """Return the page of Web LLM's calls with an answer."""
    page = browser.new_page(viewport={"width": 900, "height": 560})
    page.route("**/worker.js", lambda route: route.fulfill(path=FAKE_WORKER))
    open_page(page, f"{url}/compat.html")
    page.get_by_role("button", name="Load").click()
    page.get_by_role("button", name="Send").click()
    page.locator("body[data-state=ready]").wait_for()
    return page


def break_a_kernel(browser: Browser, url: str) -> Page:
    """Return the playground with a kernel that does not compile."""
    entry = {"kernel": "rms_norm", "variants": ["reduce.plain", "half.f32"], "files": ["rms_norm"]}
    text = kernels.read("rms_norm").replace("inverseSqrt", "inverse_sqrt")
    line = text[: text.index("inverse_sqrt")].count("\n") + 1
    error = f"kernel rms_norm plain f32: rms_norm.wgsl, line {line}: unresolved call target 'inverse_sqrt'"
    outcome = {"nmse": None, "error": error, "file": "rms_norm", "line": line}
    page = browser.new_page(viewport={"width": 900, "height": 900})
    files = {"rms_norm": kernels.read("rms_norm")}
    open_page(page, f"{url}/playground.html", playground={"kernels": [entry], "files": files}, edited=outcome)
    page.get_by_role("textbox").fill(text)
    page.get_by_role("button", name="Run").click()
    page.get_by_role("alert").wait_for()
    return page


def ask_element(browser: Browser, url: str) -> Page:
    """Return element.html after a question."""
    page = browser.new_page(viewport={"width": 780, "height": 660})
    fake = {"adapter": {"name": "Your GPU", "software": False}, "pieces": [f"{word} " for word in TOMATOES.split()]}
    page.add_init_script(f"window.fake = {json.dumps(fake)};\n{USE_FAKE}")
    page.route("**/fake.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
    page.goto(f"{url}/element.html")
    chat = page.locator("web-llm-chat")
    page.locator("web-llm-chat[data-state=ready]").wait_for()
    chat.get_by_role("textbox").fill("How often should I water tomatoes?")
    chat.get_by_role("textbox").press("Enter")
    chat.get_by_text("tokens/s").wait_for()
    return page


def run_cells(browser: Browser, url: str) -> Page:
    """Return python.html after all of its cells."""
    page = browser.new_page(viewport={"width": 780, "height": 660})
    page.route("**/worker.js", lambda route: route.fulfill(body=WORKER, content_type="text/javascript"))
    page.goto(f"{url}/python.html")
    page.get_by_role("button", name="Run").click()
    page.locator("web-llm-cell[data-state=done]").nth(2).wait_for()
    return page


def save(page: Page, name: str) -> None:
    """Write a picture, and refuse one that is too large for a repository."""
    path = Path(__file__).with_name(name)
    page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has {size} bytes, at most {MOST_BYTES} are wanted: make the window smaller")
    print(f"{path.name}: {size} bytes")


if __name__ == "__main__":
    main()

"""Make the pictures of the chat page in docs/: `python docs/make_screenshots.py`. Needs a Chromium, but no model.

The stand-in for webllm.js that the tests use answers, so that the pictures are the same every time. They are drawn with
the fonts of the machine.
"""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

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


def main() -> None:
    """Write docs/page-light.png, page-dark-phone.png and page-settings.png; after `make lite` notebook.png too."""
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
    page = context.new_page()
    fake = {"adapter": {"name": "Your GPU", "software": False}}
    page.add_init_script(f"window.fake = {json.dumps(fake)}")
    page.route("**/webllm.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
    page.goto(f"{url}/?model=smollm2-135m-instruct")
    for question, answer in ANSWERS.items():
        page.evaluate("answer => { fake.pieces = answer.match(/\\S*\\s*/g).filter(Boolean); }", answer)
        page.locator("body[data-state=ready]").wait_for()
        page.get_by_role("textbox").fill(question)
        page.get_by_role("textbox").press("Enter")
        page.locator("body[data-state=ready]").wait_for()
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

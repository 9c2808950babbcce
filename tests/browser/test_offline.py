"""A whole conversation on the chat page under a strict policy, and Chromium's own log of where it connected."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

MINUTE = 60_000  # milliseconds


def test_the_page_answers_as_transformers_does_and_no_request_leaves_the_machine(
    logged, strict_url, strict_requests_seen, golden
):
    browser, close = logged
    page = browser.new_page()
    page.goto(f"{strict_url}/?model=smollm2-135m-instruct&temperature=0")
    body = page.locator("body")
    expect(body).not_to_have_attribute("data-state", "loading", timeout=4 * MINUTE)
    assert body.get_attribute("data-state") == "ready", page.get_by_role("alert").inner_text()
    expect(page.locator("#notice")).to_contain_text("processor")  # SwiftShader is no GPU, and the page says so

    page.evaluate("navigator.serviceWorker.ready.then(() => null)")
    while_loading = len(strict_requests_seen)

    box = page.get_by_role("textbox")
    box.fill(golden[0]["prompt"])
    box.press("Enter")
    expect(page.locator("#stats")).to_contain_text("tokens/s", timeout=8 * MINUTE)
    expect(body).to_have_attribute("data-state", "ready")
    answer = page.locator('[data-role="assistant"]').last
    assert answer.text_content() == golden[0]["greedy_text"].removesuffix("<|im_end|>")
    assert re.search(r"8 tokens · [\d.]+ tokens/s", page.locator("#stats").inner_text())
    later = [request for request in strict_requests_seen[while_loading:] if request.path != "/icons.svg"]
    assert later == []  # Chromium asks for the icons of a new message again, and gets a 304
    assert close() == []


def test_a_request_elsewhere_would_have_been_seen(logged, url):
    browser, close = logged
    page = browser.new_page()
    page.goto(f"{url}/?model=")
    page.evaluate("""new Promise((resolve) => {
        const code = "fetch('https://example.org/x').catch(() => postMessage(0))";
        new Worker(URL.createObjectURL(new Blob([code]))).onmessage = resolve;
    })""")
    assert close() == ["https://example.org/x"]

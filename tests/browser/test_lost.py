"""A conversation that outgrows its memory, and a GPU that goes away, under a small model in the page."""

import os
import shutil

import pytest

from tests.models.reference import Shape, forward, random_model, write_gguf
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

IDS = [i * 37 % 301 for i in range(600)]
MODEL = random_model(Shape(layers=1, context=1024))
GENERATE = "ids => llm.generate(ids, 4).catch(({ name, message }) => [name, message])"


@pytest.fixture(scope="module")
def page(browser_type, browser_type_launch_args, site, tmp_path_factory):
    """The model in `llm`, in a browser of its own: a crashed GPU process is not for other tests."""
    own = shutil.copytree(site, tmp_path_factory.mktemp("lost") / "site", copy_function=os.link)
    write_gguf(MODEL, own / "models" / "tiny.gguf")
    browser = browser_type.launch(**browser_type_launch_args)
    with serve_in_thread(own) as server:
        page = browser.new_page()
        page.goto(f"{server.url}/?model=")
        page.evaluate("async () => { window.llm = await webllm.load('models/tiny.gguf', { kv: 'f32' }); }")
        yield page
        browser.close()


def best_after(ids):
    return int(forward(MODEL, ids)[-1].argmax())


def held(page):
    return page.evaluate("llm.stats().then(({ gpu_bytes }) => gpu_bytes)")


def crash_gpu(page):
    """As a driver does that hangs or resets."""
    page.context.browser.new_browser_cdp_session().send("Browser.crashGpuProcess")


def test_the_cache_grows_when_a_prompt_has_no_room(page):
    """From 512 positions to 1024: K and V of two heads of 24 numbers of four bytes."""
    page.evaluate(GENERATE, IDS[:20])
    before = held(page)
    assert page.evaluate(GENERATE, IDS)[0] == best_after(IDS)
    assert held(page) - before == 2 * 512 * 2 * 24 * 4


def test_after_a_lost_gpu_the_page_says_reload_and_reload_brings_the_model_back(page):
    crash_gpu(page)
    for _ in range(2):
        name, message = page.evaluate(GENERATE, IDS[:20])
        assert name == "DeviceLost" and "await llm.reload()" in message
    page.evaluate("llm.reload()")
    assert page.evaluate(GENERATE, IDS)[0] == best_after(IDS)
    assert page.evaluate("llm.close().then(() => llm.generate([1], 1)).catch(({ name }) => name)") == "Closed"

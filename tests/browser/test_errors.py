"""What the page says when a part is missing or wrong: a named error, and where the model comes to harm, no other."""

import pytest
from playwright.sync_api import expect

from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

LOAD = "([model, options]) => webllm.load(model, options).then(() => null).catch(({name, message}) => [name, message])"


@pytest.fixture
def server(own_site, page):
    """The address of the spoiled copy."""
    with serve_in_thread(own_site) as server:
        yield server.url
        page.goto("about:blank")  # ends what is still being fetched


def error_of_page(page, address):
    page.goto(address)
    page.wait_for_function("document.body.dataset.state === 'error'", timeout=60_000)
    return page.get_by_role("alert").inner_text()


def load(page, server, model, options=None):
    page.goto(f"{server}/?model=")
    return page.evaluate(LOAD, [model, options or {}])


def test_a_missing_wheel_is_named(page, server, own_site):
    wheel = next((own_site / "wheels").glob("webllm-*.whl"))
    wheel.unlink()
    text = error_of_page(page, server)
    assert wheel.name in text and "HTTP 404" in text and "upload the whole site" in text


@pytest.mark.parametrize("part", ["pyodide/pyodide.asm.wasm", "worker.js", "site.json"])
def test_a_missing_part_is_an_error_that_says_so(page, server, own_site, part):
    (own_site / part).unlink()
    text = error_of_page(page, server)
    assert part.split("/")[0] in text and "site" in text


def test_a_model_that_is_not_on_the_server_is_named_with_its_url(page, server, own_site):
    next((own_site / "models").iterdir()).unlink()
    text = error_of_page(page, server)
    assert "The model was not found" in text and "/models/SmolLM2" in text and "HTTP 404" in text


def test_an_unknown_short_name_lists_what_there_is(page, server):
    name, message = load(page, server, "gpt-5")
    assert name == "ModelNotFound" and "smollm2-135m-instruct" in message


def test_a_file_that_is_no_gguf_is_refused(page, server, own_site):
    (own_site / "models" / "page.gguf").write_bytes(b"<!doctype html>" * 100)
    name, message = load(page, server, "models/page.gguf")
    assert name == "NotAModel" and "page.gguf" in message


@pytest.mark.parametrize("size", [1_000, 1_000_000, 50_000_000], ids=["header", "table", "data"])
def test_a_model_that_was_cut_off_is_truncated(page, server, own_site, smollm2_file, size):
    with smollm2_file.open("rb") as file:
        (own_site / "models" / "cut.gguf").write_bytes(file.read(size))
    name, message = load(page, server, "models/cut.gguf")
    assert name == "Truncated" and "cut.gguf" in message


def test_a_wrong_option_is_refused(page, server):
    page.goto(f"{server}/?model=")
    refused = page.evaluate(
        "webllm.load('smollm2-135m-instruct', {ctx: 1}).catch(({name, message}) => [name, message])"
    )
    assert refused[0] == "RequestError" and "ctx" in refused[1]


@pytest.mark.parametrize(
    "flags",
    [["--disable-blink-features=WebGPU"], ["--use-webgpu-adapter=none"]],
    ids=["no WebGPU in the browser", "no adapter for it"],
)
def test_without_a_gpu_the_page_says_what_it_needs(browser_type, browser_type_launch_args, server, flags):
    kept = [flag for flag in browser_type_launch_args["args"] if "webgpu" not in flag]
    browser = browser_type.launch(**{**browser_type_launch_args, "args": [*kept, *flags]})
    try:
        page = browser.new_page()
        assert "This page needs WebGPU" in error_of_page(page, server)
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
    finally:
        browser.close()

"""The folder on servers that are not ours: in a sub-path, without Range, isolated, as an npm package, and with none."""

import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.conftest import POLICY
from tests.models.reference import Shape, forward, random_model, write_gguf
from webllm.site import build_site
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

MODEL = random_model(Shape(layers=1, context=64))
IDS = [1, 5, 9]
BEST = int(forward(MODEL, IDS)[-1].argmax())
GENERATE = """async () => {
    const llm = await webllm.load(new URL("models/tiny.gguf", document.baseURI).href);
    const ids = await llm.generate([1, 5, 9], 1);
    await llm.close();
    return ids;
}"""


class Plain(SimpleHTTPRequestHandler):
    """`python -m http.server`: no Range, no Cache-Control."""

    def log_message(self, *args):
        pass


@contextmanager
def plain_server(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def tiny_site(own_site):
    write_gguf(MODEL, own_site / "models" / "tiny.gguf")
    return own_site


@pytest.fixture
def context(browser):
    """With service workers, which the other tests go without."""
    context = browser.new_context()
    yield context
    context.close()


def watched(context):
    """A page, and what it complained of."""
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(error.message))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    return page, wrong


def wait_for_service_worker(page):
    page.evaluate("navigator.serviceWorker.ready.then(() => null)")


def test_a_sub_path_of_a_server_without_range_will_do(context, tiny_site):
    with plain_server(tiny_site.parent) as origin:
        page, wrong = watched(context)
        page.goto(f"{origin}/{tiny_site.name}/?model=")
        wait_for_service_worker(page)
        assert page.evaluate(GENERATE) == [BEST]
        assert wrong == []


def test_an_isolated_page_under_the_strict_policy_works(context, tiny_site):
    isolated = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with serve_in_thread(tiny_site, headers={**isolated, "Content-Security-Policy": POLICY}) as server:
        page, wrong = watched(context)
        page.goto(f"{server.url}/?model=")
        wait_for_service_worker(page)
        page.reload()  # now through the service worker, whose answers keep their headers
        assert page.evaluate("crossOriginIsolated && navigator.serviceWorker.controller !== null")
        assert page.evaluate(GENERATE) == [BEST]
        assert wrong == []


def test_the_folder_is_an_npm_package(context, tiny_site, tmp_path):
    packed = subprocess.run(["npm", "pack", "--json", tiny_site], cwd=tmp_path, capture_output=True, check=True)
    [told] = json.loads(packed.stdout)
    with tarfile.open(tmp_path / told["filename"]) as archive:
        archive.extractall(tmp_path, filter="data")
    package = tmp_path / "package"
    assert not (package / "models").exists()
    entry = json.loads((package / "package.json").read_text())["exports"]["."]["default"]
    (package / "own.html").write_text(
        f'<!doctype html><link rel="icon" href="icon.svg"><script type="module" src="{entry}"></script>'
    )
    shutil.copytree(tiny_site / "models", package / "models", copy_function=os.link)
    with serve_in_thread(package) as server:
        page, wrong = watched(context)
        page.goto(f"{server.url}/own.html")
        page.wait_for_function("window.webllm")
        assert page.evaluate(GENERATE) == [BEST]
        assert wrong == []


def test_with_the_network_gone_the_page_starts_and_computes_and_a_new_site_replaces_the_old_one(
    context, tiny_site, parts, tmp_path
):
    page, _ = watched(context)
    with serve_in_thread(tiny_site) as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
        page.goto(f"{url}/?model=")
        wait_for_service_worker(page)
        kept = page.evaluate("caches.keys()")
    picked = tiny_site.joinpath("models", "tiny.gguf")
    page.goto(f"{url}/?model=")
    page.locator("#file").set_input_files(picked)
    page.locator("body[data-state=ready]").wait_for()
    page.goto(f"{url}/bench.html?config=none")  # another page of the folder
    assert page.locator("h1").inner_text() == "webllm bench"

    with serve_in_thread(newer_site(parts, tmp_path), port=port):
        page.goto(f"{url}/?model=")
        assert page.title() == "webllm"  # the old site to the end
        page.evaluate("navigator.serviceWorker.getRegistration().then((known) => known.update())")
        page.wait_for_function("navigator.serviceWorker.getRegistration().then(({ waiting }) => waiting !== null)")
        page.close()
        page = opened_anew(context, f"{url}/?model=", "a newer one")
        [now] = page.evaluate("caches.keys()")
    assert kept != [now]


def opened_anew(context, url, title):
    """The page, once it has this title: a service worker takes over some time after the last page is closed."""
    for _ in range(20):
        page = context.new_page()
        page.goto(url)
        if page.title() == title:
            return page
        page.close()
        time.sleep(0.5)
    pytest.fail(f"no page has the title {title}")


def newer_site(parts, folder):
    page = shutil.copytree(parts.page, folder / "page")
    index = page / "index.html"
    index.write_text(index.read_text().replace("<title>webllm</title>", "<title>a newer one</title>"))
    return build_site(folder / "newer", model=None, parts=replace(parts, page=page))

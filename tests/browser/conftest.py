"""Browser tests drive the page in Chromium, from the built wheel, on SwiftShader: no GPU is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from webllm.demo import browser_flags, find_browser, requests_elsewhere
from webllm.pull import cached
from webllm.site import Parts, build_site
from webllm.static_server import Request, serve_in_thread

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SMOLLM2 = "smollm2-135m-instruct"
FAKE = Path(__file__).with_name("fake_webllm.js").read_text(encoding="utf-8")
POLICY = (  # as docs/page.md recommends it
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
)


def pytest_configure(config: pytest.Config) -> None:
    """pytest-base-url, which pytest-playwright brings, declares its fixture in a way that pytest 9 warns of."""
    config.addinivalue_line("filterwarnings", "ignore:Session-scoped fixtures defined as instance methods")


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The default model's file, which `make model` fetches."""
    path = cached(SMOLLM2)
    if path is None:
        pytest.fail(f"{SMOLLM2} is not in the cache folder: run `make model` (or `webllm pull {SMOLLM2}`)")
    return path


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """What transformers in float32 says about the default model: see tests/data/README.md."""
    cases: list[dict[str, Any]] = json.loads((DATA / f"{SMOLLM2}.json").read_text(encoding="utf-8"))["cases"]
    return cases


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Parts:
    """What a site is made of: page, kernels and Python out of a wheel built now."""
    subprocess.run(["npm", "run", "--silent", "build"], cwd=ROOT, check=True)
    wheels = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    unpacked = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(next(wheels.glob("webllm-*.whl"))).extractall(unpacked)
    parts = Parts.find(ROOT)
    for wheel in (path for path in parts.wheels.glob("*.whl") if not path.name.startswith("webllm-")):
        shutil.copy(wheel, wheels)
    return replace(parts, page=unpacked / "webllm" / "_browser_shell", wheels=wheels)


@pytest.fixture(scope="session")
def site(tmp_path_factory, smollm2_file, parts) -> Path:
    """The site as it is published; and in modules/ what is bundled, for tests of one module."""
    out = build_site(tmp_path_factory.mktemp("site"), model=smollm2_file, parts=parts)
    shutil.copytree(ROOT / "browser_shell", out / "modules")
    for name in ("pyodide.mjs", "pyodide-lock.json"):  # for a Python in the page itself
        shutil.copy(parts.pyodide / name, out / "modules")
    return out


@pytest.fixture
def own_site(site, tmp_path) -> Path:
    """A copy of the site that a test may spoil."""
    return Path(shutil.copytree(site, tmp_path / "site", copy_function=os.link))


@pytest.fixture(scope="session")
def requests_seen() -> list[Request]:
    """What `url` was asked for."""
    return []


@pytest.fixture(scope="session")
def url(site, requests_seen) -> Iterator[str]:
    """Address of the site; no slash at the end."""
    with serve_in_thread(site, on_request=requests_seen.append) as server:
        yield server.url


@pytest.fixture(scope="session")
def strict_requests_seen() -> list[Request]:
    """What `strict_url` was asked for."""
    return []


@pytest.fixture(scope="session")
def strict_url(site, strict_requests_seen) -> Iterator[str]:
    """The same site under a strict Content-Security-Policy, which forbids Playwright's `wait_for_function` too."""
    policy = {"Content-Security-Policy": POLICY}
    with serve_in_thread(site, headers=policy, on_request=strict_requests_seen.append) as server:
        yield server.url


@pytest.fixture
def open_page(page, strict_url) -> Iterator[Callable[..., Page]]:
    """Open the chat page over a fake model: open_page("?prompt=Hi", pieces=["Hello"]). Nothing may break the policy."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(error.message))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)

    def open_page(query: str = "", **fake: Any) -> Page:
        page.add_init_script(f"window.fake = {json.dumps(fake)}")
        page.route("**/webllm.js", lambda route: route.fulfill(body=FAKE, content_type="text/javascript"))
        page.goto(f"{strict_url}/{query}")
        return page

    yield open_page
    assert wrong == []


@pytest.fixture
def logged(browser_type, browser_type_launch_args, tmp_path):
    """A browser of its own, and a function that ends it and gives what it asked for elsewhere."""
    netlog = tmp_path / "netlog.json"
    browser = browser_type.launch(**{**browser_type_launch_args, "args": browser_flags(netlog, gpu=False)})

    def close():
        browser.close()
        return requests_elsewhere(netlog.read_text(encoding="utf-8"))

    yield browser, close
    browser.close()


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args) -> dict[str, Any]:
    """No page fetches its parts again for a service worker; test_hosting.py has contexts of its own."""
    return {**browser_context_args, "service_workers": "block"}


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args) -> dict[str, Any]:
    """Chromium as the demo starts it: on the CPU, and no way off this machine."""
    return {**browser_type_launch_args, "executable_path": find_browser(), "args": browser_flags(gpu=False)}

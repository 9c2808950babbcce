"""`make demo`: the chat page with the default model, in the user's browser or driven in headless Chromium.

Headless, it asks one question, prints the answer as it grows and counts the requests that tried to leave the machine.
It knows the page by what the page promises: `data-state` on the body, a text box, `[data-role="assistant"]`, `#stats`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from webllm.errors import FetchError, WebLLMError
from webllm.pull import pull
from webllm.site import Parts, build_site, short_name
from webllm.static_server import serve_in_thread

if TYPE_CHECKING:
    from playwright.sync_api import Page

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France? Answer in one sentence."
LOAD_SECONDS = 600.0
START_SECONDS = 30.0
ANSWER_SECONDS = 600.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_LAST_ANSWER = """[...document.querySelectorAll('[data-role="assistant"]')].at(-1)"""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC_CHROME = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
_QUIET = (
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
)
# Through that extension SwiftShader compiles a store for each number of workgroup memory; without it there is a loop.
_SWIFTSHADER = (
    "--use-webgpu-adapter=swiftshader",
    "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
)


def run_demo(headless: bool | None, port: int) -> int:
    """Build the site, serve it on 127.0.0.1 and open it. Returns the exit status.

    headless    None: where there is no display, or HEADLESS=1
    port        0 takes a free one
    """
    model = pull(MODEL)
    root = Path(__file__).parent.parent
    site = build_site(root / "build" / "site", model=model, parts=Parts.find(root))
    with serve_in_thread(site, port=port) as server:
        url = f"{server.url}/?model={short_name(model)}"
        print(f"the chat page: {url}", flush=True)
        if no_display(os.environ, sys.platform) if headless is None else headless:
            return _converse_headless(f"{url}&temperature=0")  # the same answer every time
        return _open_and_wait(url)


def no_display(environ: Mapping[str, str], platform: str) -> bool:
    """Return whether a browser window has nowhere to open."""
    if environ.get("HEADLESS", "0") not in {"", "0"}:
        return True
    return platform.startswith("linux") and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def find_browser() -> str:
    """Return the path of a Chrome or Chromium: CHROMIUM=, then PATH, then macOS' usual place."""
    named = os.environ.get("CHROMIUM")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FetchError(f"CHROMIUM={named} is no program. Set it to the path of a Chrome or Chromium.")
        return found
    for name in (*_BROWSERS, _MAC_CHROME):
        if found := shutil.which(name):
            return found
    raise FetchError(
        f"no Chrome or Chromium on PATH (looked for {', '.join(_BROWSERS)}). Install one, or set CHROMIUM="
    )


def browser_flags(netlog: Path | None = None, *, gpu: bool | None = None) -> list[str]:
    """Return Chromium's flags for WebGPU in a page that reaches this machine only.

    netlog  where Chromium writes its network log
    gpu     False: SwiftShader, on the CPU; None: whether there is a GPU
    """
    flags = [*_QUIET, "--enable-unsafe-webgpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.name == "posix" and os.geteuid() == 0:
        flags.append("--no-sandbox")
    if not (has_gpu() if gpu is None else gpu):
        flags += _SWIFTSHADER
    elif sys.platform == "linux":
        flags += ["--ignore-gpu-blocklist", "--use-angle=vulkan", "--enable-features=Vulkan"]
    if netlog is not None:
        flags.append(f"--log-net-log={netlog}")
    return flags


def has_gpu() -> bool:
    """Return whether this machine seems to have a GPU: on Linux by its device files, elsewhere always."""
    if sys.platform != "linux":
        return True
    return any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/dev/dri").glob("renderD*"))


def requests_elsewhere(netlog: str) -> list[str]:
    """Return what a Chromium network log, given as text, says went or wanted to go beyond this machine.

    That is each URL that the page or its workers asked for, blocked or not, and each address that the browser
    connected to for whatever reason. Requests of Chromium's own (update checks, no initiator) count only when they
    got as far as a connection: `--host-resolver-rules` stops them before. A log without its end is read as far as it
    goes.
    """
    log = _parse_netlog(netlog)
    names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    targets = (_target(names[event["type"]], event.get("params", {})) for event in log["events"])
    return [target for target in targets if target and urlsplit(target).hostname not in LOOPBACK]


def _target(event: str, params: Mapping[str, Any]) -> str:
    """The URL of a page's request over the network, or of a connection; "" for any other event."""
    if event == "TCP_CONNECT_ATTEMPT" and "address" in params:
        return f"tcp://{params['address']}"
    of_page = params.get("initiator") != "not an origin" or params.get("request_type") == "main frame"
    if event == "URL_REQUEST_START_JOB" and of_page:
        url = str(params.get("url", ""))
        return url if url.startswith(("http:", "https:", "ws:", "wss:")) else ""
    return ""


def _parse_netlog(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # one event a line, a comma behind each
        return json.loads(text[: text.rindex("},\n") + 1] + "]}")


def _open_and_wait(url: str) -> int:
    if not webbrowser.open(url):
        print("no browser could be opened: open the address above in one with WebGPU")
    print("Ctrl-C ends it", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return 0


def _converse_headless(url: str) -> int:
    with tempfile.TemporaryDirectory(prefix="webllm-demo-") as folder:
        netlog = Path(folder) / "netlog.json"
        answer, stats = _converse(url, netlog)
        left = requests_elsewhere(netlog.read_text(encoding="utf-8", errors="replace"))
    print(stats)
    print(f"requests that left the machine: {len(left)}", *left[:10], sep="\n  ")
    return 0 if answer and not left else 1


def _converse(url: str, netlog: Path) -> tuple[str, str]:
    """Ask the question in headless Chromium; return the answer and the page's statistics."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise FetchError("driving the page headless needs Playwright: pip install playwright") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=browser_flags(netlog))
        try:
            page = browser.new_page()
            page.goto(url)
            return _ask(page), page.locator("#stats").inner_text()
        except Error as error:
            raise WebLLMError(f"the page could not be driven: {error.message}") from error
        finally:
            browser.close()  # which also ends the network log


def _ask(page: Page) -> str:
    """Type the question, print the answer while it grows, and return it when the page has finished."""
    started = time.monotonic()
    _wait(page, "document.body.dataset.state !== 'loading'", LOAD_SECONDS)
    print(f"ready after {time.monotonic() - started:.1f} s\n> {QUESTION}", flush=True)
    box = page.get_by_role("textbox")
    box.fill(QUESTION)
    box.press("Enter")
    _wait(page, f"document.body.dataset.state !== 'ready' || {_LAST_ANSWER}?.textContent", START_SECONDS)
    return _print_growing(page)


def _wait(page: Page, condition: str, seconds: float) -> None:
    page.wait_for_function(condition, timeout=seconds * 1000)
    _refuse_error(page)


def _refuse_error(page: Page) -> None:
    if page.evaluate("document.body.dataset.state") == "error":
        raise WebLLMError(f"the page reports: {' '.join(_texts(page)) or 'an error, without a text'}")


def _texts(page: Page) -> Iterable[str]:
    return (text.strip() for text in page.locator('[role="alert"]').all_inner_texts() if text.strip())


def _print_growing(page: Page) -> str:
    answer, deadline = "", time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        generating = page.evaluate("document.body.dataset.state") == "generating"
        text: str = page.evaluate(f"{_LAST_ANSWER}?.innerText ?? ''")
        print(text[len(answer) :], end="", flush=True)
        answer = text
        if not generating:
            print()
            _refuse_error(page)
            return answer.strip()
        page.wait_for_timeout(50)
    raise WebLLMError(f"the answer did not end within {ANSWER_SECONDS:.0f} s; so far: {answer!r}")

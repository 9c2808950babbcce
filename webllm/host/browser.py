"""In the browser: the GPU, files and the tokenizer library, all of which lie in JavaScript.

A page's worker hands the JavaScript side over as the global `webllmHost`; a notebook brings its own.
"""

from __future__ import annotations

import platform
from asyncio import ensure_future
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import js
import pyodide
from pyodide.ffi import JsException, can_run_sync, run_sync, to_js

import webllm
from webllm.device import Device, Progress
from webllm.device.browser import bridge_errors, open_browser_device
from webllm.errors import BadModel, RequestError
from webllm.host.javascript import address_of, bring_javascript, stop_button

__all__ = [
    "BlockingCall",
    "BrowserSource",
    "encoder",
    "open_bytes",
    "open_device",
    "open_source",
    "recall",
    "remember",
    "start",
    "stop_button",
    "versions",
]

T = TypeVar("T")


class BrowserSource:
    """A `Source` over one of sources.js, which the bridge reads directly when it loads weights."""

    def __init__(self, source: Any) -> None:
        self.js = source
        self.name = str(source.name)
        self.size = int(source.size)

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; for headers, not for weights. Raises `Truncated`, `FetchError`."""
        with bridge_errors():
            array = await self.js.read(offset, size)
            return bytes(array.to_bytes())

    def close(self) -> None:
        """Stop fetching and let go of what came."""
        self.js.close()


async def open_device(adapter: str | None = None, power_preference: str | None = None) -> Device:
    """See `Host.open_device`."""
    await bring_javascript()
    return await open_browser_device(adapter, power_preference)


async def open_bytes(data: bytes) -> BrowserSource:
    """See `Host.open_bytes`."""
    await bring_javascript()
    return BrowserSource(await js.webllmHost.openSource(js.Blob.new(to_js([to_js(data)]))))


async def open_source(location: Any, on_progress: Progress | None = None) -> BrowserSource:
    """See `Host.open_source`. A file that the worker has begun to fetch is taken over.

    Raises `ModelNotFound` or `FetchError`, naming URL and status.
    """
    await bring_javascript()
    with bridge_errors():
        return BrowserSource(await js.webllmHost.openSource(await address_of(location)))


def versions() -> dict[str, str | None]:
    """See `Host.versions`."""
    return {
        "webllm": webllm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "wgpu": None,
        "pyodide": pyodide.__version__,
        "browser": js.navigator.userAgent,
    }


def encoder(tokenizer_json: str) -> Callable[[str], list[int]]:
    """A function from text to ids over `@huggingface/tokenizers`, without special tokens.

    Raises `BadModel` if the library refuses the vocabulary.

    encoder(text_of_tokenizer_json)("Hello")  # [19556]
    """
    try:
        encode_text = js.webllmHost.createEncoder(tokenizer_json)
    except JsException as error:
        raise BadModel(f"the model's vocabulary makes no tokenizer: {error.message}") from error

    def encode(text: str) -> list[int]:
        return list(encode_text(text).to_py()) if text else []

    return encode


class BlockingCall:
    """See `host.BlockingCall`. There is one thread only: the browser suspends Python's stack."""

    def post(self, action: Callable[[], object]) -> None:
        """See `host.BlockingCall.post`."""
        action()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """See `host.BlockingCall.wait`."""
        if can_run_sync():
            return run_sync(work)  # type: ignore[no-any-return]
        work.close()
        raise RequestError(
            "webllm.sync cannot wait here: it needs a browser with WebAssembly's JavaScript Promise Integration, and "
            "Python that was started by runPythonAsync. Use await webllm.load(...)"
        )


def start(work: Coroutine[Any, Any, object]) -> object:
    """See `Host.start`."""
    return ensure_future(work)


def recall(name: str) -> str | None:
    """See `Host.recall`. Nothing is kept: a page that wants to keeps `llm.stats().tuning` itself."""
    return None


def remember(name: str, text: str) -> None:
    """See `recall`."""

"""In the browser: the GPU, files and the tokenizer library, all of which lie in JavaScript.

The worker hands the JavaScript side over as the global `webllmHost`.
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
from webllm.checkpoint.hf_folder import folder_of
from webllm.device import Progress
from webllm.device.browser import bridge_errors
from webllm.device.browser import open_browser_device as open_device
from webllm.errors import BadModel, ModelNotFound, RequestError

__all__ = [
    "BlockingCall",
    "BrowserFolder",
    "BrowserSource",
    "encoder",
    "open_bytes",
    "open_device",
    "open_folder",
    "open_source",
    "recall",
    "remember",
    "start",
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

    async def pause(self) -> None:
        """Stop fetching and let go of what came; the next read fetches on."""
        self.js.close()

    def close(self) -> None:
        """Stop fetching and let go of what came."""
        self.js.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()


class BrowserFolder:
    """A `Folder` below an address that ends with a slash."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")

    async def read(self, name: str, limit: int) -> bytes | None:
        """See `Folder.read`. Raises `FetchError` where the server fails."""
        source = await self.open(name)
        if source is None:
            return None
        try:
            if source.size > limit:
                raise BadModel(f"{source.name}: it has more than the {limit:,} bytes that are read of such a file")
            return await source.read(0, source.size)
        finally:
            source.close()

    async def open(self, name: str) -> BrowserSource | None:
        """See `Folder.open`."""
        try:
            return await open_source(f"{self.name}/{name}")
        except ModelNotFound:
            return None


async def open_folder(location: Any) -> BrowserFolder | None:
    """See `Host.open_folder`."""
    folder = folder_of(location) if isinstance(location, str) else None
    return BrowserFolder(folder) if folder else None


async def open_bytes(data: bytes) -> BrowserSource:
    """See `Host.open_bytes`."""
    return BrowserSource(await js.webllmHost.openSource(js.Blob.new(to_js([to_js(data)]))))


async def open_source(location: Any, on_progress: Progress | None = None) -> BrowserSource:
    """See `Host.open_source`. A file that the worker has begun to fetch is taken over.

    Raises `ModelNotFound` or `FetchError`, naming URL and status.
    """
    with bridge_errors():
        return BrowserSource(await js.webllmHost.openSource(location))


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

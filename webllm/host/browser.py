"""In the browser: the GPU, files and the tokenizer library, all of which lie in JavaScript.

A page's worker hands the JavaScript side over as the global `webllmHost`; a notebook brings its own.
"""

from __future__ import annotations

import builtins
import json
import platform
from asyncio import ensure_future
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import js
import pyodide
from pyodide.ffi import JsException, can_run_sync, run_sync, to_js

import webllm
from webllm.checkpoint import StoredModel
from webllm.checkpoint.hf_folder import folder_of
from webllm.device import Device, Progress
from webllm.device.browser import bridge_errors, open_browser_device, reporter, reporting
from webllm.errors import BadModel, ModelNotFound, RequestError
from webllm.host.javascript import address_of, bring_javascript, stop_button
from webllm.hub_place import hub_place

__all__ = [
    "BlockingCall",
    "BrowserFolder",
    "BrowserSource",
    "Store",
    "encoder",
    "locate",
    "open_bytes",
    "open_device",
    "open_folder",
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

    def __init__(self, source: Any, progress: Any = None) -> None:
        self.js = source
        self.name = str(source.name)
        self.size = int(source.size)
        self._progress = progress  # is told of its download, which goes on while it is open

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; for headers, not for weights. Raises `Truncated`, `FetchError`."""
        with bridge_errors():
            array = await self.js.read(offset, size)
            return bytes(array.to_bytes())

    async def pause(self) -> None:
        """Let go of the connection; the next read fetches on. What goes into the browser's store comes all the same."""
        self.js.pause()

    def close(self) -> None:
        """Stop fetching and let go of what came."""
        self.js.close()
        if self._progress is not None:
            self._progress.destroy()
            self._progress = None

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

    async def open(self, name: str, md5: str | None = None) -> BrowserSource | None:
        """See `Folder.open`."""
        try:
            return await _open(f"{self.name}/{name}", keep=False)  # dozens of files are no models of their own
        except ModelNotFound:
            return None


async def locate(location: Any, on_progress: Progress | None = None) -> Any:
    """See `Host.locate`. Without `:file.gguf` a repository counts as a folder: a page does not ask for lists."""
    place = hub_place(location)
    return location if place is None else place.url(place.file or "")


async def open_folder(location: Any) -> BrowserFolder | None:
    """See `Host.open_folder`."""
    folder = folder_of(location) if isinstance(location, str) else None
    return BrowserFolder(folder) if folder else None


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
    return await _open(location, on_progress)


async def _open(location: Any, on_progress: Progress | None = None, keep: bool = True) -> BrowserSource:
    """keep: whether the browser stores what comes."""
    await bring_javascript()
    progress = reporter(on_progress)
    try:
        with bridge_errors():
            return BrowserSource(await js.webllmHost.openSource(await address_of(location), progress, keep), progress)
    except BaseException:
        if progress is not None:
            progress.destroy()
        raise


class Store:
    """See `host.Store`: the browser's own, through cache.js."""

    async def list(self) -> builtins.list[StoredModel]:
        """See `webllm.cache.list`."""
        await bring_javascript()
        with bridge_errors():
            return _plain(await js.webllmHost.cache.list())  # type: ignore[no-any-return]

    async def verify(self, name: str, on_progress: Progress | None = None) -> bool:
        """See `webllm.cache.verify`."""
        await bring_javascript()
        with bridge_errors(), reporting(on_progress) as report:
            return bool(await js.webllmHost.cache.verify(name, report))

    async def delete(self, name: str) -> bool:
        """See `webllm.cache.delete`."""
        await bring_javascript()
        with bridge_errors():
            return bool(await js.webllmHost.cache.delete(name))

    async def export(self, name: str) -> Any:
        """See `webllm.cache.export`."""
        await bring_javascript()
        with bridge_errors():
            return await js.webllmHost.cache.export(name)

    async def import_(self, file: Any, name: str | None = None, on_progress: Progress | None = None) -> StoredModel:
        """See `webllm.cache.import_`."""
        await bring_javascript()
        with bridge_errors(), reporting(on_progress) as report:
            return _plain(await js.webllmHost.cache.import_(file, name, report))  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Through JSON: `to_py` would leave JavaScript's null as it is."""
    return json.loads(js.JSON.stringify(value))


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

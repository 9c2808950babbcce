"""Runs programs in the browser, through browser_shell/bridge.js. Weight bytes never come to Python.

The worker hands the JavaScript side over as the global `webllmHost`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy, to_js

from webllm import errors
from webllm.checkpoint import Source
from webllm.device import AdapterInfo, Progress, Seconds
from webllm.device.fit import check_fit
from webllm.errors import Closed, DeviceError, WebLLMError
from webllm.link import link
from webllm.plan import Program


@dataclass
class BrowserLoaded:
    """A program on the GPU; `id` is the bridge's number for it, None once it is freed."""

    program: Program
    id: int | None
    seconds: Seconds


class BrowserDevice:
    """A `Device` over one WebGPU device of the browser."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self.info = AdapterInfo(**bridge.info.to_py())
        self.features = frozenset[str](bridge.features.to_py())
        self.limits: Mapping[str, int] = bridge.limits.to_py()

    @property
    def gpu_bytes(self) -> int:
        """GPU bytes held by all loaded programs."""
        return int(self._bridge.bytes)

    async def load(
        self, program: Program, sources: Sequence[Source], on_progress: Progress | None = None
    ) -> BrowserLoaded:
        """See `Device.load`. The sources must come from `webllm.host.browser`."""
        seconds = Seconds()
        with seconds.of("link"):
            linked = link(program)
            check_fit(program, linked, self.limits, self.info.name)
            text = json.dumps(vars(linked), separators=(",", ":"))
        files = to_js([source.js for source in sources])  # type: ignore[attr-defined]
        with bridge_errors(), reporting(on_progress) as report:
            loaded = BrowserLoaded(program, await self._bridge.load(text, files, report), seconds)
            seconds.update(self._bridge.seconds(loaded.id).to_py())
        for name, data in program.constants.items():
            self.write(loaded, name, data)
        return loaded

    def write(self, loaded: BrowserLoaded, name: str, data: bytes, offset: int = 0) -> None:
        """See `Device.write`."""
        with bridge_errors():
            self._bridge.write(_live(loaded), loaded.program.index(name), to_js(data), offset)

    def submit(
        self, loaded: BrowserLoaded, plans: Sequence[str], rows: int, length: int, steps: int = 1
    ) -> Awaitable[bytes]:
        """See `Device.submit`. One call to JavaScript, however many plans and steps."""
        with bridge_errors():
            return _Bytes(self._bridge.submit(_live(loaded), to_js(plans), rows, length, steps))

    async def time(
        self, loaded: BrowserLoaded, plans: Sequence[str], rows: int, length: int, *, each: bool = False
    ) -> list[float] | None:
        """See `Device.time`."""
        number = _live(loaded)
        if "timestamp-query" not in self.features:
            return None
        with bridge_errors():
            seconds: list[float] = (await self._bridge.time(number, to_js(plans), rows, length, each)).to_py()
            return seconds

    async def read(self, loaded: BrowserLoaded, name: str, size: int, offset: int = 0) -> bytes:
        """See `Device.read`."""
        with bridge_errors():
            return await _Bytes(self._bridge.read(_live(loaded), loaded.program.index(name), size, offset))

    async def grow(self, loaded: BrowserLoaded, sizes: Mapping[str, int]) -> None:
        """See `Device.grow`."""
        numbered = [[loaded.program.index(name), size] for name, size in sizes.items()]
        with bridge_errors():
            await self._bridge.grow(_live(loaded), to_js(numbered))

    def unload(self, loaded: BrowserLoaded) -> None:
        """See `Device.unload`."""
        if loaded.id is not None:
            self._bridge.unload(loaded.id)
            loaded.id = None

    def close(self) -> None:
        """Free everything."""
        self._bridge.close()


async def open_browser_device(adapter: str | None = None, power_preference: str | None = None) -> BrowserDevice:
    """The GPU that the browser gives. adapter: part of the name it must have. power_preference: WebGPU's own.

    Raises `NoAdapter` where there is no WebGPU, no GPU, or another one.
    """
    with bridge_errors():
        return BrowserDevice(await js.webllmHost.openDevice(adapter or "", power_preference or "high-performance"))


@contextmanager
def bridge_errors() -> Iterator[None]:
    """Raise what JavaScript throws as the class of webllm.errors that it names."""
    try:
        yield
    except JsException as error:
        kind = getattr(errors, error.name, None)
        if not (isinstance(kind, type) and issubclass(kind, WebLLMError)):
            raise DeviceError(f"{error.name}: {error.message}") from error
        if issubclass(kind, DeviceError):
            raise kind(error.message, **_details(error)) from None
        raise kind(error.message) from None


def _details(error: JsException) -> dict[str, Any]:
    """What bridge.js knows beside the message: the fields of `DeviceError`."""
    known = {name: getattr(error, name, None) for name in ("kernel", "line", "sizes")}
    return {name: value.to_py() if name == "sizes" else value for name, value in known.items() if value is not None}


class _Bytes:
    """A promise of bytes. Unlike a coroutine it may be dropped without being awaited."""

    def __init__(self, promise: Any) -> None:
        self._promise = promise

    def __await__(self) -> Generator[Any, None, bytes]:
        with bridge_errors():
            array = yield from self._promise.__await__()
            return bytes(array.to_bytes())


@contextmanager
def reporting(on_progress: Progress | None) -> Iterator[Any]:
    """`on_progress` as a JavaScript function that takes an object, or None."""
    proxy = reporter(on_progress)
    try:
        yield proxy
    finally:
        if proxy is not None:
            proxy.destroy()


def reporter(on_progress: Progress | None) -> Any:
    """The same, which the caller destroys."""
    return on_progress and create_proxy(lambda progress: on_progress(progress.to_py()))


def _live(loaded: BrowserLoaded) -> int:
    if loaded.id is None:
        raise Closed("the model was closed; load it again")
    return loaded.id

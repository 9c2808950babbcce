"""Where we run: natively, or in a browser under Pyodide. One function decides."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from webllm.checkpoint import Folder, Source, StoredModel
from webllm.device import Device, Progress

T = TypeVar("T")


class BlockingCall(Protocol):
    """One call of code that does not await."""

    def post(self, action: Callable[[], object]) -> None:
        """Have `action` called in the thread that waits."""
        ...

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs elsewhere. An exception in this thread, Ctrl-C above all, cancels it and is
        raised at once. Raises `RequestError` where one cannot wait.
        """
        ...


class Store(Protocol):
    """Models that are kept on this machine; `webllm.cache` says what each of these does."""

    async def list(self) -> builtins.list[StoredModel]: ...
    async def verify(self, name: str, on_progress: Progress | None = None) -> bool: ...
    async def delete(self, name: str) -> bool: ...
    async def export(self, name: str) -> Any: ...
    async def import_(self, file: Any, name: str | None = None, on_progress: Progress | None = None) -> StoredModel: ...


class Host(Protocol):
    """What differs between the two, as functions of a module."""

    async def open_device(self, adapter: str | None = None, power_preference: str | None = None) -> Device:
        """A GPU. adapter: part of the name it must have. power_preference: "high-performance", the default, or
        "low-power". Raises `NoAdapter`, or `RequestError` for another preference."""
        ...

    async def locate(self, location: Any, on_progress: Progress | None = None) -> Any:
        """A location that the two below take: what names a place on the Hub (`webllm.hub_place`) is natively fetched to
        this machine, in the browser an address. Raises a `FetchError`."""
        ...

    async def open_source(self, location: Any, on_progress: Progress | None = None) -> Source:
        """A model file by short name, path, URL or browser `File`. Raises a `FetchError`."""
        ...

    async def open_folder(self, location: Any) -> Folder | None:
        """The folder in Hugging Face's layout at a path, or at an address that ends with a slash; one of its files will
        do. None where `location` is anything else."""
        ...

    async def open_bytes(self, data: bytes) -> Source:
        """Bytes at hand as a source."""
        ...

    def versions(self) -> dict[str, str | None]:
        """Of webllm, python, platform, wgpu, pyodide and browser, by these names; None for what is not there."""
        ...

    def encoder(self, tokenizer_json: str) -> Callable[[str], list[int]]:
        """A function from ordinary text to token ids."""
        ...

    def BlockingCall(self) -> BlockingCall:
        """For `webllm.sync`."""
        ...

    def Store(self) -> Store:
        """For `webllm.cache`."""
        ...

    def recall(self, name: str) -> str | None:
        """A small text that was kept under this name earlier, if one was; the browser keeps none.

        Raises `OSError`, or `ValueError` where it is no small text.
        """
        ...

    def remember(self, name: str, text: str) -> None:
        """Keep a small text for later processes. Raises `OSError`."""
        ...

    def stop_button(self, action: Callable[[], object]) -> AbstractContextManager[str]:
        """HTML of a button that calls `action` while the block runs; "" where a notebook's own stops what runs."""
        ...

    def start(self, work: Coroutine[Any, Any, object]) -> object:
        """Run `work` where blocking calls run theirs; nobody waits for it."""
        ...


def current() -> Host:
    """The module for this interpreter."""
    name = "browser" if sys.platform == "emscripten" else "native"
    return cast(Host, import_module(f"webllm.host.{name}"))

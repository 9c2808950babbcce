"""Where we run: natively, or in a browser under Pyodide. One function decides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from webllm.checkpoint import Source
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


class Host(Protocol):
    """What differs between the two, as functions of a module."""

    async def open_device(self, adapter: str | None = None, power_preference: str | None = None) -> Device:
        """A GPU. adapter: part of the name it must have. power_preference: "high-performance", the default, or
        "low-power". Raises `NoAdapter`, or `RequestError` for another preference."""
        ...

    async def open_source(self, location: Any, on_progress: Progress | None = None) -> Source:
        """A model file by short name, path, URL or browser `File`. Raises a `FetchError`."""
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

"""Where we run: natively, or in a browser under Pyodide. One function decides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from webllm.checkpoint import Source
from webllm.device import Device, Progress


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

    def encoder(self, tokenizer_json: str) -> Callable[[str], list[int]]:
        """A function from ordinary text to token ids."""
        ...


def current() -> Host:
    """The module for this interpreter."""
    name = "browser" if sys.platform == "emscripten" else "native"
    return cast(Host, import_module(f"webllm.host.{name}"))

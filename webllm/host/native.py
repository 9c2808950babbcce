"""Natively: wgpu-py, files and HTTP, and the Rust tokenizers."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import webllm
from webllm.checkpoint import Source
from webllm.device import Device, Progress
from webllm.errors import SoftwareAdapterWarning
from webllm.host.background import BlockingCall, start
from webllm.host.encoder import rust_encoder as encoder
from webllm.host.files import BytesSource, FileSource, HttpSource
from webllm.pull import cache_folder, pull

__all__ = [
    "BlockingCall",
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

_SMALL = 1 << 20  # bytes of a text that is kept


async def open_device(adapter: str | None = None, power_preference: str | None = None) -> Device:
    """See `Host.open_device`. Warns once with `SoftwareAdapterWarning` of a software adapter that nobody named."""
    from webllm.device.adapters import wanted_name
    from webllm.device.native import NativeDevice

    device = NativeDevice(adapter, power_preference)
    if device.info.software and not wanted_name(adapter):
        _warn_of_software(device.info.name)
    return device


@cache  # once a process
def _warn_of_software(name: str) -> None:
    warnings.warn(
        f"no GPU was found, so {name} runs the model on the processor: answers are the same, and slow. Install a "
        f"Vulkan, Metal or D3D12 driver; `webllm doctor` lists what is there. Where this is meant, adapter={name!r} "
        "or WEBLLM_ADAPTER says so",
        SoftwareAdapterWarning,
        stacklevel=4,
    )


def versions() -> dict[str, str | None]:
    """See `Host.versions`."""
    return {
        "webllm": webllm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "wgpu": version("wgpu"),
        "pyodide": None,
        "browser": None,
    }


async def open_bytes(data: bytes) -> Source:
    """See `Host.open_bytes`."""
    return BytesSource(data)


async def open_source(location: str | Path, on_progress: Progress | None = None) -> Source:
    """See `Host.open_source`. A short name is fetched into the cache first."""
    if str(location).startswith(("http://", "https://")):
        return await HttpSource.open(str(location))
    return FileSource(await _pull(location, on_progress))


async def _pull(location: str | Path, on_progress: Progress | None) -> Path:
    """`pull` in a thread: progress is told on the caller's loop, and cancelling ends the download."""
    loop, cancelled = asyncio.get_running_loop(), threading.Event()

    def tell(progress: dict[str, Any]) -> None:
        if cancelled.is_set():
            raise asyncio.CancelledError  # from the thread: what has come stays for the next time
        if on_progress:
            loop.call_soon_threadsafe(on_progress, progress)

    try:
        return await asyncio.to_thread(pull, location, tell)
    except asyncio.CancelledError:
        cancelled.set()
        raise


@contextmanager
def stop_button(action: Callable[[], object]) -> Iterator[str]:
    """See `Host.stop_button`. Jupyter's own interrupts the kernel."""
    yield ""


def recall(name: str) -> str | None:
    """See `Host.recall`. It lies in the cache folder."""
    try:
        with open(cache_folder() / name, "rb") as file:
            data = file.read(_SMALL + 1)
    except FileNotFoundError:
        return None
    if len(data) > _SMALL:
        raise ValueError(f"it has more than {_SMALL:,} bytes; delete it")
    return data.decode()


def remember(name: str, text: str) -> None:
    """See `Host.remember`. It is there as a whole or not at all."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    number, path = tempfile.mkstemp(dir=folder)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path, folder / name)
    except BaseException:
        os.unlink(path)
        raise

"""Natively: wgpu-py, files and HTTP, and the Rust tokenizers."""

from __future__ import annotations

import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import webllm
from webllm.cache_folder import cache_folder
from webllm.checkpoint import Folder, Source
from webllm.checkpoint.hf_folder import folder_of
from webllm.device import Device, Progress
from webllm.errors import SoftwareAdapterWarning
from webllm.host.background import BlockingCall, start
from webllm.host.encoder import rust_encoder as encoder
from webllm.host.files import BytesSource, FileSource, HttpSource
from webllm.host.folders import HttpFolder, LocalFolder
from webllm.host.store import CacheStore as Store
from webllm.host.store import in_thread
from webllm.hub_place import hub_place
from webllm.pull import pull

__all__ = [
    "BlockingCall",
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


async def locate(location: Any, on_progress: Progress | None = None) -> Any:
    """See `Host.locate`. It is fetched into the Hub's cache."""
    here = isinstance(location, Path) or os.path.exists(str(location))
    if here or not hub_place(location):
        return location
    return await in_thread(lambda tell: pull(location, tell), on_progress)


async def open_folder(location: str | Path) -> Folder | None:
    """See `Host.open_folder`. A folder that holds a .gguf file is none of these: the file is the model."""
    text = str(location)
    if text.startswith(("http://", "https://")):
        folder = folder_of(text)
        return HttpFolder(folder) if folder else None
    path = Path(location)
    path = path.parent if folder_of(path.name) is not None else path
    here = (
        path.is_dir()
        and not any(path.glob("*.gguf"))
        and any((path / name).is_file() for name in ("config.json", "mlc-chat-config.json", "tokenizer.json"))
    )
    return LocalFolder(path) if here else None


async def open_source(location: str | Path, on_progress: Progress | None = None) -> Source:
    """See `Host.open_source`. A short name is fetched into the cache first."""
    if str(location).startswith(("http://", "https://")):
        return await HttpSource.open(str(location))
    return FileSource(await in_thread(lambda tell: pull(location, tell), on_progress))


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

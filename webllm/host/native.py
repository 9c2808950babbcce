"""Natively: wgpu-py, files and HTTP, and the Rust tokenizers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from webllm.checkpoint import Source
from webllm.device import Device, Progress
from webllm.host.encoder import rust_encoder as encoder
from webllm.host.files import BytesSource, FileSource, HttpSource
from webllm.pull import pull

__all__ = ["encoder", "open_bytes", "open_device", "open_source"]


async def open_device(adapter: str | None = None) -> Device:
    """See `Host.open_device`."""
    from webllm.device.native import NativeDevice

    return NativeDevice(adapter)


async def open_bytes(data: bytes) -> Source:
    """See `Host.open_bytes`."""
    return BytesSource(data)


async def open_source(location: str | Path, on_progress: Progress | None = None) -> Source:
    """See `Host.open_source`. A short name is fetched into the cache first."""
    if str(location).startswith(("http://", "https://")):
        return await HttpSource.open(str(location))
    return FileSource(await asyncio.to_thread(pull, location, on_progress))

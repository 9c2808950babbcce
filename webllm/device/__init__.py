"""What runs programs. Two implementations: wgpu-py (`native`) and the browser through bridge.js (`browser`)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from webllm.checkpoint import Source
from webllm.plan import Program

Progress = Callable[[dict[str, Any]], None]
"""Called with {"phase", "loaded", "total", "tensors", "seconds"}; loaded and total in bytes."""


@dataclass(frozen=True)
class AdapterInfo:
    """Which GPU this is. software: a CPU that plays GPU; correct, and slow."""

    name: str
    backend: str  # "Vulkan", "Metal", "D3D12", "WebGPU"
    software: bool
    driver: str = ""


class Seconds(dict[str, float]):
    """How long each part of a piece of work took, by name."""

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add what the block takes to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self[part] = self.get(part, 0.0) + time.perf_counter() - started


class Loaded(Protocol):
    """A program whose buffers are on the GPU and whose pipelines and bind groups are built.

    seconds: what the parts of loading took, by name.
    """

    program: Program
    seconds: Seconds


class Device(Protocol):
    """Runs plans. Buffers are named as in the program; nothing GPU-shaped leaks upward."""

    info: AdapterInfo
    features: frozenset[str]  # WebGPU's own names: "shader-f16", "subgroups", ...
    limits: Mapping[str, int]  # WebGPU's own names, in bytes or counts

    @property
    def gpu_bytes(self) -> int:
        """GPU bytes held by all loaded programs."""
        ...

    async def load(self, program: Program, sources: Sequence[Source], on_progress: Progress | None = None) -> Loaded:
        """Make buffers, compile kernels, stream the uploads through the import kernels, write constants.

        Raises `OutOfMemory` where a buffer, grown to its most, is over the device's limits, before any work;
        `OutOfMemory`, `ShaderError`, `DeviceLost`, or what a source raises; then nothing stays allocated.
        """
        ...

    def write(self, loaded: Any, name: str, data: bytes, offset: int = 0) -> None:
        """Copy `data` into a buffer, before whatever is submitted next."""
        ...

    def submit(self, loaded: Any, plans: Sequence[str], rows: int, length: int, steps: int = 1) -> Awaitable[bytes]:
        """Encode `plans`, one after the other, `steps` times and start them; does not wait.

        rows: records of the step. length: positions that its last row attends to, itself included; it
        grows by one a step. The awaitable gives the last plan's result buffer as it is after the last
        of these steps (b"" for a plan without one), or raises a `DeviceError`.
        """
        ...

    async def time(
        self, loaded: Any, plans: Sequence[str], rows: int, length: int, *, each: bool = False
    ) -> list[float] | None:
        """Run a step as `submit` does, and tell the seconds it took on the GPU, by timestamps.

        One number, from its beginning to its end; each: one for every dispatch, run in a pass of its own, which adds a
        little to each. None on a device without "timestamp-query". Browsers may round timestamps to 100 us.
        """
        ...

    async def read(self, loaded: Any, name: str, size: int, offset: int = 0) -> bytes:
        """Copy bytes of a buffer back. size and offset are multiples of 4."""
        ...

    async def grow(self, loaded: Any, sizes: Mapping[str, int]) -> None:
        """Give buffers, by name, so many bytes; what is in them stays. One that is as large already is left alone.

        Steps in flight end with the old buffer, steps submitted later use the new one. The buffers grow one
        after another. Raises `OutOfMemory`; then those that did not grow are as they were.
        """
        ...

    def unload(self, loaded: Any) -> None:
        """Free every buffer of the program."""
        ...

    def close(self) -> None: ...

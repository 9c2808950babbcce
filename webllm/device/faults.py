"""What wgpu-py raises, as webllm's errors: with the kernel, the line and the sizes where they are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from webllm.errors import DeviceError, DeviceLost, OutOfMemory, ShaderError

_LOST = re.compile(r"(?:Parent device|\[Device\S*(?: \S+)?\]) is lost|device (?:was )?lost", re.I)


@contextmanager
def device_errors(doing: str, sizes: Mapping[str, int] | None = None, kernel: str | None = None) -> Iterator[None]:
    """Raise wgpu's complaints as ours. doing: what was done, with things of these sizes, for this kernel."""
    doing = f"kernel {kernel!r}: {doing}" if kernel else doing
    try:
        yield
    except Exception as error:
        text = str(error)
        if not _from_wgpu(error):
            raise
        if _LOST.search(text):
            raise lost(text) from error
        if type(error).__name__ == "GPUOutOfMemoryError":
            raise OutOfMemory(
                f"out of GPU memory while {doing}{_listed(sizes)}; load with a smaller context or a smaller model",
                kernel=kernel,
                sizes=sizes,
            ) from error
        raise DeviceError(f"{doing}{_listed(sizes)}: {text}", kernel=kernel, sizes=sizes) from error


@contextmanager
def shader_errors(label: str, code: str, device: str) -> Iterator[None]:
    """Turn a compiler's or validator's complaint into one that names the kernel and shows the line."""
    try:
        yield
    except Exception as error:
        if not _from_wgpu(error) or _LOST.search(str(error)):
            raise
        found = re.search(r"wgsl:(\d+):|:(\d+):\d+ error", str(error))
        number = int(found[1] or found[2]) if found else None
        line = f"\nline {number}: {code.splitlines()[number - 1].strip()}" if number else ""
        raise ShaderError(
            f"kernel {label!r} does not compile on {device}:{line}\n{error}", kernel=label, line=number
        ) from error


def lost(reason: str) -> DeviceLost:
    """The error of every call once the GPU is gone."""
    last = reason.strip().splitlines()[-1].strip()
    return DeviceLost(f"the GPU went away ({last}); await llm.reload() opens it again and loads the model anew")


def _from_wgpu(error: Exception) -> bool:
    """wgpu's own exceptions, and those of its promises: a buffer that could not be mapped, say."""
    return type(error).__name__.startswith("GPU") or (type(error) is RuntimeError and "buffer" in str(error))


def _listed(sizes: Mapping[str, int] | None) -> str:
    return f" ({', '.join(f'{name}: {size:,}' for name, size in sizes.items())})" if sizes else ""

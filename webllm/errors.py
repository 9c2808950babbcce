"""Every exception webllm raises on purpose, in one tree.

    WebLLMError
    ├── ModelError               the files are at fault
    │   ├── NotAModel            these bytes are no checkpoint that we read
    │   ├── Truncated            the file ends before its header says it does
    │   ├── BadModel             a header, shape or configuration that contradicts itself
    │   └── Unsupported          a valid file that asks for something we do not have
    ├── FetchError               a file could not be had
    │   ├── ModelNotFound        no such name, path or URL
    │   ├── ChecksumMismatch     the bytes are not the ones that were promised
    │   └── StorageFull          there is no room to keep it
    ├── RequestError             the caller's request is at fault; nothing was changed
    │   └── ContextFull          more tokens than the context holds
    ├── DeviceError              the GPU is at fault
    │   ├── NoAdapter            no GPU, or none that matches
    │   ├── OutOfMemory          the GPU cannot hold what was asked for
    │   ├── ShaderError          a kernel does not compile here
    │   └── DeviceLost           the GPU went away
    └── Closed                   the model was used after close()

Messages name who, what was wanted, what came, and the way out. After any of them the loaded
model stays usable, the chat and a half-finished download are as they were; what had to be dropped
from the KV cache is computed again. After `DeviceLost`, `await llm.reload()` makes it usable.

`SoftwareAdapterWarning` is a warning: there is no GPU, and a CPU plays GPU.
"""

from __future__ import annotations

from collections.abc import Mapping


class WebLLMError(Exception):
    """Base of all errors that webllm raises on purpose."""


class ModelError(WebLLMError):
    """The model's files are at fault."""


class NotAModel(ModelError):
    """These bytes are no checkpoint that webllm reads."""


class Truncated(ModelError):
    """The file ends before its own header says it does."""


class BadModel(ModelError):
    """A header, a tensor shape or a configuration contradicts itself."""


class Unsupported(ModelError):
    """A valid file asks for something that webllm does not have."""


class FetchError(WebLLMError):
    """A file could not be had."""


class ModelNotFound(FetchError):
    """No model of that name, at that path or URL."""


class ChecksumMismatch(FetchError):
    """The bytes that came are not the ones that were promised."""


class StorageFull(FetchError):
    """There is no room to keep a model; the message names what could be deleted."""


class RequestError(WebLLMError, ValueError):
    """The request is at fault; it was refused before any GPU work."""


class ContextFull(RequestError):
    """The request needs more tokens than the context holds."""


class DeviceError(WebLLMError):
    """The GPU, its driver or WebGPU is at fault.

    kernel: the one that it is about, by label. line: of its WGSL text, from 1. sizes: what was wanted
    and what the device allows, by name, in bytes or counts. Each only where it is known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        kernel: str | None = None,
        line: int | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.kernel = kernel
        self.line = line
        self.sizes = dict(sizes or {})


class NoAdapter(DeviceError):
    """No GPU adapter, or none that matches what was asked for."""


class OutOfMemory(DeviceError):
    """The GPU cannot hold what was asked for."""


class ShaderError(DeviceError):
    """A kernel does not compile or validate on this device."""


class DeviceLost(DeviceError):
    """The GPU went away; `await llm.reload()` opens it anew and loads the same model again."""


class Closed(WebLLMError):
    """The model was used after close()."""


class KernelWarning(UserWarning):
    """A variant of a kernel fails its self-test on this device and is not used."""


class TuningWarning(UserWarning):
    """What was measured on this device earlier cannot be used, or not be kept: the defaults are used, or it is measured
    again."""


class SoftwareAdapterWarning(UserWarning):
    """There is no GPU, so a CPU plays one: answers are the same, and slow."""

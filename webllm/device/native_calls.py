"""The C functions under wgpu-py's methods, for what every step does: encode, submit, read back; and to compile.

wgpu-py's own cost several times as much, and its way of mapping a buffer waits for everything that was submitted, where
a step wants to wait for itself alone (docs/log.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from webllm.device.faults import lost
from webllm.plan import Size

# One is enough, unless another thread's took the callback over and has not called it yet. A lost device calls none.
_POLLS = 10_000


class Launch(NamedTuple):
    """A dispatch with its bind group, ready for every step. Handles do not keep their objects, so these are kept."""

    pipeline: Any
    group: Any
    handles: tuple[Any, Any]
    grid: Sequence[Size]  # a tuple of numbers where it is the same in every step
    label: str


class Calls:
    """What a step asks of one device of wgpu-py, or of one of Dawn, which lacks what wgpu-native adds to WebGPU's own.

    calls = Calls(device)
    number = calls.submit(encoder)
    data = calls.read(staging, number)
    """

    def __init__(self, device: Any) -> None:
        self._library = library = sys.modules[type(device).__module__]
        self._gpu, self._device, self._queue = device, device._internal, device.queue
        self._ffi, self._raw, self._checked = library.ffi, library.lib, library.libf
        self._numbered = hasattr(library.libf, "wgpuQueueSubmitForIndex")
        mapped = "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)"
        self._raised: BaseException | None = None  # in a callback, from which C cannot hand it on: Ctrl-C, mostly
        self._awaited: set[Any] = set()  # handles that callbacks are still to get, also where nobody waits any longer
        self._on_mapped = self._ffi.callback(mapped, onerror=self._keep)(self._note) if self._numbered else None

    def _keep(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        self._raised = error

    def _note(self, status: int, message: Any, told: Any, _: Any) -> None:
        text = self._ffi.string(message.data, message.length).decode(errors="replace") if message.data else ""
        self._ffi.from_handle(told).append((status, text))
        self._awaited.discard(told)

    def compile(self, code: str, label: str) -> Any:
        """A shader module. wgpu-native counts the turns of every loop, so that none is endless, for 5 % of a
        step. Kernels end theirs, so they do without; indices are checked as ever.
        """
        if not hasattr(self._checked, "wgpuDeviceCreateShaderModuleTrusted"):
            return self._gpu.create_shader_module(code=code, label=label)
        texts = [self._ffi.new("char[]", text.encode()) for text in (code, label)]
        views = [{"data": text, "length": len(text) - 1} for text in texts]
        chain = {"sType": self._raw.WGPUSType_ShaderSourceWGSL}
        source = self._ffi.new("WGPUShaderSourceWGSL *", {"chain": chain, "code": views[0]})
        chained = self._ffi.cast("WGPUChainedStruct *", source)
        wanted = self._ffi.new("WGPUShaderModuleDescriptor *", {"nextInChain": chained, "label": views[1]})
        checks = self._raw.WGPUShaderRuntimeChecks_BoundsChecks
        module = self._checked.wgpuDeviceCreateShaderModuleTrusted(self._device, wanted, checks)
        return self._library.GPUShaderModule(label, module, self._gpu)

    def encode(self, encoder: Any, launches: Sequence[Launch], rows: int, length: int, stamps: Any = None) -> None:
        """One compute pass; sizes that are not numbers get their value here. stamps: its timestamps, if it has any."""
        compute = encoder.begin_compute_pass(timestamp_writes=stamps)
        handle, null = compute._internal, self._ffi.NULL
        set_pipeline = self._raw.wgpuComputePassEncoderSetPipeline
        set_bind_group = self._raw.wgpuComputePassEncoderSetBindGroup
        dispatch_workgroups = self._raw.wgpuComputePassEncoderDispatchWorkgroups
        for _, _, (pipeline, group), grid, _ in launches:
            x, y, z = grid if type(grid) is tuple else grid_of(grid, rows, length)
            if x and y and z:
                set_pipeline(handle, pipeline)
                set_bind_group(handle, 0, group, 0, null)
                dispatch_workgroups(handle, x, y, z)
        compute.end()

    def submit(self, encoder: Any) -> int:
        """Start what was encoded; returns the number to wait for."""
        commands = encoder.finish()
        if not self._numbered:
            self._queue.submit([commands])
            return 0
        listed = self._ffi.new("WGPUCommandBuffer[]", [commands._internal])
        return int(self._checked.wgpuQueueSubmitForIndex(self._queue._internal, 1, listed))

    def read(self, staging: Any, number: int) -> bytes:
        """What a buffer for reading back holds once a submission is done, which this waits for.

        After an exception the buffer may be mapped, or about to be: it is of no further use. Raises `DeviceLost` where
        the GPU does not answer.
        """
        if not self._numbered:
            staging.map_sync("READ")
            data = bytes(staging.read_mapped())
            staging.unmap()
            return data
        try:
            self._map(staging, number)
            pointer = self._checked.wgpuBufferGetMappedRange(staging._internal, 0, staging.size)
            return bytes(self._ffi.buffer(pointer, staging.size))
        finally:
            self._raw.wgpuBufferUnmap(staging._internal)

    def _map(self, staging: Any, number: int) -> None:
        told: list[tuple[int, str]] = []
        handle = self._ffi.new_handle(told)
        self._awaited.add(handle)
        mode = self._raw.WGPUCallbackMode_AllowProcessEvents
        how = {"mode": mode, "callback": self._on_mapped, "userdata1": handle}
        info = self._ffi.new("WGPUBufferMapCallbackInfo *", how)
        self._checked.wgpuBufferMapAsync(staging._internal, self._raw.WGPUMapMode_Read, 0, staging.size, info[0])
        submission = self._ffi.new("WGPUSubmissionIndex *", number)
        for _ in range(_POLLS):
            self._checked.wgpuDevicePoll(self._device, True, submission)
            if self._raised:
                error, self._raised = self._raised, None
                raise error
            if told:
                break
        if not told:
            raise lost("it does not answer")
        status, text = told[0]
        if status != self._raw.WGPUMapAsyncStatus_Success:
            raise RuntimeError(f"the buffer could not be mapped: {text}")


def grid_of(sizes: Sequence[Size], rows: int, length: int) -> list[int]:
    """The workgroups each way of a step with these numbers of rows and positions."""
    return [size if isinstance(size, int) else size(rows, length) for size in sizes]

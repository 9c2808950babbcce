"""Runs programs through wgpu-py. The only importer of `wgpu`."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from types import ModuleType
from typing import Any, NamedTuple

from webllm.checkpoint import Source
from webllm.device import AdapterInfo, Progress
from webllm.errors import Closed, DeviceError, NoAdapter, OutOfMemory, ShaderError
from webllm.link import ENABLES, link
from webllm.plan import Program

# The limits that matter here, with what every WebGPU device has.
_DEFAULT_LIMITS = {
    "max-buffer-size": 256 << 20,
    "max-storage-buffer-binding-size": 128 << 20,
    "max-compute-workgroup-storage-size": 16 << 10,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-storage-buffers-per-shader-stage": 8,
}
# naga says `subgroup`, and knows the built-in functions without the directive that Tint wants.
_WANTED_FEATURES = ("timestamp-query", "shader-f16", "subgroups", "subgroup")


class Encoded(NamedTuple):
    """A dispatch ready to be encoded. The objects are kept because their handles do not keep them."""

    pipeline: Any
    group: Any
    handles: tuple[Any, Any]
    grid: list[Any]


@dataclass
class NativeLoaded:
    """A program on the GPU."""

    program: Program
    buffers: list[Any] = field(default_factory=list)
    pipelines: list[Any] = field(default_factory=list)
    plans: dict[str, list[Encoded]] = field(default_factory=dict)
    results: dict[str, int | None] = field(default_factory=dict)
    staging: dict[int, list[Any]] = field(default_factory=dict)  # free readback buffers by size

    @property
    def gpu_bytes(self) -> int:
        """GPU bytes held."""
        held = [*self.buffers, *(b for free in self.staging.values() for b in free)]
        return sum(buffer.size for buffer in held if buffer is not None)


class NativeDevice:
    """A `Device` on wgpu-py, or on anything with its interface (tests use Dawn through `wgpudawn`).

    default_limits: ask for nothing beyond what every WebGPU device has.
    """

    def __init__(
        self, adapter: str | None = None, *, api: ModuleType | None = None, default_limits: bool = False
    ) -> None:
        if api is None:
            import wgpu

            api = wgpu
        self._api = api
        chosen = _choose(api, adapter)
        # Named one by one: wgpu-py asks for all that the adapter has where a limit is not mentioned.
        limits = (
            _DEFAULT_LIMITS if default_limits else {k: chosen.limits[k] for k in _DEFAULT_LIMITS if k in chosen.limits}
        )
        features = [] if default_limits else [f for f in _WANTED_FEATURES if f in chosen.features]
        self._device = chosen.request_device_sync(required_limits=limits, required_features=features)
        self._queue = self._device.queue
        self.info = _describe(chosen)
        self.features = frozenset(_webgpu_feature(f) for f in self._device.features)
        self._enables = {f: directive for f, directive in ENABLES.items() if f in self._device.features}
        self.limits: Mapping[str, int] = {_camel(name): value for name, value in self._device.limits.items()}
        self._loaded: list[NativeLoaded] = []

    @property
    def gpu_bytes(self) -> int:
        """GPU bytes held by all loaded programs."""
        return sum(loaded.gpu_bytes for loaded in self._loaded)

    async def load(
        self, program: Program, sources: Sequence[Source], on_progress: Progress | None = None
    ) -> NativeLoaded:
        """See `Device.load`."""
        loaded = NativeLoaded(program)
        self._loaded.append(loaded)
        try:
            with _device_errors(f"loading {len(program.buffers)} buffers"):
                await self._load(loaded, sources, on_progress or (lambda _: None))
        except BaseException:
            self.unload(loaded)
            raise
        return loaded

    async def _load(self, loaded: NativeLoaded, sources: Sequence[Source], on_progress: Progress) -> None:
        program = loaded.program
        linked = link(program, self._enables)
        self._make_buffers(loaded)
        self._make_pipelines(loaded, linked.modules, linked.pipelines)
        await self._stream(loaded, linked.uploads, sources, on_progress)
        for name, data in program.constants.items():
            self.write(loaded, name, data)
        for name, plan in linked.plans.items():
            loaded.plans[name] = [self._bind(loaded, dispatch) for dispatch in plan["dispatches"]]
            loaded.results[name] = plan["result"]
        for i, buffer in enumerate(program.buffers):
            if buffer.kind == "staging":
                loaded.buffers[i].destroy()
                loaded.buffers[i] = None

    def _make_buffers(self, loaded: NativeLoaded) -> None:
        most = self.limits["maxStorageBufferBindingSize"]
        usage = self._api.BufferUsage.STORAGE | self._api.BufferUsage.COPY_DST | self._api.BufferUsage.COPY_SRC
        for buffer in loaded.program.buffers:
            if buffer.size > most:
                raise OutOfMemory(
                    f"{buffer.name} needs {buffer.size:,} bytes and {self.info.name} binds at most {most:,}; "
                    "load with a smaller context, or use a device with a larger limit"
                )
            loaded.buffers.append(self._device.create_buffer(size=buffer.size, usage=usage, label=buffer.name))

    def _make_pipelines(self, loaded: NativeLoaded, modules: list[str], pipelines: list[dict[str, Any]]) -> None:
        compiled: dict[int, Any] = {}
        for pipeline in pipelines:
            number, label = pipeline["module"], pipeline["label"]
            with _shader_errors(label, modules[number], self.info.name):
                if number not in compiled:
                    compiled[number] = self._device.create_shader_module(code=modules[number], label=label)
                loaded.pipelines.append(self._make_pipeline(pipeline, compiled[number]))

    def _make_pipeline(self, pipeline: dict[str, Any], module: Any) -> Any:
        kinds = {"read": "read-only-storage", "read_write": "storage"}
        entries = [
            {"binding": number, "visibility": self._api.ShaderStage.COMPUTE, "buffer": {"type": kinds[access]}}
            for number, access in pipeline["bindings"]
        ]
        layout = self._device.create_bind_group_layout(entries=entries)
        return self._device.create_compute_pipeline(
            layout=self._device.create_pipeline_layout(bind_group_layouts=[layout]),
            compute={"module": module, "entry_point": "main", "constants": pipeline["constants"]},
            label=pipeline["label"],
        )

    def _bind(self, loaded: NativeLoaded, dispatch: dict[str, Any]) -> Encoded:
        pipeline = loaded.pipelines[dispatch["pipeline"]]
        entries = [{"binding": n, "resource": {"buffer": loaded.buffers[b]}} for n, b in dispatch["buffers"]]
        group = self._device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
        return Encoded(pipeline, group, (pipeline._internal, group._internal), dispatch["grid"])

    async def _stream(
        self, loaded: NativeLoaded, uploads: list[dict[str, Any]], sources: Sequence[Source], on_progress: Progress
    ) -> None:
        started = time.perf_counter()
        total = sum(u["rows"] * u["rowBytes"] for u in uploads if u["source"] >= 0)
        done = 0
        for number, upload in enumerate(uploads):
            encoded = self._bind(loaded, upload["dispatch"])
            for row in range(0, upload["rows"], upload["rowsPerPiece"]):
                rows = min(upload["rowsPerPiece"], upload["rows"] - row)
                done += await self._piece(loaded, upload, encoded, sources, row, rows)
            on_progress(
                {
                    "phase": "weights",
                    "loaded": done,
                    "total": total,
                    "tensors": number + 1,
                    "seconds": time.perf_counter() - started,
                }
            )

    async def _piece(
        self,
        loaded: NativeLoaded,
        upload: dict[str, Any],
        encoded: Encoded,
        sources: Sequence[Source],
        row: int,
        rows: int,
    ) -> int:
        """Send whole rows of a tensor through its import kernel; returns the bytes read."""
        size = 0
        if upload["source"] >= 0:
            size = rows * upload["rowBytes"]
            data = await sources[upload["source"]].read(upload["offset"] + row * upload["rowBytes"], size)
            if size % 4:
                data = bytes(data) + bytes(-size % 4)
            self._queue.write_buffer(loaded.buffers[loaded.program.index("raw")], 0, data)
        words = (row, rows, *upload["params"])
        params = b"".join(word.to_bytes(4, "little") for word in words)
        self._queue.write_buffer(loaded.buffers[loaded.program.index("params")], 0, params)
        encoder = self._device.create_command_encoder()
        _encode(encoder, [encoded], rows, 0)
        self._queue.submit([encoder.finish()])
        return size

    def write(self, loaded: NativeLoaded, name: str, data: bytes, offset: int = 0) -> None:
        """See `Device.write`."""
        self._queue.write_buffer(self._buffer(loaded, name), offset, data)

    def submit(
        self, loaded: NativeLoaded, plans: Sequence[str], rows: int, length: int, steps: int = 1
    ) -> Awaitable[bytes]:
        """See `Device.submit`."""
        if not loaded.buffers:
            raise Closed("the model was closed; load it again")
        with _device_errors(" and ".join(plans)):
            encoder = self._device.create_command_encoder()
            for step in range(steps):
                _encode(encoder, chain.from_iterable(loaded.plans[plan] for plan in plans), rows, length + step)
            result = loaded.results[plans[-1]]
            staging = None if result is None else self._copy_out(encoder, loaded, result)
            self._queue.submit([encoder.finish()])
        return self._wait(loaded, staging)

    async def read(self, loaded: NativeLoaded, name: str, size: int, offset: int = 0) -> bytes:
        """See `Device.read`."""
        with _device_errors(f"reading {name}"):
            return bytes(self._queue.read_buffer(self._buffer(loaded, name), offset, size))

    def _buffer(self, loaded: NativeLoaded, name: str) -> Any:
        if not loaded.buffers:
            raise Closed("the model was closed; load it again")
        return loaded.buffers[loaded.program.index(name)]

    def _copy_out(self, encoder: Any, loaded: NativeLoaded, result: int) -> Any:
        size = loaded.program.buffers[result].size
        free = loaded.staging.setdefault(size, [])
        usage = self._api.BufferUsage.MAP_READ | self._api.BufferUsage.COPY_DST
        staging = free.pop() if free else self._device.create_buffer(size=size, usage=usage)
        encoder.copy_buffer_to_buffer(loaded.buffers[result], 0, staging, 0, size)
        return staging

    async def _wait(self, loaded: NativeLoaded, staging: Any) -> bytes:
        await asyncio.sleep(0)  # mapping blocks the thread: tasks that would interrupt get their turn here
        if not loaded.buffers:
            if staging is not None:
                staging.destroy()
            raise Closed("the model was closed while it worked; load it again")
        if staging is None:
            return b""
        with _device_errors("waiting for a step"):
            staging.map_sync("READ")
            data = bytes(staging.read_mapped())
            staging.unmap()
        loaded.staging[staging.size].append(staging)
        return data

    def unload(self, loaded: NativeLoaded) -> None:
        """See `Device.unload`."""
        for buffer in [*loaded.buffers, *(b for free in loaded.staging.values() for b in free)]:
            if buffer is not None:
                buffer.destroy()
        loaded.buffers, loaded.staging, loaded.plans, loaded.pipelines = [], {}, {}, []
        if loaded in self._loaded:
            self._loaded.remove(loaded)

    def close(self) -> None:
        """Free everything."""
        for loaded in list(self._loaded):
            self.unload(loaded)
        self._device.destroy()


def _encode(encoder: Any, dispatches: Iterable[Encoded], rows: int, length: int) -> None:
    """One compute pass; sizes that are not numbers get their value here.

    Calls the C functions under wgpu-py's methods, which cost several times as much (docs/log.md).
    """
    values = {"rows": rows, "length": length}
    compute = encoder.begin_compute_pass()
    library = sys.modules[type(compute).__module__]
    handle, null = compute._internal, library.ffi.NULL
    set_pipeline = library.lib.wgpuComputePassEncoderSetPipeline
    set_bind_group = library.lib.wgpuComputePassEncoderSetBindGroup
    dispatch_workgroups = library.lib.wgpuComputePassEncoderDispatchWorkgroups
    for _, _, (pipeline, group), grid in dispatches:
        x, y, z = (size if isinstance(size, int) else -(-values[size[0]] // size[1]) for size in grid)
        if x and y and z:
            set_pipeline(handle, pipeline)
            set_bind_group(handle, 0, group, 0, null)
            dispatch_workgroups(handle, x, y, z)
    compute.end()


def _choose(api: ModuleType, wanted: str | None) -> Any:
    """The adapter whose name or backend contains `wanted`; without it a real GPU before a software one."""
    adapters = [a for a in api.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    wanted = wanted or os.environ.get("WEBLLM_ADAPTER")
    fitting = [a for a in adapters if not wanted or wanted.lower() in _title(a).lower()]
    if not fitting:
        there = "; ".join(_title(a) for a in adapters) or "none"
        raise NoAdapter(
            f"wanted a GPU adapter{f' like {wanted!r}' if wanted else ''}, found: {there}. "
            "Install a Vulkan, Metal or D3D12 driver (on Debian without a GPU: mesa-vulkan-drivers)"
        )
    order = {"DiscreteGPU": 0, "IntegratedGPU": 1, "VirtualGPU": 2, "Unknown": 3, "CPU": 4}
    return min(fitting, key=lambda a: order.get(a.info["adapter_type"], 3))


def _title(adapter: Any) -> str:
    return f"{adapter.info['device']} ({adapter.info['backend_type']}, {adapter.info['adapter_type']})"


def _describe(adapter: Any) -> AdapterInfo:
    info = adapter.info
    return AdapterInfo(info["device"], info["backend_type"], info["adapter_type"] == "CPU", info["description"])


def _camel(name: str) -> str:
    return re.sub(r"-(\w)", lambda m: m[1].upper(), name)


def _webgpu_feature(name: str) -> str:
    """The name that WebGPU has for it."""
    return "subgroups" if name == "subgroup" else name


@contextmanager
def _device_errors(doing: str) -> Iterator[None]:
    """Turn wgpu's exceptions into ours, with what was being done."""
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        if kind == "GPUOutOfMemoryError":
            raise OutOfMemory(
                f"out of GPU memory while {doing}; load with a smaller context or a smaller model"
            ) from error
        if kind.startswith("GPU"):
            raise DeviceError(f"{doing}: {error}") from error
        raise


@contextmanager
def _shader_errors(label: str, code: str, device: str) -> Iterator[None]:
    """Turn a compiler's or validator's complaint into one that names the kernel and shows the line."""
    try:
        yield
    except Exception as error:
        if not type(error).__name__.startswith("GPU"):
            raise
        found = re.search(r"wgsl:(\d+):|:(\d+):\d+ error", str(error))
        number = int(found[1] or found[2]) if found else 0
        line = f"\nline {number}: {code.splitlines()[number - 1].strip()}" if number else ""
        raise ShaderError(f"kernel {label!r} does not compile on {device}:{line}\n{error}") from error

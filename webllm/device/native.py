"""Runs programs through wgpu-py. The only importer of `wgpu`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import Any

from webllm.checkpoint import Source
from webllm.device import Progress, Seconds
from webllm.device.adapters import Adapter, choose, describe, found, wanted_name, webgpu_features, webgpu_limits
from webllm.device.faults import device_errors, shader_errors
from webllm.device.fit import check_fit
from webllm.device.native_calls import Calls, Launch, grid_of
from webllm.device.stamps import Stamps
from webllm.errors import Closed, DeviceError, DeviceLost
from webllm.link import ENABLES, link, size_of
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
_WANTED_FEATURES = ("timestamp-query", "shader-f16", "subgroups", "subgroup", "chromium-experimental-subgroup-matrix")
_COMPILERS = 4  # threads
_UNFREED = 64 << 20  # bytes that growing may leave to be freed later


@dataclass
class NativeLoaded:
    """A program on the GPU. seconds: what each part of loading took."""

    program: Program
    buffers: list[Any] = field(default_factory=list)
    pipelines: list[Any] = field(default_factory=list)
    plans: dict[str, list[Launch]] = field(default_factory=dict)
    linked: dict[str, dict[str, Any]] = field(default_factory=dict)  # the plans as data, to bind grown buffers
    staging: list[Any] = field(default_factory=list)  # readback buffers, free and in flight
    free: dict[int, list[Any]] = field(default_factory=dict)  # those that are free, by size
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def gpu_bytes(self) -> int:
        """GPU bytes held, buffers for readback included."""
        return sum(buffer.size for buffer in [*self.buffers, *self.staging] if buffer is not None)


class NativeDevice:
    """A `Device` on wgpu-py, or on anything with its interface (tests use Dawn through `wgpudawn`).

    adapter: part of its name or backend. power_preference: "high-performance" (the default) or "low-power",
    where there are several GPUs. default_limits: ask for nothing beyond what every WebGPU device has.
    """

    def __init__(
        self,
        adapter: str | None = None,
        power_preference: str | None = None,
        *,
        api: ModuleType | None = None,
        default_limits: bool = False,
    ) -> None:
        self._api = api = api or _wgpu()
        chosen = choose(api, wanted_name(adapter), power_preference)
        # Named one by one: wgpu-py asks for all that the adapter has where a limit is not mentioned.
        limits = (
            _DEFAULT_LIMITS if default_limits else {k: chosen.limits[k] for k in _DEFAULT_LIMITS if k in chosen.limits}
        )
        features = [] if default_limits else [f for f in _WANTED_FEATURES if f in chosen.features]
        self._device = chosen.request_device_sync(required_limits=limits, required_features=features)
        self._queue = self._device.queue
        self._calls = Calls(self._device)
        self.info = describe(chosen)
        self.features = webgpu_features(self._device.features)
        self._enables = {f: directive for f, directive in ENABLES.items() if f in self._device.features}
        self.limits: Mapping[str, int] = webgpu_limits(self._device.limits)
        self._loaded: list[NativeLoaded] = []
        self._lost: str | None = None  # what every call says once the GPU is gone

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
            with self._errors(f"loading {len(program.buffers)} buffers"):
                await self._load(loaded, sources, on_progress or (lambda _: None))
        except BaseException:
            self.unload(loaded)
            raise
        return loaded

    async def _load(self, loaded: NativeLoaded, sources: Sequence[Source], on_progress: Progress) -> None:
        program, seconds = loaded.program, loaded.seconds
        with seconds.of("link"):
            linked = link(program, self._enables)
        check_fit(program, linked, self.limits, self.info.name)
        with seconds.of("buffers"):
            for buffer in program.buffers:
                loaded.buffers.append(self._make_buffer(buffer.name, buffer.size))
        with seconds.of("pipelines"):
            self._make_pipelines(loaded, linked.modules, linked.pipelines)
        with seconds.of("weights"):
            await self._stream(loaded, linked.uploads, sources, on_progress)
            for name, data in program.constants.items():
                self.write(loaded, name, data)
            if program.uploads:
                self._finish(loaded)
        with seconds.of("bindings"):
            loaded.linked = linked.plans
            for name, plan in linked.plans.items():
                loaded.plans[name] = [self._bind(loaded, dispatch) for dispatch in plan["dispatches"]]
        for i, buffer in enumerate(program.buffers):
            if buffer.kind == "staging":
                loaded.buffers[i].destroy()
                loaded.buffers[i] = None

    def _make_buffer(self, name: str, size: int) -> Any:
        usage = self._api.BufferUsage
        with self._errors("allocating", {name: size}):
            return self._device.create_buffer(
                size=size, usage=usage.STORAGE | usage.COPY_DST | usage.COPY_SRC, label=name
            )

    def _make_pipelines(self, loaded: NativeLoaded, modules: list[str], pipelines: list[dict[str, Any]]) -> None:
        compiled: dict[int, Any] = {}
        for pipeline in pipelines:
            number, label = pipeline["module"], pipeline["label"]
            if number not in compiled:
                with shader_errors(label, modules[number], self.info.name):
                    compiled[number] = self._calls.compile(modules[number], label)

        def make(pipeline: dict[str, Any]) -> Any:
            with shader_errors(pipeline["label"], modules[pipeline["module"]], self.info.name):
                return self._make_pipeline(pipeline, compiled[pipeline["module"]])

        with ThreadPoolExecutor(_COMPILERS) as threads:
            loaded.pipelines = list(threads.map(make, pipelines))

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

    def _bind(self, loaded: NativeLoaded, dispatch: dict[str, Any]) -> Launch:
        pipeline = loaded.pipelines[dispatch["pipeline"]]
        entries = [{"binding": n, "resource": {"buffer": loaded.buffers[b]}} for n, b in dispatch["buffers"]]
        sizes = {loaded.program.buffers[b].name: loaded.buffers[b].size for _, b in dispatch["buffers"]}
        with self._errors("binding its buffers", sizes, pipeline.label):
            group = self._device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
        sizes_each_way = [size_of(size) for size in dispatch["grid"]]
        same = all(isinstance(size, int) for size in sizes_each_way)
        grid = tuple(sizes_each_way) if same else sizes_each_way
        return Launch(pipeline, group, (pipeline._internal, group._internal), grid, pipeline.label)

    async def _stream(
        self, loaded: NativeLoaded, uploads: list[dict[str, Any]], sources: Sequence[Source], on_progress: Progress
    ) -> None:
        started = time.perf_counter()
        total = sum(u["rows"] * u["rowBytes"] for u in uploads if u["source"] >= 0)
        done = 0
        for number, upload in enumerate(uploads):
            launch = self._bind(loaded, upload["dispatch"])
            for row in range(0, upload["rows"], upload["rowsPerPiece"]):
                rows = min(upload["rowsPerPiece"], upload["rows"] - row)
                done += await self._piece(loaded, upload, launch, sources, row, rows)
                await asyncio.sleep(0)  # a load can be cancelled between two pieces
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
        launch: Launch,
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
        self._calls.encode(encoder, [launch], rows, 0)
        self._calls.submit(encoder)
        return size

    def write(self, loaded: NativeLoaded, name: str, data: bytes, offset: int = 0) -> None:
        """See `Device.write`."""
        buffer = self._range(loaded, name, len(data), offset)
        with self._errors(f"writing to {name}"):
            self._queue.write_buffer(buffer, offset, data)

    def submit(
        self, loaded: NativeLoaded, plans: Sequence[str], rows: int, length: int, steps: int = 1
    ) -> Awaitable[bytes]:
        """See `Device.submit`."""
        self._check(loaded)
        dispatches = [*chain.from_iterable(loaded.plans[plan] for plan in plans)]
        try:
            with self._errors(f"the step {' and '.join(plans)}", {"rows": rows, "length": length}):
                encoder = self._device.create_command_encoder()
                for step in range(steps):
                    self._calls.encode(encoder, dispatches, rows, length + step)
                result = loaded.linked[plans[-1]]["result"]
                staging = None if result is None else self._copy_out(encoder, loaded, result)
                number = self._calls.submit(encoder)
            if staging is not None:
                loaded.free[staging.size].remove(staging)
        except DeviceError as error:
            if named := self._too_large(dispatches, rows, length + steps - 1):
                raise named from error
            raise
        return self._wait(loaded, staging, number)

    async def time(
        self, loaded: NativeLoaded, plans: Sequence[str], rows: int, length: int, *, each: bool = False
    ) -> list[float] | None:
        """See `Device.time`."""
        self._check(loaded)
        if "timestamp-query" not in self.features:
            return None
        dispatches = [*chain.from_iterable(loaded.plans[plan] for plan in plans)]
        passes = [[launch] for launch in dispatches] if each else [dispatches]
        doing, sizes = f"timing {' and '.join(plans)}", {"rows": rows, "length": length, "passes": len(passes)}
        with self._errors(doing, sizes), Stamps(self._api, self._device, len(passes)) as stamps:
            encoder = self._device.create_command_encoder()
            for number, launches in enumerate(passes):
                self._calls.encode(encoder, launches, rows, length, stamps.of_pass(number))
            stamps.resolve(encoder)
            self._calls.submit(encoder)
            return stamps.seconds(self._queue)

    def _too_large(self, dispatches: list[Launch], rows: int, length: int) -> DeviceError | None:
        """The error that names the kernel whose grid is over the limit. Looked for only once a step has failed."""
        most = self.limits["maxComputeWorkgroupsPerDimension"]
        for launch in dispatches:
            grid = grid_of(launch.grid, rows, length)
            if max(grid) > most:
                return DeviceError(
                    f"kernel {launch.label!r} wants a grid of {grid} workgroups for {rows} rows and a length of "
                    f"{length}; {self.info.name} allows {most} each way",
                    kernel=launch.label,
                    sizes={**dict(zip("xyz", grid, strict=True)), "limit": most},
                )
        return None

    async def read(self, loaded: NativeLoaded, name: str, size: int, offset: int = 0) -> bytes:
        """See `Device.read`."""
        buffer = self._range(loaded, name, size, offset)
        with self._errors(f"reading {name}"):
            return bytes(self._queue.read_buffer(buffer, offset, size))

    async def grow(self, loaded: NativeLoaded, sizes: Mapping[str, int]) -> None:
        """See `Device.grow`."""
        unfreed = 0
        for name, size in sizes.items():
            old = self._buffer(loaded, name)
            if size <= old.size:
                continue
            new = self._make_buffer(name, size)
            with self._errors(f"growing {name}", {name: size}):
                encoder = self._device.create_command_encoder()
                encoder.copy_buffer_to_buffer(old, 0, new, 0, old.size)
                self._calls.submit(encoder)
            self._rebind(loaded, loaded.program.index(name), new)
            old.destroy()  # once the steps that use it and the copy are done
            unfreed += old.size
            if unfreed > _UNFREED:
                self._finish(loaded)
                unfreed = 0

    def _rebind(self, loaded: NativeLoaded, number: int, buffer: Any) -> None:
        """Put a buffer in another's place, in every dispatch that binds it."""
        loaded.buffers[number] = buffer
        for name, plan in loaded.linked.items():
            for i, dispatch in enumerate(plan["dispatches"]):
                if any(bound == number for _, bound in dispatch["buffers"]):
                    loaded.plans[name][i] = self._bind(loaded, dispatch)

    def _finish(self, loaded: NativeLoaded) -> None:
        """Wait until the queue is empty, so that what was destroyed is freed. wgpu-py's own way is broken in 0.32."""
        with self._errors("waiting for the queue"):
            self._queue.read_buffer(next(buffer for buffer in loaded.buffers if buffer), 0, 4)

    def _check(self, loaded: NativeLoaded) -> None:
        if self._lost:
            raise DeviceLost(self._lost)
        if not loaded.buffers:
            raise Closed("the model is not on the GPU: it was closed, or a reload failed; reload it or load it again")

    def _buffer(self, loaded: NativeLoaded, name: str) -> Any:
        self._check(loaded)
        return loaded.buffers[loaded.program.index(name)]

    def _range(self, loaded: NativeLoaded, name: str, size: int, offset: int) -> Any:
        """The buffer called `name`, which must have `size` bytes from `offset`."""
        buffer = self._buffer(loaded, name)
        if not 0 <= offset <= offset + size <= buffer.size:
            raise DeviceError(
                f"{name} has {buffer.size:,} bytes, wanted were {size:,} from {offset:,}",
                sizes={name: buffer.size, "wanted": size, "offset": offset},
            )
        return buffer

    def _copy_out(self, encoder: Any, loaded: NativeLoaded, result: int) -> Any:
        """Encode a copy for reading back; returns its buffer, which is among the free ones until that is submitted."""
        size = loaded.program.buffers[result].size
        free = loaded.free.setdefault(size, [])
        if not free:
            usage = self._api.BufferUsage.MAP_READ | self._api.BufferUsage.COPY_DST
            free.append(self._device.create_buffer(size=size, usage=usage))
            loaded.staging.append(free[-1])
        encoder.copy_buffer_to_buffer(loaded.buffers[result], 0, free[-1], 0, size)
        return free[-1]

    async def _wait(self, loaded: NativeLoaded, staging: Any, number: int) -> bytes:
        try:
            await asyncio.sleep(0)  # reading blocks the thread: tasks that would interrupt get their turn here
            self._check(loaded)
            if staging is None:
                return b""
            return self._read_back(loaded, staging, number)
        finally:  # also when nobody waits any longer: what is copied into it next comes later in the queue
            if staging in loaded.staging:
                loaded.free[staging.size].append(staging)

    def _read_back(self, loaded: NativeLoaded, staging: Any, number: int) -> bytes:
        """What a step left in a buffer for reading back, which is given up where that fails: it may still be mapped."""
        try:
            with self._errors("waiting for a step"):
                return self._calls.read(staging, number)
        except BaseException:
            loaded.staging.remove(staging)
            staging.destroy()
            raise

    @contextmanager
    def _errors(self, doing: str, sizes: Mapping[str, int] | None = None, kernel: str | None = None) -> Iterator[None]:
        """Raise wgpu's complaints as ours, and remember a lost device."""
        if self._lost:
            raise DeviceLost(self._lost)
        try:
            with device_errors(doing, sizes, kernel):
                yield
        except DeviceLost as error:
            self._lost = str(error)
            raise

    def unload(self, loaded: NativeLoaded) -> None:
        """See `Device.unload`."""
        for buffer in [*loaded.buffers, *loaded.staging]:
            if buffer is not None:
                buffer.destroy()
        loaded.buffers, loaded.staging, loaded.free = [], [], {}
        loaded.plans, loaded.linked, loaded.pipelines = {}, {}, []
        if loaded in self._loaded:
            self._loaded.remove(loaded)

    def close(self) -> None:
        """Free everything."""
        for loaded in list(self._loaded):
            self.unload(loaded)
        self._device.destroy()


def list_adapters(power_preference: str | None = None) -> list[Adapter]:
    """Every GPU that could be opened, the one taken by itself first."""
    return found(_wgpu(), power_preference)


def _wgpu() -> ModuleType:
    return import_module("wgpu")

"""Speed of a model on a device, beside what its memory allows, from one run.

Uses the device verbs and the engine as any request does, so it runs natively and in the browser.
Weights may be made up on the GPU from a configuration alone: `checkpoint_from_config`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean, median, quantiles
from typing import Any, TypeVar

from webllm import host
from webllm.checkpoint import Checkpoint
from webllm.describe import bytes_read, memory, parts_of
from webllm.device import Device
from webllm.engine import Engine
from webllm.limits import Limits
from webllm.ops import Builder
from webllm.plan import Ceil, Dispatch, Plan, Program
from webllm.program import Settings, build, check_kv, decode_plan, prefill_plan, read_rope_factors, step_bytes
from webllm.selftest import open_tested
from webllm.tune import recall, table_json

T = TypeVar("T")

AHEAD = 4
WARM_UP_S = 0.3  # GPUs idle at low clocks: without this numbers read up to three times too low
COPY_REPEATS = 16
EMPTY_PASSES = 64
GPU_S = 1.0  # for timestamps of one kind: some devices round them, and the mean of many is right again


@dataclass(frozen=True)
class Request:
    """What to measure. kv: cache elements. Counts are tokens."""

    prompt_tokens: Sequence[int] = (128, 1024)
    decode_tokens: int = 128
    at_context: Sequence[int] = (128,)
    repeats: int = 5
    kv: str = "f16"
    context: int = 0  # 0: what the request needs
    exact: bool = False  # no approximate kernels

    def needed(self) -> int:
        """Positions of the cache that all measurements together need."""
        decode = max(self.at_context, default=0) + self.decode_tokens * (self.repeats + 2) + AHEAD
        return max(self.context, decode, *self.prompt_tokens, 1) + 1


@dataclass(frozen=True)
class Step:
    """What is submitted at once. record: what stands in the buffer `step`; rows, length: see `Device.submit`."""

    record: bytes
    plans: Sequence[str]
    rows: int
    length: int


@dataclass
class Clock:
    """Seconds spent in calls and in waiting, and how many of each."""

    encode_s: float = 0.0
    wait_s: float = 0.0
    submits: int = 0
    awaits: int = 0


@dataclass
class TimedDevice:
    """A `Device` that keeps time of `submit` and of waiting for its results, and keeps the steps of a prompt."""

    device: Any
    clock: Clock = field(default_factory=Clock)
    steps: list[Step] = field(default_factory=list)
    _record: bytes = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.device, name)

    def write(self, loaded: Any, name: str, data: bytes, offset: int = 0) -> None:
        """As the device's own."""
        if name == "step":
            self._record = data
        self.device.write(loaded, name, data, offset)

    def submit(self, loaded: Any, plans: Sequence[str], rows: int, length: int, steps: int = 1) -> Awaitable[bytes]:
        """As the device's own."""
        self.steps.append(Step(self._record, plans, rows, length))
        started = time.perf_counter()
        ticket = self.device.submit(loaded, plans, rows, length, steps)
        self.clock.encode_s += time.perf_counter() - started
        self.clock.submits += 1
        return _Timed(ticket, self.clock)


class _Timed:
    def __init__(self, ticket: Awaitable[bytes], clock: Clock) -> None:
        self._ticket, self._clock = ticket, clock

    def __await__(self) -> Generator[Any, None, bytes]:
        started = time.perf_counter()
        result = yield from self._ticket.__await__()
        self._clock.wait_s += time.perf_counter() - started
        self._clock.awaits += 1
        return result


async def run(
    open_device: Callable[[], Awaitable[Device]],
    checkpoint: Checkpoint,
    request: Request,
    *,
    random: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure and return one JSON-able object: see the fields in docs/performance.md.

    random: weights are made on the GPU; otherwise they are read from the checkpoint's sources. note:
    told what is being measured.
    """
    check_kv(request.kv, request.exact)
    device, limits = await open_tested(open_device, exact=request.exact)
    limits = replace(limits, tuned=recall(device.info, limits))
    try:
        return await _measure(device, limits, checkpoint, request, random, note)
    finally:
        device.close()


async def _measure(
    device: Device,
    limits: Limits,
    checkpoint: Checkpoint,
    request: Request,
    random: bool,
    note: Callable[[str], None],
) -> dict[str, Any]:
    note("copy")
    copy, empty = await copy_bandwidth(device), await _empty_pass(device)
    context = request.needed()
    note("weights")
    settings = Settings(context, request.kv)
    factors = await read_rope_factors(checkpoint)
    program = build(checkpoint, settings, limits, rope_factors=factors, random=random)
    timed = TimedDevice(device)
    loaded = await device.load(program, checkpoint.sources)
    vocab = int(checkpoint.config["vocab_size"])
    rows = program.plans["prefill"].rows
    engine = Engine(timed, loaded, context=context, chunk=rows, vocab_size=vocab, ahead=AHEAD)
    results = []
    for tokens in request.prompt_tokens:
        note(f"prefill {tokens}")
        results.append(await _prefill(engine, timed, loaded, tokens, vocab, request.repeats))
    for at in request.at_context:
        note(f"decode at {at}")
        results.append(await _decode(engine, timed, loaded, at, request, copy))
    peak = device.gpu_bytes
    device.unload(loaded)
    return {
        "config": dict(checkpoint.config),
        "kv": request.kv,
        "exact": request.exact,
        "context": context,
        "tuning": table_json(device.info, limits.tuned),
        "results": results,
        "empty_pass_ms": empty,
        "copy_gb_per_s": copy / 1e9,
        "peak_gpu_bytes": peak,
        "memory": memory(program),
        "adapter": device.info.name,
        "driver": device.info.driver,
        "versions": host.current().versions(),
    }


async def copy_bandwidth(device: Device, size: int | None = None) -> float:
    """Bytes a second, read and written together, of the `copy` kernel on two buffers of `size` bytes."""
    if size is None:
        size = 8 << 20 if device.info.software else 128 << 20
    builder = Builder(Limits.of(device.limits))
    x, y = (builder.buffer(name, size, "state") for name in "xy")
    fence = builder.buffer("fence", 4, "state")
    vectors = size // 16
    dispatch = Dispatch("copy", (("x", x), ("y", y)), (-(-vectors // 2048), 1, 1), (("SIZE", vectors),))
    program = Program(tuple(builder.buffers), {"copy": Plan((dispatch,) * COPY_REPEATS, fence)})
    loaded = await device.load(program, [])
    try:
        await _warm_up(lambda: device.submit(loaded, ["copy"], 1, 1))
        times = [await _seconds(device.submit(loaded, ["copy"], 1, 1, steps=4)) for _ in range(5)]
    finally:
        device.unload(loaded)
    return 2 * size * COPY_REPEATS * 4 / min(times)


async def _empty_pass(device: Device) -> float | None:
    """Milliseconds that timestamps tell of a pass with nothing in it."""
    builder = Builder(Limits.of(device.limits))
    x, y = (builder.buffer(name, 16, "state") for name in "xy")
    nothing = Dispatch("copy", (("x", x), ("y", y)), (Ceil("rows", 1), 1, 1), (("SIZE", 1),))
    loaded = await device.load(Program(tuple(builder.buffers), {"nothing": Plan((nothing,) * EMPTY_PASSES)}), [])
    try:
        seconds = await device.time(loaded, ["nothing"], 0, 0, each=True)
    finally:
        device.unload(loaded)
    return fmean(seconds) * 1e3 if seconds else None


async def _prefill(
    engine: Engine, timed: TimedDevice, loaded: Any, tokens: int, vocab: int, repeats: int
) -> dict[str, Any]:
    ids = [i * 7919 % vocab for i in range(tokens)]

    async def once() -> None:
        engine.forget()
        timed.steps.clear()
        async with aclosing(engine.generate(ids, 1)) as stream:
            async for _ in stream:
                pass

    await _warm_up(once)
    timed.clock = clock = Clock()
    runs = [await _seconds(once()) for _ in range(repeats)]
    return {
        "phase": "prefill",
        "tokens": tokens,
        "at_context": 0,
        **_summary(tokens, runs, clock, loaded.program, [prefill_plan(loaded.program, tokens - 1)]),
        **await _gpu_times(timed.device, loaded, timed.steps, repeats),
    }


async def _decode(
    engine: Engine, timed: TimedDevice, loaded: Any, at: int, request: Request, copy: float
) -> dict[str, Any]:
    async def once() -> None:
        engine.assume(at)
        async with aclosing(engine.generate([0] * at + [1], request.decode_tokens)) as stream:
            async for _ in stream:
                pass

    await _warm_up(once)
    timed.clock = clock = Clock()
    runs = [await _seconds(once()) for _ in range(request.repeats)]
    program, middle = loaded.program, at + request.decode_tokens // 2 + 1
    plans = [decode_plan(at + request.decode_tokens), "greedy"]
    result = {
        "phase": "decode",
        "tokens": request.decode_tokens,
        "at_context": at,
        **_summary(request.decode_tokens, runs, clock, program, plans),
        **await _gpu_times(timed.device, loaded, [_decode_step(middle)], request.repeats),
    }
    speed = bytes_read(program, program.plans["decode"]) * result["tokens_per_s_median"]
    return result | {"weight_gb_per_s": speed / 1e9, "fraction_of_copy": speed / copy}


def _decode_step(length: int) -> Step:
    return Step(step_bytes([(0, length - 1)]), [decode_plan(length), "greedy"], 1, length)


async def _gpu_times(device: Device, loaded: Any, steps: Sequence[Step], least: int) -> dict[str, Any]:
    """Milliseconds of these steps on the GPU: the mean of at least so many runs, and their interquartile range.

    By part and by kernel each dispatch is a pass of its own: see `empty_pass_ms` for what that adds.
    """
    names = ("gpu_ms", "gpu_ms_iqr", "gpu_ms_by_part", "gpu_ms_by_kernel")
    if "timestamp-query" not in device.features:
        return dict.fromkeys(names)

    async def whole() -> float:
        return sum([sum(await _time(device, loaded, step)) for step in steps]) * 1e3

    async def apart() -> list[float]:
        return [seconds * 1e3 for step in steps for seconds in await _time(device, loaded, step, each=True)]

    runs = await _for_a_while(whole, least)
    means = [fmean(times) for times in zip(*await _for_a_while(apart, least), strict=True)]
    program = loaded.program
    plans = [program.plans[plan] for step in steps for plan in step.plans]
    by_part = _sums(zip(chain.from_iterable(parts_of(program, plan) for plan in plans), means, strict=True))
    by_kernel = _sums(zip((d.kernel for plan in plans for d in plan.dispatches), means, strict=True))
    return dict(zip(names, (fmean(runs), _iqr(runs), by_part, by_kernel), strict=True))


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in pairs:
        sums[name] = sums.get(name, 0.0) + value
    return sums


async def _time(device: Device, loaded: Any, step: Step, *, each: bool = False) -> list[float]:
    """`Device.time` behind steps that keep a GPU at work meanwhile, so that it neither waits nor slows down."""
    ahead = 0 if device.info.software else AHEAD if step.rows == 1 else 1
    before = []
    for _ in range(ahead):
        device.write(loaded, "step", step.record)
        before.append(device.submit(loaded, step.plans, step.rows, step.length))
    device.write(loaded, "step", step.record)
    seconds = await device.time(loaded, step.plans, step.rows, step.length, each=each)
    for one in before:
        await one
    return seconds or []


def _summary(tokens: int, runs: list[float], clock: Clock, program: Program, plans: Sequence[str]) -> dict[str, Any]:
    """Milliseconds and counts are a token in decode, a prompt in prefill."""
    speeds = [tokens / seconds for seconds in runs]
    steps = len(runs) * (1 if plans[0].startswith("prefill") else tokens)
    return {
        "runs_s": runs,
        "tokens_per_s_median": median(speeds),
        "tokens_per_s_iqr": _iqr(speeds),
        "encode_ms": clock.encode_s * 1e3 / steps,
        "wait_ms": clock.wait_s * 1e3 / steps,
        "dispatches": sum(len(program.plans[plan].dispatches) for plan in plans),
        "submits": clock.submits / steps,
        "awaits": clock.awaits / steps,
    }


def _iqr(values: Sequence[float]) -> float:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (0.0,) * 3
    return high - low


async def _for_a_while(work: Callable[[], Awaitable[T]], least: int) -> list[T]:
    """The results of at least so many runs, and of as many as GPU_S takes."""
    started, results = time.perf_counter(), list[T]()
    while len(results) < least or time.perf_counter() - started < GPU_S:
        results.append(await work())
    return results


async def _seconds(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def _warm_up(work: Callable[[], Awaitable[Any]]) -> None:
    """At least one run, and as many as WARM_UP_S takes."""
    started = time.perf_counter()
    while True:
        await work()
        if time.perf_counter() - started > WARM_UP_S:
            return

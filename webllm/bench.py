"""Speed of a model on a device, beside what its memory allows, from one run.

Uses the device verbs and the engine as any request does, so it runs natively and in the browser.
Weights may be made up on the GPU from a configuration alone: `checkpoint_from_config`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from statistics import median, quantiles
from typing import Any

from webllm.checkpoint import Checkpoint
from webllm.describe import bytes_read
from webllm.device import Device
from webllm.engine import Engine
from webllm.limits import Limits
from webllm.ops import Builder
from webllm.plan import Dispatch, Plan, Program
from webllm.program import Settings, build, check_kv, decode_plan, read_rope_factors, step_bytes
from webllm.selftest import open_tested
from webllm.tune import recall

AHEAD = 4
WARM_UP_S = 0.3  # GPUs idle at low clocks: without this numbers read up to three times too low
COPY_REPEATS = 16
PART = "part "
PART_REPEATS = 50


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


@dataclass
class Clock:
    """Seconds spent in calls and in waiting, and how many of each."""

    encode_s: float = 0.0
    wait_s: float = 0.0
    submits: int = 0
    awaits: int = 0


@dataclass
class TimedDevice:
    """A `Device` that keeps time of `submit` and of waiting for its results."""

    device: Any
    clock: Clock = field(default_factory=Clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.device, name)

    def submit(self, loaded: Any, plans: Sequence[str], rows: int, length: int, steps: int = 1) -> Awaitable[bytes]:
        """As the device's own."""
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
    copy = await copy_bandwidth(device)
    context = request.needed()
    note("weights")
    settings = Settings(context, request.kv)
    factors = await read_rope_factors(checkpoint)
    program = _with_parts(build(checkpoint, settings, limits, rope_factors=factors, random=random))
    timed = TimedDevice(device)
    loaded = await device.load(program, checkpoint.sources)
    vocab = int(checkpoint.config["vocab_size"])
    rows = program.plans["prefill"].rows
    engine = Engine(timed, loaded, context=context, chunk=rows, vocab_size=vocab, ahead=AHEAD)
    results = []
    for tokens in request.prompt_tokens:
        note(f"prefill {tokens}")
        results.append(await _prefill(engine, timed, program, tokens, vocab, request.repeats))
    for at in request.at_context:
        note(f"decode at {at}")
        results.append(await _decode(engine, timed, program, at, request, copy))
    note("parts")
    parts = await _part_times(device, loaded, min(request.at_context, default=1) + 1)
    peak = device.gpu_bytes
    device.unload(loaded)
    return {
        "config": dict(checkpoint.config),
        "context": context,
        "results": results,
        "decode_ms_by_kernel": parts,
        "copy_gb_per_s": copy / 1e9,
        "peak_gpu_bytes": peak,
        "memory": program.bytes_by_kind(),
        "adapter": device.info.name,
        "driver": device.info.driver,
        "versions": {"python": platform.python_version(), "platform": platform.platform()},
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


async def _prefill(
    engine: Engine, timed: TimedDevice, program: Program, tokens: int, vocab: int, repeats: int
) -> dict[str, Any]:
    ids = [i * 7919 % vocab for i in range(tokens)]

    async def once() -> None:
        engine.forget()
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
        **_summary(tokens, runs, clock, program, ["prefill"]),
    }


async def _decode(
    engine: Engine, timed: TimedDevice, program: Program, at: int, request: Request, copy: float
) -> dict[str, Any]:
    async def once() -> None:
        engine.assume(at)
        async with aclosing(engine.generate([0] * at + [1], request.decode_tokens)) as stream:
            async for _ in stream:
                pass

    await _warm_up(once)
    timed.clock = clock = Clock()
    runs = [await _seconds(once()) for _ in range(request.repeats)]
    result = {
        "phase": "decode",
        "tokens": request.decode_tokens,
        "at_context": at,
        **_summary(request.decode_tokens, runs, clock, program, [decode_plan(at + request.decode_tokens), "greedy"]),
    }
    speed = bytes_read(program, program.plans["decode"]) * result["tokens_per_s_median"]
    return result | {"weight_gb_per_s": speed / 1e9, "fraction_of_copy": speed / copy}


def _with_parts(program: Program) -> Program:
    """Adds a plan for each kernel of decode that runs its dispatches alone, many times over."""
    greedy = program.plans["greedy"]
    step = program.plans["decode"].dispatches + greedy.dispatches
    parts = {
        f"{PART}{kernel}": Plan(tuple(d for d in step if d.kernel == kernel) * PART_REPEATS, greedy.result)
        for kernel in {d.kernel for d in step} - {"next_token"}
    }
    return replace(program, plans={**program.plans, **parts})


async def _part_times(device: Device, loaded: Any, length: int) -> dict[str, float]:
    """Milliseconds a token of each kernel, run alone; the gaps between different kernels are not in it."""
    device.write(loaded, "step", step_bytes([(0, length - 1)]))  # kernels go by the position that stands there
    times = {}
    for name in loaded.program.plans:
        if name.startswith(PART):

            def work(plan: str = name) -> Awaitable[Any]:
                return device.submit(loaded, [plan], 1, length)

            await _warm_up(work)
            fastest = min([await _seconds(work()) for _ in range(5)])
            times[name.removeprefix(PART)] = fastest * 1e3 / PART_REPEATS
    return times


def _summary(tokens: int, runs: list[float], clock: Clock, program: Program, plans: Sequence[str]) -> dict[str, Any]:
    """Milliseconds and counts are a token in decode, a prompt in prefill."""
    speeds = [tokens / seconds for seconds in runs]
    low, _, high = quantiles(speeds, n=4) if len(speeds) > 1 else (speeds[0],) * 3
    steps = len(runs) * (1 if "prefill" in plans else tokens)
    return {
        "runs_s": runs,
        "tokens_per_s_median": median(speeds),
        "tokens_per_s_iqr": high - low,
        "gpu_ms": None,
        "encode_ms": clock.encode_s * 1e3 / steps,
        "wait_ms": clock.wait_s * 1e3 / steps,
        "dispatches": sum(len(program.plans[plan].dispatches) for plan in plans),
        "submits": clock.submits / steps,
        "awaits": clock.awaits / steps,
    }


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

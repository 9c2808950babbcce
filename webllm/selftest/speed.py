"""How fast each kernel moves its bytes, on the sizes of a real layer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from webllm.device import Device
from webllm.kernels import Edits
from webllm.limits import Limits
from webllm.plan import Buffer, Dispatch, Plan, Program
from webllm.program import Settings, build
from webllm.selftest.run import Key, key_of
from webllm.synthetic import QUANTS, checkpoint_from_config

LAYER = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL_LAYER = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2}
# What reads a few rows of a large buffer moves fewer bytes than it binds.
SPARSE = ("embed", "gather", "next_token", "rope_cache", "sample")
ENOUGH_S = 0.03  # of one batch: GPUs idle at low clocks, and reading the fence back takes time too
MOST_STEPS = 1 << 14


async def speeds(device: Device) -> dict[Key, float]:
    """Kernel and variants -> GB/s: all that the kernel binds, over the time of a dispatch.

    Dispatches are repeated back to back, so a small one shows the cost of its launch rather than of its bytes.
    """
    found: dict[Key, float] = {}
    for program in _programs(device):
        unknown = {key: one for key, one in _largest(program).items() if key not in found}
        found |= await _measure(device, program, unknown)
    return found


async def speed_of(device: Device, key: Key, edits: Edits = ()) -> float | None:
    """The same of one kernel, which may be edited; None for one that no layer has, or that reads a few rows only."""
    for program in _programs(device):
        if one := _largest(program).get(key):
            return (await _measure(device, replace(program, edits=edits), {key: one}))[key]
    return None


def _programs(device: Device) -> Iterator[Program]:
    """Layers of every quantisation, without optional features and with all that the device has."""
    least = Limits.of(device.limits, software=device.info.software)
    full = Limits.of(device.limits, device.features)
    common = replace(least, subgroups=full.subgroups, f16=full.f16, int8=full.int8)
    for limits in (least, common, replace(common, matrix=full.matrix)):
        for quant in QUANTS:
            yield _program(device, limits, quant)


def _program(device: Device, limits: Limits, quant: str) -> Program:
    """Two layers, of which prefill runs the first as a whole, with weights made up on the GPU."""
    software = device.info.software
    context, chunk = (256, 64) if software else (4096, 1024)
    config = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 32000, "max_position_embeddings": context}
    checkpoint = checkpoint_from_config(config | (SMALL_LAYER if software else LAYER), quant)
    return build(checkpoint, Settings(context, chunk=chunk), limits, random=True)


def _largest(program: Program) -> dict[Key, tuple[Dispatch, int]]:
    """For each kernel and choice of variants the dispatch that binds most, and the rows of its plan."""
    found: dict[Key, tuple[Dispatch, int]] = {}
    for plan in program.plans.values():
        for dispatch in plan.dispatches:
            key = key_of(dispatch)
            if key not in found or _bound(program, dispatch) > _bound(program, found[key][0]):
                found[key] = dispatch, plan.rows
    return {key: one for key, one in found.items() if key[0] not in SPARSE}


def _bound(program: Program, dispatch: Dispatch) -> int:
    return sum(program.buffers[number].size for _, number in dispatch.buffers)


async def _measure(
    device: Device, program: Program, dispatches: Mapping[Key, tuple[Dispatch, int]]
) -> dict[Key, float]:
    fence = Buffer("fence", 4, "state")
    plans = {str(key): Plan((one,), len(program.buffers), rows) for key, (one, rows) in dispatches.items()}
    loaded = await device.load(replace(program, buffers=(*program.buffers, fence), plans=plans), [])
    try:
        times = {key: await _seconds(device, loaded, str(key), rows) for key, (_, rows) in dispatches.items()}
    finally:
        device.unload(loaded)
    return {key: _bound(program, dispatches[key][0]) / seconds / 1e9 for key, seconds in times.items()}


async def _seconds(device: Device, loaded: Any, plan: str, rows: int) -> float:
    """Of one dispatch, in the fastest of three batches, after a warm-up."""
    length = 256 if device.info.software else 4096
    steps, taken = 1, 0.0
    while taken < ENOUGH_S and steps < MOST_STEPS:  # more steps until there is something to measure, and clocks are up
        started = time.perf_counter()
        await device.submit(loaded, [plan], rows, length, steps)
        taken = time.perf_counter() - started
        steps *= 2 if taken < ENOUGH_S else 1
    times = []
    for _ in range(3):
        started = time.perf_counter()
        await device.submit(loaded, [plan], rows, length, steps)
        times.append((time.perf_counter() - started) / steps)
    return min(times)

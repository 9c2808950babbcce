"""A small autotuner: which of a few shapes of a matvec's workgroups is fastest on this GPU, for this model's matrices.

Decode is mostly matvecs, and how many rows and threads a workgroup should have depends on the GPU. What was measured is
a table that `Limits` looks at first. It is kept per adapter, driver and version of webllm, as a small JSON object that
may be passed on; whatever a table says, results are right: only shapes that the kernels take are read from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import warnings
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webllm import __version__, host
from webllm.checkpoint import Checkpoint
from webllm.device import AdapterInfo, Device
from webllm.errors import RequestError, TuningWarning
from webllm.limits import Limits, MatvecKey, Shape
from webllm.ops import SHORT, TILE, least_rows
from webllm.plan import Dispatch, Plan, Program
from webllm.program import Settings, build, step_bytes

ENOUGH_BYTES = 256 << 20  # of weights: more than caches hold, so that they come from memory as in a real step
MOST_S = 0.5  # of measuring; matrices that did not get their turn keep the default
WARM_UP_S = 0.03
PLUG_S = 0.0015  # longer than it takes to encode a step: the GPU is busy until all of it is there
ROUNDS = 5
GAIN = 0.02  # of a step's time; less is noise
MOST_ROWS = 1000  # of a table
LENGTH = 512  # positions that attention, whose results o_proj merges, is taken to have seen, if the context has them

_DECODE = {"decode", "decode_long"}
_ROW = {"kernel": str, "rows": int, "cols": int, "shape": list}


@dataclass(frozen=True)
class Measured:
    """Seconds of all matvecs of a step, by the shape of those of one key. The default is first."""

    key: MatvecKey
    seconds: Mapping[Shape, float]

    @property
    def best(self) -> Shape:
        """The fastest shape; the default unless another is clearly faster."""
        default = next(iter(self.seconds))
        fastest = min(self.seconds, key=self.seconds.__getitem__)
        return fastest if self.seconds[fastest] < (1 - GAIN) * self.seconds[default] else default


async def tuned(
    device: Device, limits: Limits, checkpoint: Checkpoint, settings: Settings, wanted: bool | Mapping[str, Any] | None
) -> Limits:
    """The limits with what is known of this device.

    wanted: None: what was measured earlier and kept. True: that, after measuring what is missing of this model.
    False: nothing. A mapping: that table, as `table_json` gives it.
    """
    if wanted is False:
        return limits
    if isinstance(wanted, Mapping):
        return replace(limits, tuned=read_table(wanted, device.info, limits))
    table = recall(device.info, limits)
    if wanted is None:
        return replace(limits, tuned=table)
    measured = await measure(device, limits, checkpoint, settings, table)
    if measured:
        table |= {one.key: one.best for one in measured}
        keep(device.info, table)
    return replace(limits, tuned=table)


def recall(info: AdapterInfo, limits: Limits) -> dict[MatvecKey, Shape]:
    """The table that was kept for this adapter; an empty one, and a `TuningWarning`, where it is not to be used."""
    name = file_name(info)
    try:
        text = host.current().recall(name)
        return {} if text is None else read_table(json.loads(text), info, limits)
    except (OSError, ValueError, RecursionError) as error:  # RequestError is a ValueError
        warnings.warn(f"{name} in the cache folder is left aside: {error}", TuningWarning, stacklevel=2)
        return {}


def keep(info: AdapterInfo, table: Mapping[MatvecKey, Shape]) -> None:
    """Keep a table for later loads; a `TuningWarning` where that is not possible."""
    try:
        host.current().remember(file_name(info), json.dumps(table_json(info, table), indent=1))
    except OSError as error:
        warnings.warn(f"{file_name(info)} cannot be kept in the cache folder: {error}", TuningWarning, stacklevel=2)


def file_name(info: AdapterInfo) -> str:
    """What a table is kept under."""
    readable = re.sub(r"[^a-z0-9]+", "-", info.name.lower()).strip("-")[:40]
    return f"tuning-{readable}-{hashlib.sha256(repr(_where(info)).encode()).hexdigest()[:12]}.json"


def table_json(info: AdapterInfo, table: Mapping[MatvecKey, Shape]) -> dict[str, Any]:
    """A table as a JSON object: where it holds, and a row for each matrix, oldest first; of `MOST_ROWS` the newest."""
    rows = [
        {"kernel": kernel, "rows": rows, "cols": cols, "shape": [*shape]}
        for (kernel, rows, cols), shape in [*table.items()][-MOST_ROWS:]
    ]
    return {**_where(info), "matvec": rows}


def read_table(data: Any, info: AdapterInfo, limits: Limits) -> dict[MatvecKey, Shape]:
    """A table from JSON, which anybody may have written. Raises `RequestError` unless it is one for this device."""
    where = _where(info)
    if not isinstance(data, Mapping) or data.keys() != {*where, "matvec"}:
        raise RequestError(f"a tuning is an object with {', '.join(where)} and matvec; tune anew with tune=True")
    if other := [name for name, value in where.items() if data[name] != value]:
        name = other[0]
        raise RequestError(
            f"this tuning is for {name} {str(data[name])[:80]!r}, here it is {where[name]!r}; tune anew with tune=True"
        )
    rows = data["matvec"]
    if not isinstance(rows, Sequence) or isinstance(rows, str) or len(rows) > MOST_ROWS:
        raise RequestError(f"a tuning's matvec is a list of at most {MOST_ROWS} objects; tune anew with tune=True")
    return dict(_read_row(row, limits) for row in rows)


def _read_row(row: Any, limits: Limits) -> tuple[MatvecKey, Shape]:
    if not isinstance(row, Mapping) or row.keys() != _ROW.keys() or any(type(row[k]) is not t for k, t in _ROW.items()):
        raise RequestError(f"a row of a tuning has kernel, rows, cols and shape, got {str(row)[:80]}")
    shape = row["shape"]
    if len(shape) != 2 or any(type(n) is not int for n in shape) or not limits.takes_matvec(*shape):
        raise RequestError(f"a tuning's shape {str(shape)[:80]} is none that this GPU and these kernels take")
    return (row["kernel"], row["rows"], row["cols"]), (shape[0], shape[1])


def _where(info: AdapterInfo) -> dict[str, str]:
    return {"webllm": __version__, "adapter": info.name, "backend": info.backend, "driver": info.driver}


async def measure(
    device: Device, limits: Limits, checkpoint: Checkpoint, settings: Settings, known: Container[MatvecKey] = ()
) -> list[Measured]:
    """Time the shapes for each of the model's matrices that is not known, largest first, until `MOST_S` is over.

    Timed are all matvecs of a decode step, in order, so that each reads its weights from memory. Weights are made up.
    """
    programs = _programs(limits, checkpoint, settings)
    bytes_of = {key: size for key, size in _weights(programs[0]).items() if key not in known}
    if not bytes_of:
        return []
    shapes = {key: _tried(key, programs) for key in sorted(bytes_of, key=bytes_of.__getitem__, reverse=True)}
    plans = {
        _name(key, shape): _matvecs(programs[0], key, programs[number])
        for key, tried in shapes.items()
        for shape, number in tried.items()
    }
    result = programs[0].plans["greedy"].result
    timed = {name: Plan(tuple(dispatches), result) for name, dispatches in plans.items()}
    timed["plug"] = Plan(_largest(programs[0], next(iter(shapes))), result)
    loaded = await device.load(replace(programs[0], plans=timed), [])
    try:
        length = min(LENGTH, settings.context)
        device.write(loaded, "step", step_bytes([(0, length - 1)]))
        return await _measure(await _Clock.started(device, loaded, length), shapes)
    finally:
        device.unload(loaded)


async def _measure(clock: _Clock, shapes: Mapping[MatvecKey, Iterable[Shape]]) -> list[Measured]:
    started, alone = time.perf_counter(), math.inf
    found: list[Measured] = []
    for key, tried in shapes.items():
        best = dict.fromkeys(tried, math.inf)
        for number in range(ROUNDS):  # shape after shape, so that a change of clocks meets all
            if number and time.perf_counter() - started > MOST_S:
                break
            alone = min(alone, await clock.seconds())
            best = {shape: min(known, await clock.seconds(_name(key, shape))) for shape, known in best.items()}
        found.append(Measured(key, {shape: max(0.0, taken - alone) for shape, taken in best.items()}))
        if time.perf_counter() - started > MOST_S:
            break
    return found


@dataclass(frozen=True)
class _Clock:
    """Times plans on the GPU. There they wait behind the plug, a large matvec `times` over, while the host encodes."""

    device: Device
    loaded: Any
    length: int
    times: int = 1

    @classmethod
    async def started(cls, device: Device, loaded: Any, length: int) -> _Clock:
        """A clock on a GPU that is at work: it idles at low clocks."""
        clock, started = cls(device, loaded, length), time.perf_counter()
        while time.perf_counter() - started < WARM_UP_S or await clock.seconds() < PLUG_S:
            if await clock.seconds() < PLUG_S:
                clock = replace(clock, times=2 * clock.times)
        return clock

    async def seconds(self, *plans: str) -> float:
        """From the plug's start to the end of the plans behind it."""
        started = time.perf_counter()
        steps = [self.device.submit(self.loaded, ["plug"], 1, self.length, self.times)]
        steps += [self.device.submit(self.loaded, [plan], 1, self.length) for plan in plans]
        for step in steps:
            await step
        return time.perf_counter() - started


def _programs(limits: Limits, checkpoint: Checkpoint, settings: Settings) -> list[Program]:
    """The model with the default shape of every matrix, then with the first other shape of each, and so on."""
    limits = replace(limits, tuned={})
    default = _program(limits, checkpoint, settings)
    least = {_key(dispatch): least_rows(dict(dispatch.variants)) for dispatch in _decode_matvecs(default)}
    around = {key: limits.shapes_around(*shape, least[key]) for key, shape in shapes_of(default).items()}
    tables = [
        {key: shapes[n] for key, shapes in around.items() if n < len(shapes)}
        for n in range(max(map(len, around.values())))
    ]
    return [default, *(_program(replace(limits, tuned=table), checkpoint, settings) for table in tables)]


def _tried(key: MatvecKey, programs: Sequence[Program]) -> dict[Shape, int]:
    """Every shape that a key has in one of the programs, the default first, with that program's number."""
    shapes = [shapes_of(program)[key] for program in programs]
    return {shape: shapes.index(shape) for shape in shapes}


def _program(limits: Limits, checkpoint: Checkpoint, settings: Settings) -> Program:
    """As many of the model's layers as have `ENOUGH_BYTES`, with random weights."""
    layers = int(checkpoint.config["num_hidden_layers"])
    inside = sum(tensor.nbytes for name, tensor in checkpoint.tensors.items() if name.startswith("model.layers."))
    few = min(layers, math.ceil(ENOUGH_BYTES * layers / max(1, inside)))
    cut = replace(checkpoint, config={**checkpoint.config, "num_hidden_layers": few})
    short = replace(settings, context=min(settings.context, SHORT + 1), chunk=TILE)
    return build(cut, short, limits, random=True)


def shapes_of(program: Program) -> dict[MatvecKey, Shape]:
    """What a program's matvecs have, tuned or not."""
    found: dict[MatvecKey, Shape] = {}
    for dispatch in _decode_matvecs(program):
        constants = dict(dispatch.constants)
        found[_key(dispatch)] = int(constants["PER"]), int(constants["WG"])
    return found


def _decode_matvecs(program: Program) -> Iterator[Dispatch]:
    for name in _DECODE & program.plans.keys():
        yield from filter(_is_matvec, program.plans[name].dispatches)


def _weights(program: Program) -> dict[MatvecKey, int]:
    """Bytes of weights that all matvecs of a key read, in whichever plan has most."""
    weights = [buffer.size if buffer.kind == "weight" else 0 for buffer in program.buffers]
    found: dict[MatvecKey, int] = {}
    for name in _DECODE & program.plans.keys():
        total: Counter[MatvecKey] = Counter()
        for dispatch in filter(_is_matvec, program.plans[name].dispatches):
            total[_key(dispatch)] += sum(weights[buffer] for _, buffer in dispatch.buffers)
        found |= {key: max(size, found.get(key, 0)) for key, size in total.items()}
    return found


def _matvecs(program: Program, key: MatvecKey, other: Program) -> tuple[Dispatch, ...]:
    """All matvecs of the plan that has one of this key, those of the key as the other program has them."""
    name = next(name for name in sorted(_DECODE & program.plans.keys()) if key in _keys(program.plans[name]))
    pairs = zip(program.plans[name].dispatches, other.plans[name].dispatches, strict=True)
    return tuple(new if _key(old) == key else old for old, new in pairs if _is_matvec(old))


def _largest(program: Program, key: MatvecKey) -> tuple[Dispatch, ...]:
    return tuple(d for d in _matvecs(program, key, program) if _key(d) == key)[-1:]


def _keys(plan: Plan) -> set[MatvecKey]:
    return {_key(dispatch) for dispatch in plan.dispatches if _is_matvec(dispatch)}


def _is_matvec(dispatch: Dispatch) -> bool:
    return dispatch.kernel in ("matvec", "matvec_glu")


def _key(dispatch: Dispatch) -> MatvecKey:
    constants = dict(dispatch.constants)
    return dispatch.label, int(constants.get("ROWS", 0)), int(constants.get("COLS", 0))


def _name(key: MatvecKey, shape: Shape) -> str:
    return f"{key}: {shape}"

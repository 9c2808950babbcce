"""What the self-test runs: small inputs of odd sizes, and what must come out, in plain Python and float64.

No numpy, so that it runs in the page too.
"""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import mul
from typing import Any

from webllm import ops
from webllm.checkpoint.blocks import BLOCKS, values
from webllm.lab import Lab, Record
from webllm.ops import PAGE, RING, TILE, Heads, Matrix, Norm
from webllm.sampling import Sampling
from webllm.selftest import cache
from webllm.weights import IMPORTS

Rows = list[list[float]]
# Buffer, array's letter for its numbers, and what they should be, which is slow to find.
Check = tuple[int, str, Callable[[], Iterable[float]]]

HEADS = Heads(3, 1, 24)
CONTEXT = 160  # more than one split, and a page more than a whole number of them
PAGES = (3, 0, 4, 1, 2)
EPS = 1e-5
PARTS = {"tiles": 64}  # a GPU for so many: products are cut into parts
NO_ROOM = {"workgroup_storage": 256}  # for a row
SMALL = {"small": True}


@dataclass(frozen=True)
class Case:
    """Ops with inputs, and what must come out. rows, short: as in `Lab`. limits: in place of the device's own."""

    name: str
    record: Callable[[Lab, random.Random], list[Check]]
    rows: int = 1
    short: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)


def all_cases() -> Iterator[Case]:
    """Together they dispatch every kernel with every choice of every slot."""
    yield from (Case(f"embed {dtype}", _embed(dtype), rows=4) for dtype in IMPORTS)
    yield from (Case(f"vector {dtype}", _vector(dtype)) for dtype in ("F32", "F16", "BF16"))
    yield RMS_NORM
    for dtype in IMPORTS:
        yield Case(f"matvec {dtype}", _linear(dtype))
        yield Case(f"gate and up {dtype}", _glu(dtype))
        yield Case(f"matmul {dtype}", _linear(dtype), rows=70)
        yield Case(f"matmul of few {dtype}", _linear(dtype), rows=5)
        yield Case(f"small matmul {dtype}", _linear(dtype), rows=13, limits=SMALL)
    yield Case("matvec of a norm", _linear("F32", norm=True))
    yield Case("matmul with a bias", _linear("F32", bias=True), rows=70)
    yield Case("small matmul with a bias", _linear("F32", bias=True), rows=13, limits=SMALL)
    yield Case("matmul in parts", _linear("Q4_K"), rows=70, limits=PARTS)
    yield Case("matmul in parts with a bias", _linear("Q4_K", bias=True), rows=70, limits=PARTS)
    yield Case("matmul of few with a bias", _linear("Q4_0", bias=True), rows=5)
    yield Case("matvec with a bias", _linear("F32", bias=True))
    yield Case("gate and up in prefill", _glu("F32"), rows=5)
    for dtype in ("F32", "Q4_0"):
        yield Case(f"gate and up of a wide row {dtype}", _glu(dtype), limits=NO_ROOM)
    yield from FEED_FORWARD.values()
    yield Case("matvec of a wide row", _linear("Q4_0"), limits=NO_ROOM)
    yield Case("matvec of the norm of a wide row", _linear("Q4_0", norm=True), limits=NO_ROOM)
    for kind in ("f16", "f32", "int8"):
        yield Case(f"attention {kind}", _attention(kind, first=140))
        yield Case(f"attention {kind} of two blocks", _attention(kind, first=140), limits={"workgroups": 1})
        yield Case(f"short attention {kind}", _attention(kind, first=140), short=True)
        yield Case(f"attention in prefill {kind}", _attention(kind, first=60), rows=33)
    yield Case("next token", _next_token)
    yield Case("sampling", _sample)
    yield Case("copy", _copy)
    yield Case("fill", _fill)


# Inputs

# Where the halves of a block lie; its other bytes may be anything.
_HALVES = {
    **{"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,)},
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)},
}


def _numbers(rng: random.Random, count: int) -> list[float]:
    """So many numbers that f32 holds exactly."""
    return list(array("f", (rng.gauss(0, 1) for _ in range(count))))


def _grid(rng: random.Random, rows: int, cols: int) -> Rows:
    return [_numbers(rng, cols) for _ in range(rows)]


def _flat(rows: Iterable[Iterable[float]]) -> list[float]:
    return list(chain.from_iterable(rows))


def _bytes(numbers: Iterable[float], kind: str = "f32") -> bytes:
    numbers = list(numbers)
    return array("f", numbers).tobytes() if kind == "f32" else struct.pack(f"<{len(numbers)}e", *numbers)


def _stored(rng: random.Random, dtype: str, rows: int, cols: int) -> tuple[bytes, Rows]:
    """Random values as a file of this type has them, and what they are."""
    if dtype in _HALVES:
        size = BLOCKS[dtype][0]
        blocks = bytearray(rng.randbytes(rows * cols // IMPORTS[dtype].block * size))
        for half in (block + at for block in range(0, len(blocks), size) for at in _HALVES[dtype]):
            struct.pack_into("<e", blocks, half, _scale(rng, dtype))
        data = bytes(blocks)
    elif dtype == "BF16":
        data = b"".join(_bytes([number])[2:] for number in _numbers(rng, rows * cols))
    else:
        data = _bytes(_numbers(rng, rows * cols), dtype.lower())
    numbers = values(data, dtype)
    return data, [numbers[at : at + cols] for at in range(0, len(numbers), cols)]


def _scale(rng: random.Random, dtype: str) -> float:
    """A block's. A power of two where it has scales of its own: f16 then holds their products, whatever it rounds."""
    return rng.choice((2**-13, 2**-12)) if IMPORTS[dtype].block == 256 else rng.uniform(0.01, 0.02)


def _weight(lab: Lab, rng: random.Random, dtype: str, rows: int) -> tuple[Matrix, Rows]:
    data, exact = _stored(rng, dtype, rows, _cols(dtype))
    return lab.matrix("w", data, dtype, rows, _cols(dtype)), exact


def _cols(dtype: str) -> int:
    """Two blocks where a block is 256 columns, three units of 32, or no whole number of units."""
    return {1: 76, 32: 96}.get(IMPORTS[dtype].block, 512)


# References


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return math.fsum(map(mul, a, b))


def _product(x: Rows, w: Rows) -> Rows:
    """x @ w.T"""
    return [[_dot(a, b) for b in w] for a in x]


def _normalised(x: Rows, weight: Sequence[float]) -> Rows:
    scales = [(_dot(row, row) / len(row) + EPS) ** -0.5 for row in x]
    scaled = ([value * scale for value in row] for row, scale in zip(x, scales, strict=True))
    return [list(map(mul, row, weight)) for row in scaled]


def _silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def _gated(x: Rows, gate: Rows, up: Rows) -> Rows:
    pairs = zip(_product(x, gate), _product(x, up), strict=True)
    return [[_silu(g) * u for g, u in zip(*rows, strict=True)] for rows in pairs]


def _rotated(head: Sequence[float], position: int, frequencies: Sequence[float]) -> list[float]:
    """Rotate-half rope."""
    half = len(head) // 2
    turns = [(math.cos(position * f), math.sin(position * f)) for f in frequencies]
    low = [a * c - b * s for a, b, (c, s) in zip(head[:half], head[half:], turns, strict=True)]
    return low + [b * c + a * s for a, b, (c, s) in zip(head[:half], head[half:], turns, strict=True)]


def _attended(q: Sequence[float], keys: Rows, vals: Rows) -> list[float]:
    """softmax(q . K / sqrt(dim)) V"""
    scores = [_dot(q, k) * len(q) ** -0.5 for k in keys]
    shares = [math.exp(score - max(scores)) for score in scores]
    return [_dot(shares, column) / sum(shares) for column in zip(*vals, strict=True)]


# Cases


def _embed(dtype: str) -> Callable[[Lab, random.Random], list[Check]]:
    def record(lab: Lab, rng: random.Random) -> list[Check]:
        tokens = [0, 36, 5, 17]
        table, exact = _weight(lab, rng, dtype, 37)
        y = ops.embed(lab.rec, table, lab.step([(token, i) for i, token in enumerate(tokens)]))
        return [(y.buffer, "f", lambda: _flat(exact[token] for token in tokens))]

    return record


def _vector(dtype: str) -> Callable[[Lab, random.Random], list[Check]]:
    def record(lab: Lab, rng: random.Random) -> list[Check]:
        data, (exact,) = _stored(rng, dtype, 1, 67)
        lab.add("v", data, dtype, 67)
        return [(lab.weights.vector("v", size=67).buffer, "f", lambda: exact)]

    return record


def _rms_norm(lab: Lab, rng: random.Random) -> list[Check]:
    x, weight = _grid(rng, lab.rows, 172), _numbers(rng, 172)
    norm = Norm(lab.vector("norm", _bytes(weight)), EPS)
    y = ops.rms_norm(lab.tensor("x", _bytes(_flat(x)), lab.rows, 172), norm)
    return [(y.buffer, "f", lambda: _flat(_normalised(x, weight)))]


def _linear(dtype: str, *, norm: bool = False, bias: bool = False) -> Callable[[Lab, random.Random], list[Check]]:
    def record(lab: Lab, rng: random.Random) -> list[Check]:
        cols = _cols(dtype)
        x, (w, exact) = _grid(rng, lab.rows, cols), _weight(lab, rng, dtype, 40)
        weight, added = _numbers(rng, cols), _numbers(rng, 40)
        y = ops.linear(
            _input(lab, "x", x),
            w,
            norm=Norm(lab.vector("norm", _bytes(weight)), EPS) if norm else None,
            bias=lab.vector("bias", _bytes(added)) if bias else None,
        )

        def wanted() -> list[float]:
            product = _product(_normalised(x, weight) if norm else x, exact)
            return _flat(map(sum, zip(row, added, strict=True)) if bias else row for row in product)

        return [(y.buffer, "f", wanted)]

    return record


def _input(lab: Lab, name: str, x: Rows) -> ops.Tensor:
    """Rows up to whole tiles, which prefill kernels read."""
    width, padded = len(x[0]), -(-len(x) // TILE) * TILE
    return lab.tensor(name, _bytes(_flat(x)) + bytes(4 * width * (padded - len(x))), len(x), width)


def _glu(dtype: str) -> Callable[[Lab, random.Random], list[Check]]:
    def record(lab: Lab, rng: random.Random) -> list[Check]:
        cols, width = _cols(dtype), 40
        x, weight = _grid(rng, lab.rows, cols), _numbers(rng, cols)
        exact = {}
        for name in ("gate", "up"):
            data, exact[name] = _stored(rng, dtype, width, cols)
            lab.add(name, data, dtype, width, cols)
        w = lab.weights.glu("gate", "up", (width, cols))
        y = ops.glu(_input(lab, "x", x), w, Norm(lab.vector("norm", _bytes(weight)), EPS))
        assert isinstance(y, ops.Tensor)
        return [(y.buffer, "f", lambda: _flat(_gated(_normalised(x, weight), exact["gate"], exact["up"])))]

    return record


def _feed_forward(lab: Lab, rng: random.Random) -> list[Check]:
    """Gate, up and down, of integers."""
    cols, width = 96, 64
    x, weight = _grid(rng, lab.rows, cols), _numbers(rng, cols)
    exact = {}
    for name, shape in {"gate": (width, cols), "up": (width, cols), "down": (40, width)}.items():
        data, exact[name] = _stored(rng, "Q4_0", *shape)
        lab.add(name, data, "Q4_0", *shape)
    down = lab.weights.matrix("down", shape=(40, width))
    gate_up = lab.weights.glu("gate", "up", (width, cols))
    y = ops.linear(ops.glu(_input(lab, "x", x), gate_up, Norm(lab.vector("norm", _bytes(weight)), EPS), to=down), down)
    gated = partial(_gated, _normalised(x, weight), exact["gate"], exact["up"])
    return [(y.buffer, "f", lambda: _flat(_product(gated(), exact["down"])))]


def _attention(kind: str, first: int) -> Callable[[Lab, random.Random], list[Check]]:
    """Rows at positions `first` on attend to all before them; the projection is a half of each number."""

    def record(lab: Lab, rng: random.Random) -> list[Check]:
        frequencies = [0.3**i for i in range(HEADS.dim // 2)]
        records: list[Record] = [(0, first + i) for i in range(lab.rows)]
        kv = lab.cache(HEADS, CONTEXT, records, kind, frequencies, PAGES)
        rows, (k, v) = _grid(rng, lab.rows, HEADS.width), (_grid(rng, CONTEXT, HEADS.dim) for _ in "kv")
        lab.constants |= {"k": _in_pages(k, kind, "k"), "v": _in_pages(v, kind, "v")}
        width = HEADS.heads * HEADS.dim
        half = _bytes(_flat([0.5 * (i == j) for j in range(width)] for i in range(width)))
        y = _input(lab, "y", [[0.0] * width for _ in rows])
        ops.attend(_input(lab, "qkv", rows), HEADS, kv, lab.matrix("o", half, "F32", width, width), add_to=y)
        wanted = partial(_attention_wanted, rows, k, v, kind, first, frequencies)
        return [(y.buffer, "f", lambda: [0.5 * value for value in _flat(wanted())])]

    return record


def _attention_wanted(
    rows: Rows, k: Rows, v: Rows, kind: str, first: int, frequencies: Sequence[float]
) -> Iterator[list[float]]:
    """Stores each row's own k and v as the cache would, then attends. One K and V head."""
    k, v = ([cache.stored(row, kind, of) for row in rows] for rows, of in ((k, "k"), (v, "v")))
    heads = [[row[at : at + HEADS.dim] for at in range(0, HEADS.width, HEADS.dim)] for row in rows]
    for position, row in enumerate(heads, first):
        k[position] = cache.stored(_rotated(row[-2], position, frequencies), kind, "k")
        v[position] = cache.stored(row[-1], kind, "v")
    for position, row in enumerate(heads, first):
        queries = (_rotated(q, position, frequencies) for q in row[: HEADS.heads])
        yield _flat(_attended(q, k[: position + 1], v[: position + 1]) for q in queries)


def _in_pages(rows: Rows, kind: str, of: str) -> bytes:
    """Positions in the order of `PAGES`; one K and V head."""
    pages = [rows[at : at + PAGE] for at in range(0, CONTEXT, PAGE)]
    return b"".join(cache.page(pages[PAGES.index(number)], kind, of) for number in range(len(pages)))


def _next_token(lab: Lab, rng: random.Random) -> list[Check]:
    logits = _numbers(rng, 1500)
    logits[700] = logits[1400] = 9.0
    result = lab.builder.buffer("result", 4 * RING, "state")
    ops.next_token(lab.tensor("logits", _bytes(logits), 1, 1500), lab.step([(11, 5)]), result)
    return [(result, "I", lambda: [700])]


def _sample(lab: Lab, rng: random.Random) -> list[Check]:
    """Filters, penalties, bias and noise at once, and counts the token. The likeliest would be another."""
    how = Sampling(top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2, logit_bias={9: 2.5}, seed=6)
    logits = [3 * number for number in _numbers(rng, 1500)]
    counts, bias = [2 * (token % 3 == 0) for token in range(1500)], [2.5 * (token == 9) for token in range(1500)]
    result = lab.builder.buffer("result", 4 * RING, "state")
    ops.sample(lab.tensor("logits", _bytes(logits), 1, 1500), lab.step([(11, 5)]), result)
    lab.constants |= {"sampling": how.record(), "bias": _bytes(bias), "counts": array("I", counts).tobytes()}
    scores = [logit + b for logit, b in zip(logits, bias, strict=True)]
    scores = [s if not n else s / 1.2 if s > 0 else s * 1.2 for s, n in zip(scores, counts, strict=True)]
    token = how.draw(_bytes(scores), 0)
    counted = [count + (i == token) for i, count in enumerate(counts)]
    named = {buffer.name: number for number, buffer in enumerate(lab.builder.buffers)}
    return [
        (result, "I", lambda: [token]),
        (named["counts"], "I", lambda: counted),
        (named["logits"], "f", lambda: scores),
    ]


def _copy(lab: Lab, rng: random.Random) -> list[Check]:
    numbers = _numbers(rng, 4 * 2500)
    x, y = lab.tensor("x", _bytes(numbers), 1, len(numbers)), lab.tensor("y", b"", 1, len(numbers))
    lab.rec.dispatch("copy", {"x": x, "y": y}, (2, 1, 1), SIZE=2500)
    return [(y.buffer, "f", lambda: numbers)]


def _fill(lab: Lab, rng: random.Random) -> list[Check]:
    piece = lab.tensor("piece", array("I", [0, 2]).tobytes(), 1, 2)
    data = lab.tensor("data", b"", 1, 1500)
    lab.rec.dispatch("fill", {"params": piece, "data": data}, (16, 2, 1), WORD=0x3F800000)
    return [(data.buffer, "f", lambda: [1.0] * 1500)]


RMS_NORM = Case("norm", _rms_norm, rows=3)
MATMUL = Case("matmul", _linear("F32"), rows=70)
FEED_FORWARD = {rows: Case(f"feed forward of {rows}", _feed_forward, rows=rows) for rows in (1, 5, 70)}

"""The operations that models are written in. Each checks, allocates, records and returns.

An op appends dispatches to a plan; nothing runs here. A `Tensor` carries its `Recorder`, so there is
no global state. The same model code records decode (one row a sequence) and prefill (many rows of
one sequence): each op picks the kernel that suits the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from webllm.limits import Limits
from webllm.plan import Buffer, Ceil, Dispatch, Kind, Plan, Size, Split, label_of
from webllm.sampling import RECORD_BYTES

PAGE = 32  # positions in a page of the KV cache
SPLIT = 128  # positions that one workgroup of decode attention takes at a time
MOST_SPLITS = 128  # that attention_merge takes
SHORT = 8 * SPLIT  # lengths up to which a plan may merge the splits inside o_proj
TILE = 64  # rows, and outputs of a row, that one workgroup of the prefill matmul takes
PARTS = 8  # into how many a product of few tiles is cut at most
FEW = 8  # rows that one pass over a weight serves without tiles
ACTS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}  # activation functions, by their number in act.wgsl
INTEGERS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q6", "q2")  # formats that multiply 8-bit activations
RING = 64  # tokens the result buffer holds before it wraps


class Builder:
    """Numbers the buffers of a program under construction."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buffers: list[Buffer] = []

    def buffer(self, name: str, size: int, kind: Kind, most: int = 0) -> int:
        """Add a buffer of `size` bytes (rounded up to whole words) and return its number. most: see `Buffer`."""
        self.buffers.append(Buffer(name, max(4, -(-size // 4) * 4), kind, most))
        return len(self.buffers) - 1

    def enlarge(self, number: int, size: int) -> None:
        """Give a buffer `size` bytes."""
        self.buffers[number] = replace(self.buffers[number], size=size)


@dataclass
class Recorder:
    """One plan under construction.

    rows: the most rows a step of this plan can have. short: no step attends to more than SHORT positions.
    """

    builder: Builder
    rows: int
    short: bool = False
    dispatches: list[Dispatch] = field(default_factory=list)

    def scratch(self, size: int) -> int:
        """A buffer of `size` bytes that need not outlive the step."""
        return self.builder.buffer(f"scratch.{len(self.builder.buffers)}", size, "scratch")

    def empty(self, *shape: int) -> Tensor:
        """Scratch for f32 numbers. In prefill the first dimension is rounded up to whole tiles."""
        return Tensor(self, self.scratch(4 * self._padded(shape[0]) * math.prod(shape[1:])), shape)

    def packed(self, rows: int, cols: int) -> Packed:
        """Scratch for 8-bit integers and their factors, for as many rows as `empty`."""
        halves = self._padded(rows) * cols // 16
        return Packed(self, self.scratch(16 * halves), self.scratch(8 * halves), (rows, cols))

    def _padded(self, rows: int) -> int:
        return -(-rows // TILE) * TILE if self.rows > 1 else rows

    def per_row(self, divisor: int = 1) -> Size:
        """The grid size ceil(rows / divisor), of the rows that the step will have."""
        return Ceil("rows", divisor) if self.rows > 1 else 1

    def dispatch(
        self,
        kernel: str,
        buffers: Mapping[str, Tensor | int],
        grid: tuple[Size, Size, Size],
        variants: Mapping[str, str] | None = None,
        **constants: float,
    ) -> None:
        """Append one kernel launch; buffers and variants by the names in the kernel's header."""
        named = ((name, b if isinstance(b, int) else b.buffer) for name, b in buffers.items())
        self.dispatches.append(
            Dispatch(kernel, tuple(named), grid, tuple(constants.items()), tuple((variants or {}).items()))
        )

    def plan(self, result: int | None = None) -> Plan:
        """The plan recorded so far."""
        return Plan(tuple(self.dispatches), result, self.rows)


@dataclass(frozen=True)
class Tensor:
    """f32 numbers in a buffer. shape: outermost first; the first dimension counts rows."""

    rec: Recorder
    buffer: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """[rows, cols] as 8-bit integers, approximately; 16 columns share a scale, and a sum for weights with an offset."""

    rec: Recorder
    codes: int
    factors: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Vector:
    """A norm's weight or a bias: f32 numbers in a weight buffer."""

    buffer: int
    size: int


@dataclass(frozen=True)
class Norm:
    """RMS normalisation: its weight and epsilon."""

    weight: Vector
    eps: float


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation (Ba et al. 2016), which takes the mean away first, and has a bias."""

    weight: Vector
    bias: Vector
    eps: float


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a matrix in one format. `scales` is None for f32, f16 and bf16.

    Where gate and up alternate, `rows` counts what fills up the last tiles too.
    """

    format: str
    first: int
    rows: int
    data: int
    scales: int | None

    @property
    def buffers(self) -> dict[str, int]:
        named = {"weight_data": self.data}
        return named if self.scales is None else named | {"weight_scales": self.scales}


@dataclass(frozen=True)
class Matrix:
    """A linear layer's weight [rows, cols], in one part or more.

    Several where the checkpoint mixes formats (v_proj is often finer than q_proj), or where one
    buffer would exceed the device's binding limit. glu: tiles of 16 gate and 16 up rows alternate,
    and `rows` counts both, without padding.
    """

    rows: int
    cols: int
    parts: tuple[Part, ...]
    glu: bool = False


@dataclass(frozen=True)
class Cache:
    """One layer's K and V, with what all layers share: step records, page table, rotary table."""

    k: int
    v: int
    kind: str  # "f16", "f32" or "int8"
    step: int
    pages: int
    rope: int
    rotary: int  # numbers of a head that are rotated, its first ones
    context: int  # positions that the cache holds


@dataclass(frozen=True)
class Heads:
    """Grouped-query attention. q, k and v of a row lie side by side, `width` numbers.

    scale: what scores are multiplied with; None for dim ** -0.5. cap: a soft bound of scores, 0 for none. window: so
    many positions are attended to, the row's own among them; 0 for all.
    """

    heads: int
    kv_heads: int
    dim: int
    scale: float | None = None
    cap: float = 0.0
    window: int = 0

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.dim


def embed(rec: Recorder, table: Matrix, step: int, scale: float = 1.0) -> Tensor:
    """Rows of `table` for the tokens of the step, times `scale`: [rows, cols]."""
    y = rec.empty(rec.rows, table.cols)
    _look_up(y, table, step, {} if scale == 1.0 else {"SCALE": scale})
    return y


def add_positions(x: Tensor, table: Matrix, step: int) -> None:
    """Add the rows of `table` for the positions of the step to `x` in place."""
    _look_up(x, table, step, {"POSITIONS": True})


def _look_up(y: Tensor, table: Matrix, step: int, how: Mapping[str, float]) -> None:
    rec = y.rec
    for part in table.parts:
        rec.dispatch(
            "embed",
            {**part.buffers, "step": step, "y": y},
            (-(-table.cols // 512), rec.per_row(), 1),
            {"weight": part.format},
            COLS=table.cols,
            FIRST=part.first,
            ROWS=part.rows,
            **how,
        )


def rms_norm(x: Tensor, norm: Norm) -> Tensor:
    """Each row of `x` scaled to unit root mean square, times the weight (Zhang and Sennrich 2019)."""
    y = x.rec.empty(*x.shape)
    _rms_norm(x, norm, {"half": "f32"}, {"y": y})
    return y


def layer_norm(x: Tensor, norm: LayerNorm) -> Tensor:
    """Each row of `x` less its mean, scaled to unit variance, times the weight, plus the bias."""
    _check_norm("layer_norm", x, norm)
    y = x.rec.empty(*x.shape)
    buffers: dict[str, Tensor | int] = {"x": x, "weight": norm.weight.buffer, "bias": norm.bias.buffer, "y": y}
    _reduce_rows("layer_norm", x, buffers, norm.eps)
    return y


def add_norm(x: Tensor, norm: Norm, add_to: Tensor) -> None:
    """Add the norm of each row of `x` to `add_to` in place."""
    _check_norm("add_norm", x, norm)
    _reduce_rows("add_norm", x, {"x": x, "weight": norm.weight.buffer, "y": add_to}, norm.eps)


def qk_norm(qkv: Tensor, heads: Heads, q: Norm, k: Norm) -> None:
    """Normalise q and k in place: each head, where the weights are of a head's size, or all heads together."""
    spans = [(count * heads.dim) // norm.weight.size for count, norm in ((heads.heads, q), (heads.kv_heads, k))]
    for count, span, norm in ((heads.heads, spans[0], q), (heads.kv_heads, spans[1], k)):
        if span not in (1, count) or span * norm.weight.size != count * heads.dim:
            raise ValueError(f"qk_norm: wanted weights for one head or for all of {heads}, got [{norm.weight.size}]")
    qkv.rec.dispatch(
        "qk_norm",
        {"qkv": qkv, "q_weight": q.weight.buffer, "k_weight": k.weight.buffer},
        (sum(spans), qkv.rec.per_row(), 1),
        {"reduce": qkv.rec.builder.limits.reduce},
        STRIDE=heads.width,
        Q_SPANS=spans[0],
        Q_SPAN=q.weight.size,
        K_SPAN=k.weight.size,
        EPS=q.eps,
    )


def soft_cap(y: Tensor, cap: float) -> None:
    """Bound numbers softly, in place: cap tanh(y / cap)."""
    y.rec.dispatch("soft_cap", {"y": y}, (-(-y.shape[1] // 256), y.rec.per_row(), 1), COLS=y.shape[1], CAP=cap)


def pack(x: Tensor) -> Packed:
    """`x` [rows, cols] as 8-bit integers; cols a multiple of 32."""
    rows, cols = x.shape
    if cols % 32:
        raise ValueError(f"pack: wanted columns in units of 32, got {[*x.shape]}")
    y = x.rec.packed(rows, cols)
    grid = (-(-cols // 1024), x.rec.per_row(), 1)
    x.rec.dispatch("pack", {"x": x, **_packed_output(y)}, grid, COLS=cols)
    return y


def linear(
    x: Tensor | Packed,
    w: Matrix,
    *,
    norm: Norm | LayerNorm | None = None,
    bias: Vector | None = None,
    add_to: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """norm(x) @ w.T + bias; added to `add_to` in place, or written to `out`, or to new scratch.

    x: [rows, cols]   w: [n, cols]   bias: [n]   returns: [rows, n]

    Where the device may (`Limits.int8`) and the weight is of integers, the input is rounded to 8 bits first.
    """
    _check_cols("linear", x, w)
    if isinstance(x, Packed) and (norm or not multiplies_integers(x.rec, w)):
        raise ValueError("linear: packed rows want a weight of integers alone, and no norm")
    if bias is not None and bias.size != w.rows:
        raise ValueError(f"linear: bias must be [{w.rows}] for a weight [{w.rows}, {w.cols}], got [{bias.size}]")
    y = add_to or out or x.rec.empty(x.shape[0], w.rows)
    if y.shape != (x.shape[0], w.rows):
        raise ValueError(f"linear: wanted [{x.shape[0]}, {w.rows}] to write to, got {[*y.shape]}")
    return _linear(_input(x, w, norm), w, bias, y, add=add_to is not None)


def act(x: Tensor, kind: str, to: Matrix | None = None) -> Tensor | Packed:
    """An activation function of each number. kind: one of `ACTS`. to: as in `glu`."""
    rec, (rows, width) = x.rec, x.shape
    y = rec.packed(rows, width) if to is not None and multiplies_integers(rec, to) else rec.empty(rows, width)
    half, output = _output(y)
    rec.dispatch(
        "act", {"x": x, **output}, (-(-width // 1024), rec.per_row(), 1), {"half": half}, COLS=width, ACT=ACTS[kind]
    )
    return y


def glu(
    x: Tensor, w: Matrix, norm: Norm | LayerNorm | None, to: Matrix | None = None, act: str = "silu"
) -> Tensor | Packed:
    """act(x @ gate.T) * (x @ up.T) of the normalised rows (Shazeer 2020): [rows, w.rows / 2].

    w: gate and up in alternating tiles (`Matrix.glu`), or all of gate above all of up. to: the weight that takes the
    result, which is packed if that multiplies integers. act: one of `ACTS`; SwiGLU has "silu".
    """
    gate = {} if act == "silu" else {"ACT": ACTS[act]}
    rec, (rows, _), width = x.rec, x.shape, w.rows // 2
    _check_cols("glu", x, w)
    if to is not None and to.cols != width:
        raise ValueError(f"glu: the next weight must take {width} columns, got [{to.rows}, {to.cols}]")
    y = rec.packed(rows, width) if to is not None and multiplies_integers(rec, to) else rec.empty(rows, width)
    if rec.rows == 1 and w.glu:
        _glu_parts(_input(x, w, norm), w, y, gate)
        return y
    both = linear(x, _as_stored(w) if w.glu else w, norm=norm)
    half, output = _output(y)
    grid = (-(-width // 1024), rec.per_row(), 1)
    tile = 16 if w.glu else width
    rec.dispatch("act_mul", {"x": both, **output}, grid, {"half": half}, COLS=width, TILE=tile, **gate)
    return y


def multiplies_integers(rec: Recorder, w: Matrix) -> bool:
    """Whether the weight's products are of 8-bit activations: the device may, and all of it is integers."""
    limits = rec.builder.limits
    pays = rec.rows == 1 or limits.integer_tiles or (rec.rows <= FEW and not limits.small)
    return limits.int8 and pays and w.cols % 32 == 0 and all(part.format in INTEGERS for part in w.parts)


def store(qkv: Tensor, heads: Heads, cache: Cache) -> None:
    """Rotate q (in place) and k by their positions, write k and v to the cache (RoFormer, Su et al. 2021)."""
    _check_heads("store", qkv, heads)
    qkv.rec.dispatch(
        "rope_cache",
        _cached(qkv, cache),
        (heads.heads + heads.kv_heads, qkv.rec.per_row(), 1),
        {"kv": cache.kind},
        HEADS=heads.heads,
        ROTARY=cache.rotary,
        **_cache_shape(heads, cache),
    )


def attend(
    qkv: Tensor,
    heads: Heads,
    cache: Cache,
    o_proj: Matrix,
    *,
    bias: Vector | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """Store the rows' k and v, attend causally to the cached positions, project, and add to `add_to` in place if given.

    qkv: [rows, heads.width], not rotated   o_proj: [n, heads * dim]   bias: [n]   returns: [rows, n]
    """
    _check_heads("attend", qkv, heads)
    if qkv.rec.rows > 1:
        store(qkv, heads, cache)
        return linear(_attend_many(qkv, heads, cache), o_proj, bias=bias, add_to=add_to)
    splits = _attend_splits(qkv, heads, cache)
    row = "int8" if multiplies_integers(qkv.rec, o_proj) else "f32"
    shares = 4 * heads.heads * splits.count
    if qkv.rec.short and qkv.rec.builder.limits.holds_row(o_proj.cols, row, shares):
        y = add_to or qkv.rec.empty(qkv.shape[0], o_proj.rows)
        return _linear(Input(splits.part, row, splits), o_proj, bias, y, add=add_to is not None)
    return linear(_merge(splits), o_proj, bias=bias, add_to=add_to)


def next_token(logits: Tensor, step: int, result: int) -> None:
    """Write the likeliest token (lowest id of equals) to `result` and to the step, and move on one position."""
    rec, cols = logits.rec, logits.shape[1]
    tiles = -(-cols // 1024)
    candidates = rec.empty(logits.shape[0], tiles, 2)
    rec.dispatch(
        "argmax_tile", {"logits": logits, "candidates": candidates}, (tiles, rec.per_row(), 1), COLS=cols, TILES=tiles
    )
    rec.dispatch(
        "next_token",
        {"candidates": candidates, "step": step, "result": result},
        (1, rec.per_row(), 1),
        TILES=tiles,
        RING=RING,
    )


def sample(logits: Tensor, step: int, result: int) -> None:
    """Like `next_token`, for a token drawn as the buffer `sampling` says; `logits` become scores.

    Adds buffers, one record a row each: `sampling` (webllm.sampling.Sampling.record), `bias` (f32 a token), `counts`
    (u32 a token). Where the candidates on the GPU do not settle it, the token is `sampling.HOST` and steps change
    nothing until `sampling` is written again.
    """
    rec, (rows, cols) = logits.rec, logits.shape
    tiles = -(-cols // 1024)
    sizes = {
        "sampling": RECORD_BYTES,
        "bias": 4 * cols,
        "counts": 4 * cols,
        "histogram": 4 * 2048,
        "candidates": 8 + 8 * 1024,
    }
    made: dict[str, Tensor | int] = {name: rec.builder.buffer(name, rows * n, "state") for name, n in sizes.items()}
    made |= {"logits": logits, "step": step, "result": result, "tiles": rec.empty(rows, tiles, 4)}

    def bound(names: str) -> dict[str, Tensor | int]:
        return {name: made[name] for name in names.split()}

    scored = bound("step sampling bias counts logits histogram tiles")
    rec.dispatch("score_tile", scored, (tiles, rec.per_row(), 1), COLS=cols, TILES=tiles)
    gathered = bound("step sampling logits histogram candidates")
    rec.dispatch("gather", gathered, (-(-cols // 4096), rec.per_row(), 1), COLS=cols)
    drawn = bound("tiles candidates histogram sampling counts step result")
    rec.dispatch("sample", drawn, (1, rec.per_row(), 1), COLS=cols, TILES=tiles, RING=RING)


def _check_cols(op: str, x: Tensor | Packed, w: Matrix) -> None:
    if x.shape[1] != w.cols or w.cols % 4:
        raise ValueError(f"{op}: x must be [rows, {w.cols}], a multiple of 4 wide, got {[*x.shape]}")


def _check_heads(op: str, qkv: Tensor, heads: Heads) -> None:
    if qkv.shape[1] != heads.width:
        raise ValueError(f"{op}: wanted [rows, {heads.width}] for {heads}, got {[*qkv.shape]}")
    if heads.dim > 256 or heads.dim % 8 or heads.heads % heads.kv_heads:
        raise ValueError(f"{op}: wants heads in whole groups and a head size in eights up to 256, got {heads}")


@dataclass(frozen=True)
class Input:
    """What a product takes: x as it is, its norm, or what merging attention's splits in x gives.

    row: how a matvec holds it, by the library files of that slot. In prefill x is already what is multiplied.
    """

    x: Tensor | Packed
    row: str
    source: Norm | Splits | None = None


def _input(x: Tensor | Packed, w: Matrix, norm: Norm | LayerNorm | None) -> Input:
    """x as the weight wants it. A matvec prepares it itself where the row fits in workgroup memory."""
    if isinstance(x, Packed):
        return Input(x, "packed")
    if isinstance(norm, LayerNorm):
        x, norm = layer_norm(x, norm), None
    integers = multiplies_integers(x.rec, w)
    row = "int8" if integers else "f32"
    fits = x.rec.rows == 1 and x.rec.builder.limits.holds_row(w.cols, row)
    if fits and (norm or integers):
        return Input(x, row, norm)
    if integers:
        return Input(_packed_norm(x, norm) if norm else pack(x), "packed")
    return Input(rms_norm(x, norm) if norm else x, "stored")


def _packed_norm(x: Tensor, norm: Norm) -> Packed:
    y = x.rec.packed(x.shape[0], x.shape[1])
    _rms_norm(x, norm, {"half": "packed"}, _packed_output(y))
    return y


def _rms_norm(x: Tensor, norm: Norm, half: dict[str, str], output: Mapping[str, Tensor | int]) -> None:
    cols = x.shape[1]
    _check_norm("rms_norm", x, norm)
    buffers = {"x": x, "weight": norm.weight.buffer, **output}
    variants = {"reduce": x.rec.builder.limits.reduce, **half}
    x.rec.dispatch("rms_norm", buffers, (1, x.rec.per_row(), 1), variants, COLS=cols, EPS=norm.eps)


def _check_norm(op: str, x: Tensor, norm: Norm | LayerNorm) -> None:
    if norm.weight.size != x.shape[1]:
        raise ValueError(f"{op}: weight must be [{x.shape[1]}] for x {[*x.shape]}, got [{norm.weight.size}]")


def _reduce_rows(kernel: str, x: Tensor, buffers: Mapping[str, Tensor | int], eps: float) -> None:
    variants = {"reduce": x.rec.builder.limits.reduce}
    x.rec.dispatch(kernel, buffers, (1, x.rec.per_row(), 1), variants, COLS=x.shape[1], EPS=eps)


def _output(y: Tensor | Packed) -> tuple[str, dict[str, Tensor | int]]:
    """The variant of a kernel that writes y, and what it binds for that."""
    return ("packed", _packed_output(y)) if isinstance(y, Packed) else ("f32", {"y": y})


def _packed_output(y: Packed) -> dict[str, Tensor | int]:
    return {"y_codes": y.codes, "y_factors": y.factors}


def _packed_input(x: Packed) -> dict[str, Tensor | int]:
    return {"x_codes": x.codes, "x_factors": x.factors}


def _as_stored(w: Matrix) -> Matrix:
    """The rows of a gate and up weight as they lie in memory, padding included."""
    return Matrix(sum(part.rows for part in w.parts), w.cols, w.parts)


def _glu_parts(x: Input, w: Matrix, y: Tensor | Packed, gate: Mapping[str, int]) -> None:
    """Decode: one dispatch a part of a weight with alternating tiles, whose last tile may be padded."""
    width = w.rows // 2
    gated, output = _output(y)
    for part in w.parts:
        first = part.first // 2
        rows = min(part.rows // 2, width - first)
        shape = {"COLS": w.cols, "ROWS": rows, "STRIDE": width, "OFFSET": first, **gate}
        variants = {"weight": part.format, "gated": gated}
        _matvec("matvec_glu", x, rows, {**part.buffers, **output}, variants, shape)


def _linear(x: Input, w: Matrix, bias: Vector | None, y: Tensor, add: bool) -> Tensor:
    """One dispatch a part of the weight, and one more where a product is cut."""
    for part in w.parts:
        buffers: dict[str, Tensor | int] = {**part.buffers, "y": y}
        variants = {"weight": part.format, "bias": "none"}
        if bias is not None:
            buffers["bias"] = bias.buffer
            variants["bias"] = "add"
        shape = {"COLS": w.cols, "ROWS": part.rows, "STRIDE": y.shape[1], "OFFSET": part.first, "ADD": add}
        if y.rec.rows == 1:
            _matvec("matvec", x, part.rows, buffers, variants, shape)
        else:
            _matmul(x.x, part.rows, buffers, variants, shape)
    return y


def _matmul(
    x: Tensor | Packed, rows: int, buffers: dict[str, Tensor | int], variants: dict[str, str], shape: dict[str, int]
) -> None:
    """Record a product of tiles. Where those may be few, the sums are cut into parts, and added up after it."""
    rec, limits, tiles = x.rec, x.rec.builder.limits, -(-rows // TILE)
    if isinstance(x, Packed) and rec.rows <= FEW:
        _matmul_few(x, rows, buffers, variants, shape)
        return
    if limits.small and isinstance(x, Tensor):
        rec.dispatch("matmul_small", {**buffers, "x": x}, (-(-rows // 128), rec.per_row(8), 1), variants, **shape)
        return
    wanted = min(limits.tiles, limits.storage_binding // (4 * TILE * TILE))
    most = min(PARTS, wanted // tiles, -(-shape["COLS"] // 128))  # a part has four units at least
    split: Split | None = Split(TILE, tiles, wanted, most) if most > 1 else None
    adding = {name: buffer for name, buffer in buffers.items() if name in ("y", "bias")}
    if split:
        adding["parts"] = buffers["parts"] = rec.scratch(_parts_bytes(rec, split))
    grid = (tiles, rec.per_row(TILE), split or 1)
    variants |= {"split": "parts" if split else "none"}
    if isinstance(x, Packed):
        rec.dispatch("matmul_int8", {**buffers, **_packed_input(x)}, grid, variants, **shape)
    elif limits.matrix:
        rec.dispatch("matmul_matrix", {**buffers, "x": x}, grid, variants, **shape)
    else:
        rec.dispatch("matmul", {**buffers, "x": x}, grid, {**variants, "tile": limits.tile}, **shape)
    if split:
        shape = {name: value for name, value in shape.items() if name != "COLS"}
        shares = (replace(split, least=2), rec.per_row(), 1)
        rec.dispatch("sum_parts", adding, shares, {"bias": variants["bias"]}, **shape)


def _matmul_few(
    x: Packed, rows: int, buffers: dict[str, Tensor | int], variants: dict[str, str], shape: dict[str, int]
) -> None:
    per, threads = x.rec.builder.limits.matvec_shape(rows, shape["COLS"], "packed")
    threads = min(256, threads)  # eight sums each, in 16 KiB of workgroup memory
    grid = (-(-rows // per), x.rec.per_row(FEW), 1)
    x.rec.dispatch("matmul_few", {**buffers, **_packed_input(x)}, grid, variants, **shape, PER=per, WG=threads)


def _parts_bytes(rec: Recorder, split: Split) -> int:
    """Of the sums of all parts, whatever the rows of the step."""
    most = max(high * replace(split, least=2)(high * TILE, 0) for high in range(1, rec.rows // TILE + 2))
    return 4 * TILE * TILE * split.tiles * most


def _matvec(
    kernel: str,
    x: Input,
    rows: int,
    buffers: dict[str, Tensor | int],
    variants: dict[str, str],
    shape: dict[str, int],
) -> None:
    """Record a matvec for a weight of so many rows."""
    cols, rec = shape["COLS"], x.x.rec
    constants: dict[str, float] = {**shape}
    variants |= {"row": x.row}
    if isinstance(x.x, Packed):
        buffers |= _packed_input(x.x)
    else:
        buffers["x"] = x.x
        variants["input"] = "plain"
    if x.row == "f32":
        constants["QUADS"] = -(-cols // 32) * 8
    elif x.row == "int8":
        constants["HALVES"] = cols // 16
    if isinstance(x.source, Norm):
        variants["input"] = "rms_norm"
        buffers["norm_weight"] = x.source.weight.buffer
        constants["EPS"] = x.source.eps
    elif isinstance(x.source, Splits):
        variants["input"] = "merge"
        buffers |= {"stats": x.source.stats, "step": x.source.step}
        heads, count = x.source.heads, x.source.count
        constants |= {"HEAD_QUADS": heads.dim // 4, "SPLITS": count, "SPLIT": SPLIT, "SHARES": heads.heads * count}
    label = label_of(kernel, variants)
    per, threads = rec.builder.limits.matvec_shape(rows, cols, x.row, least_rows(variants), label)
    constants |= {"PER": per, "WG": threads}
    rec.dispatch(kernel, buffers, (-(-rows // per), rec.rows, 1), variants, **constants)


def least_rows(variants: Mapping[str, str]) -> int:
    """Rows that a workgroup of a matvec with these variants must have: so many share a factor of a packed result."""
    return 16 if variants.get("gated") == "packed" else 4


def _cache_shape(heads: Heads, cache: Cache) -> dict[str, int]:
    return {"KV_HEADS": heads.kv_heads, "HEAD_DIM": heads.dim, "MAX_PAGES": -(-cache.context // PAGE)}


def _scores(heads: Heads) -> dict[str, float]:
    """The constants of what attention makes of products; what is not there is left out."""
    scale = heads.dim**-0.5 if heads.scale is None else heads.scale
    return (
        {"SCALE": scale}
        | ({"CAP": heads.cap} if heads.cap else {})
        | ({"WINDOW": heads.window} if heads.window else {})
    )


@dataclass(frozen=True)
class Splits:
    """What attention leaves of each split of the cache: sums [heads, count, dim], maxima and sums of weights."""

    part: Tensor
    stats: Tensor
    step: int
    heads: Heads
    count: int


def _attend_splits(qkv: Tensor, heads: Heads, cache: Cache) -> Splits:
    """Decode: splits of the cache in parallel (FlashDecoding, Dao et al. 2023)."""
    rec, rows = qkv.rec, qkv.shape[0]
    per_kv = heads.heads // heads.kv_heads
    groups = -(-per_kv // (2 if rec.short else 4))  # workgroups that share a KV head's splits: short ones are few
    workgroups = heads.kv_heads * groups
    count = _split_count(rec, workgroups, cache.context)
    part = rec.empty(rows, heads.heads, count, heads.dim)
    stats = rec.empty(rows, heads.heads, count, 2)
    rec.dispatch(
        "attention_split",
        {**_cached(qkv, cache), "part": part, "stats": stats},
        (workgroups, Ceil("length", SPLIT) if rec.short else count, rows),
        {"kv": cache.kind, "reduce": rec.builder.limits.reduce},
        HEADS=heads.heads,
        GROUP=-(-per_kv // groups),
        SPLITS=count,
        ROTARY=cache.rotary,
        **_scores(heads),
        **_cache_shape(heads, cache),
    )
    return Splits(part, stats, cache.step, heads, count)


def _split_count(rec: Recorder, workgroups: int, context: int) -> int:
    """Into how many splits the cache goes: one for each SPLIT positions of a short plan, else what fills the GPU."""
    most = -(-min(context, SHORT if rec.short else context) // SPLIT)
    wanted = most if rec.short else -(-2 * rec.builder.limits.workgroups // workgroups)
    return min(most, wanted, MOST_SPLITS)


def _merge(splits: Splits) -> Tensor:
    """The splits as one row a sequence: [rows, heads * dim]."""
    rec, heads, rows = splits.part.rec, splits.heads, splits.part.shape[0]
    y = rec.empty(rows, heads.heads * heads.dim)
    rec.dispatch(
        "attention_merge",
        {"step": splits.step, "part": splits.part, "stats": splits.stats, "y": y},
        (heads.heads, -(-heads.dim // 32), rows),
        {"reduce": rec.builder.limits.reduce},
        HEADS=heads.heads,
        HEAD_DIM=heads.dim,
        SPLITS=splits.count,
        SPLIT=SPLIT,
    )
    return y


def _attend_many(qkv: Tensor, heads: Heads, cache: Cache) -> Tensor:
    """Prefill: tiles of 32 rows against pages of 32 keys."""
    rec, rows = qkv.rec, qkv.shape[0]
    y = rec.empty(rows, heads.heads * heads.dim)
    attended = {name: b for name, b in _cached(qkv, cache).items() if name != "rope"}
    rec.dispatch(
        "attention_tile",
        {**attended, "y": y},
        (heads.heads, rec.per_row(PAGE), 1),
        {"kv": cache.kind},
        HEADS=heads.heads,
        **_scores(heads),
        **_cache_shape(heads, cache),
    )
    return y


def _cached(qkv: Tensor, cache: Cache) -> dict[str, Tensor | int]:
    return {
        "step": cache.step,
        "rope": cache.rope,
        "pages": cache.pages,
        "qkv": qkv,
        "k_cache": cache.k,
        "v_cache": cache.v,
    }

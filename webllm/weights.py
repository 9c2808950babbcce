"""From a checkpoint's tensors to weight buffers and the uploads that fill them.

Models ask for matrices and vectors by the checkpoint's own names. Nothing is read here: an upload
says which bytes go through which import kernel, and the device streams them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeVar

from webllm.checkpoint import Checkpoint, TensorInfo, rows_of
from webllm.errors import BadModel, Unsupported
from webllm.ops import Builder, Matrix, Part, Vector
from webllm.plan import Ceil, Dispatch, Slots, Upload, rows_per_piece


class Rows(NamedTuple):
    """Rows start to stop of the tensor called `name`: of weights that a checkpoint keeps in one."""

    name: str
    start: int
    stop: int


Name = str | Rows


@dataclass(frozen=True)
class Format:
    """How a weight lies in memory: bytes of a unit of 32 columns, and of its scales (with what bits lie there)."""

    unit_bytes: int
    scale_bytes: int = 0


@dataclass(frozen=True)
class Import:
    """The way from a file's tensor type to a format. `block` columns take `block_bytes` in the file.

    element: the numbers of a kernel that takes any floats; it tells what it loses. scales: the kernel for the scales of
    `block` columns each, where they lie apart.
    """

    format: str
    kernel: str
    block: int
    block_bytes: int
    constants: tuple[tuple[str, float], ...] = ()
    element: str | None = None
    scales: str | None = None

    def row_bytes(self, cols: int) -> int:
        """Of a row in the file, in whole blocks."""
        return -(-cols // self.block) * self.block_bytes


FORMATS = {
    "q4_0": Format(16, 2),
    "q4_1": Format(16, 4),
    "q5_0": Format(16, 6),
    "q5_1": Format(16, 8),
    "q6": Format(16, 12),
    "q2": Format(8, 8),
    "q3": Format(16, 4),
    "q8_0": Format(32, 2),
    "f16": Format(64),
    "bf16": Format(64),
    "f32": Format(128),
}
IMPORTS = {
    "F32": Import("f32", "import_dense", 1, 4, (("QUAD_WORDS", 4),)),
    "F16": Import("f16", "import_dense", 1, 2, (("QUAD_WORDS", 2),)),
    "BF16": Import("bf16", "import_dense", 1, 2, (("QUAD_WORDS", 2),)),
    "Q4_0": Import("q4_0", "import_q4_0", 32, 18),
    "Q4_1": Import("q4_1", "import_q4_1", 32, 20),
    "Q5_0": Import("q5_0", "import_q5_0", 32, 22),
    "Q5_1": Import("q5_1", "import_q5_1", 32, 24),
    "Q8_0": Import("q8_0", "import_q8_0", 32, 34),
    "Q2_K": Import("q2", "import_q2_k", 256, 84),
    "Q3_K": Import("q6", "import_q3_k", 256, 110),
    "Q4_K": Import("q4_1", "import_q4_k", 256, 144),
    "Q5_K": Import("q5_1", "import_q5_k", 256, 176),
    "Q6_K": Import("q6", "import_q6_k", 256, 210),
    "IQ4_NL": Import("q8_0", "import_iq4_nl", 32, 18),
    "IQ4_XS": Import("q8_0", "import_iq4_xs", 256, 136),
    "MXFP4": Import("q8_0", "import_mxfp4", 32, 17),
}
# Types whose scales lie apart, `TensorInfo.scales`; MLC's.
SCALED = {
    "MLC_Q4": Import("q4_0", "import_mlc_q4", 32, 16, scales="import_mlc_q4_scales"),
    "MLC_Q3": Import("q3", "import_mlc_q3", 40, 16, scales="import_mlc_q3_scales"),
}

# format -> kernel that makes it of F32, F16 or BF16, and its constants
MADE: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "q4_1": ("quantize_q4_1", ()),
    "q4_0": ("quantize_q4_0", ()),
    "q8_0": ("quantize_q8_0", ()),
    "f16": ("import_cast", (("QUAD_WORDS", 2),)),
    "f32": ("import_cast", (("QUAD_WORDS", 4),)),
}
DENSE = ("F32", "F16", "BF16")
ERRORS = "quantisation.errors"  # a buffer, see `Slots`


def import_of(tensor: TensorInfo) -> Import:
    """The way of a matrix onto the GPU: as the file has it, or in the format that `store_as` names."""
    own = IMPORTS.get(tensor.dtype) or SCALED[tensor.dtype]
    if tensor.store_as is None:
        return own
    kernel, constants = MADE[tensor.store_as]
    return Import(tensor.store_as, kernel, own.block, own.block_bytes, constants, element=own.format)


def matrix_bytes(tensor: TensorInfo) -> int:
    """What a matrix takes on the GPU, scales included: its rows in whole tiles, its columns in whole units."""
    form = FORMATS[import_of(tensor).format]
    return -(-tensor.shape[0] // 16) * 16 * -(-tensor.shape[1] // 32) * (form.unit_bytes + form.scale_bytes)


_MAX_PARTS = 1024  # of one matrix; the largest there are need 8 on a device with default limits

T = TypeVar("T", Matrix, Vector)


class Weights:
    """Builds a program's weight buffers; each is made once, however many plans ask for it."""

    def __init__(self, builder: Builder, checkpoint: Checkpoint, raw: int, params: int) -> None:
        self._builder = builder
        self._checkpoint = checkpoint
        self._raw = raw
        self._params = params
        self._made: dict[tuple[Name, ...], Matrix | Vector] = {}
        self._asked: set[str] = set()
        self.uploads: list[Upload] = []
        self.errors: dict[str, Slots] = {}  # of the matrices that are made anew, by name
        self._errors: int | None = None

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor of that name."""
        return name in self._checkpoint.tensors

    def unused(self) -> list[str]:
        """Tensors of the checkpoint that nobody has asked for."""
        return [name for name in self._checkpoint.tensors if name not in self._asked]

    def matrix(self, *names: Name, shape: tuple[int, int], head_dim: int = 0) -> Matrix:
        """Linear layers with the same input, stacked: rows of the first, then of the second, ...

        shape: [rows of all together, cols]. head_dim: that of q and k, whose rows may need reordering.
        """

        def make() -> Matrix:
            tensors = self._tensors(names, shape, 2)
            parts: list[Part] = []
            first = 0
            for _, run in groupby(tensors, key=import_of):
                for piece in self._fit(list(run), head_dim):
                    parts.append(self._part(piece, first, head_dim))
                    first += parts[-1].rows
            return Matrix(first, shape[1], tuple(parts))

        return self._once(names, make)

    def transposed(self, name: str, shape: tuple[int, int]) -> Matrix:
        """A weight [rows, cols] that the checkpoint keeps as [cols, rows], in F32, F16 or BF16."""

        def make() -> Matrix:
            (tensor,) = self._tensors([name], (shape[1], shape[0]), 2)
            how = import_of(tensor)
            if how.kernel != "import_dense":
                raise Unsupported(
                    f"{name}: rows and columns are exchanged, and only F32, F16 and BF16 can be turned, unquantised"
                )
            part = self._empty_part(name, how.format, 0, *shape)
            if self._builder.buffers[part.data].size > self._builder.limits.storage_binding:
                raise Unsupported(f"{name}: {[*shape]} is too large for this device")
            params = (how.block_bytes * shape[0], shape[0], 0, 16, 0)
            buffers = (("raw", self._raw), ("params", self._params), ("data", part.data))
            constants = (*how.constants, ("UNITS", -(-shape[1] // 32)))
            grid = (-(-shape[0] // 64), Ceil("rows", 2), 1)
            dispatch = Dispatch("import_turned", buffers, grid, constants)
            self.uploads.append(Upload(tensor.source, tensor.offset, shape[1], params[0], params, dispatch))
            return Matrix(*shape, (part,))

        return self._once((name,), make)

    def glu(self, gate: Name, up: Name, shape: tuple[int, int]) -> Matrix:
        """Gate and up projections in alternating tiles of 16 rows. shape: [rows of each, cols].

        Where the two are of different types they are stacked as in `matrix`, and the result says so: `Matrix.glu`.
        """

        def make() -> Matrix:
            most = self._rows_that_fit(tensors[0], 32) // 2
            parts = []
            for start in range(0, shape[0], most):
                stop = min(start + most, shape[0])
                rows = -(-(stop - start) // 16) * 16
                part = self._empty_part(tensors[0].name, import_of(tensors[0]).format, 2 * start, 2 * rows, shape[1])
                for i, tensor in enumerate(tensors):
                    self._upload(rows_of(tensor, start, stop), part, 16 * i, 32)
                parts.append(part)
            return Matrix(2 * shape[0], shape[1], tuple(parts), glu=True)

        tensors = [*self._tensors([gate], shape, 2), *self._tensors([up], shape, 2)]
        if import_of(tensors[0]) != import_of(tensors[1]):
            return self.matrix(gate, up, shape=(2 * shape[0], shape[1]))
        return self._once((gate, up), make)

    def vector(self, *names: Name, size: int, head_dim: int = 0, plus: float = 0.0, scale: float = 1.0) -> Vector:
        """Norm weights or biases as f32, one after another: plus + scale x. size: numbers in all together."""
        change = (("PLUS", plus), ("SCALE", scale)) if (plus, scale) != (0.0, 1.0) else ()

        def make() -> Vector:
            tensors = self._tensors(names, (size,), 1)
            data = self._builder.buffer(tensors[0].name, 4 * size, "weight")
            first = 0
            for tensor in tensors:
                self._upload_vector(tensor, data, first, head_dim, change)
                first += tensor.shape[0]
            return Vector(data, size)

        return self._once(names, make)

    def _once(self, names: tuple[Name, ...], make: Callable[[], T]) -> T:
        if names not in self._made:
            self._made[names] = make()
        return self._made[names]  # type: ignore[return-value]

    def _tensors(self, names: Sequence[Name], shape: tuple[int, ...], dims: int) -> list[TensorInfo]:
        """The named tensors, whose stacked shape must be `shape`."""
        pieces = [name if isinstance(name, Rows) else Rows(name, 0, 0) for name in names]
        missing = [piece.name for piece in pieces if not self.has(piece.name)]
        if missing:
            raise BadModel(f"{self._checkpoint.name}: no tensor {', '.join(missing)}; is the file complete?")
        self._asked.update(piece.name for piece in pieces)
        tensors = [self._piece(piece) for piece in pieces]
        for tensor in tensors:
            if tensor.dtype not in IMPORTS and tensor.dtype not in SCALED:
                raise Unsupported(f"{tensor.name}: type {tensor.dtype}; supported are {', '.join(IMPORTS)}")
        rows = sum(t.shape[0] for t in tensors)
        if any(len(t.shape) != dims or t.shape[1:] != shape[1:] for t in tensors) or rows != shape[0]:
            came = ", ".join(f"{t.name} {[*t.shape]}" for t in tensors)
            raise BadModel(f"{self._checkpoint.name}: wanted {[*shape]} in all by the configuration, got {came}")
        return tensors

    def _piece(self, piece: Rows) -> TensorInfo:
        """A tensor, or some of its rows."""
        tensor = self._checkpoint.tensors[piece.name]
        if not piece.stop:
            return tensor
        if not 0 <= piece.start < piece.stop <= tensor.shape[0]:
            raise BadModel(
                f"{tensor.name}: wanted {piece.stop} rows at least by the configuration, got {[*tensor.shape]}"
            )
        return rows_of(tensor, piece.start, piece.stop)

    def _fit(self, tensors: list[TensorInfo], head_dim: int) -> list[list[TensorInfo]]:
        """Cut one large tensor by rows so that each part's data fits one binding.

        Between tiles, and between heads, whose rows may be reordered within a part only.
        """
        most = self._rows_that_fit(tensors[0], math.lcm(16, head_dim or 16))
        if sum(t.shape[0] for t in tensors) <= most:
            return [tensors]
        return [[rows_of(t, at, min(at + most, t.shape[0]))] for t in tensors for at in range(0, t.shape[0], most)]

    def _rows_that_fit(self, tensor: TensorInfo, step: int) -> int:
        """Rows of the tensor's width that one binding holds, in whole steps."""
        row_bytes = -(-tensor.shape[1] // 32) * FORMATS[import_of(tensor).format].unit_bytes
        binding = self._builder.limits.storage_binding
        if step * row_bytes > binding:
            raise Unsupported(
                f"{tensor.name}: {step} rows of {tensor.shape[1]} take {step * row_bytes} bytes on the GPU; "
                f"this device binds {binding} at a time"
            )
        most = binding // (step * row_bytes) * step
        if tensor.shape[0] > most * _MAX_PARTS:
            raise Unsupported(
                f"{tensor.name}: {[*tensor.shape]} is too large for this device, which binds {binding} bytes"
            )
        return most

    def _empty_part(self, name: str, kind: str, first: int, rows: int, cols: int) -> Part:
        """Buffers for `rows` rows, rounded up to whole tiles. New buffers are zero: so is the padding."""
        units = -(-rows // 16) * 16 * -(-cols // 32)
        data = self._builder.buffer(name, units * FORMATS[kind].unit_bytes, "weight")
        scale_bytes = FORMATS[kind].scale_bytes
        scales = self._builder.buffer(f"{name}.scales", units * scale_bytes, "weight") if scale_bytes else None
        return Part(kind, first, rows, data, scales)

    def _part(self, tensors: list[TensorInfo], first: int, head_dim: int) -> Part:
        rows, cols = sum(t.shape[0] for t in tensors), tensors[0].shape[1]
        part = self._empty_part(tensors[0].name, import_of(tensors[0]).format, first, rows, cols)
        at = 0
        for tensor in tensors:
            self._upload(tensor, part, at, 16, head_dim)
            at += tensor.shape[0]
        return part

    def _upload(self, tensor: TensorInfo, part: Part, first: int, tile_step: int, head_dim: int = 0) -> None:
        how, (rows, cols) = import_of(tensor), tensor.shape
        row_bytes = how.row_bytes(cols)
        if how.scales:
            self._upload_scales(tensor, how.scales, part, first, tile_step)
        params = [row_bytes, cols, first, tile_step, head_dim if tensor.pair_rows else 0]
        buffers = {"raw": self._raw, "params": self._params, "data": part.data}
        if part.scales is not None and not how.scales:
            buffers["scales"] = part.scales
        threads = cols // 4 if how.kernel == "import_dense" else -(-cols // 32)
        groups, variants = -(-threads // 64), {}
        if how.element:
            buffers["errors"], slots = self._error_slots(tensor)
            params.append(slots.first)
            groups, variants = 1, {"element": how.element, "reduce": self._builder.limits.reduce}
        grid = (groups, Ceil("rows", 1), 1)
        dispatch = Dispatch(how.kernel, tuple(buffers.items()), grid, how.constants, tuple(variants.items()))
        self.uploads.append(Upload(tensor.source, tensor.offset, rows, row_bytes, tuple(params), dispatch))

    def _upload_scales(self, tensor: TensorInfo, kernel: str, part: Part, first: int, tile_step: int) -> None:
        """Those of a tensor whose numbers lie elsewhere."""
        assert tensor.scales is not None and part.scales is not None
        scales, element = tensor.scales, IMPORTS[tensor.scales.dtype]
        row_bytes = element.row_bytes(scales.shape[1])
        buffers = (("raw", self._raw), ("params", self._params), ("scales", part.scales))
        grid = (-(-tensor.shape[1] // 2048), Ceil("rows", 1), 1)
        dispatch = Dispatch(kernel, buffers, grid, (), (("element", element.format),))
        params = (row_bytes, tensor.shape[1], first, tile_step, 0)
        self.uploads.append(Upload(scales.source, scales.offset, tensor.shape[0], row_bytes, params, dispatch))

    def _error_slots(self, tensor: TensorInfo) -> tuple[int, Slots]:
        """The buffer of errors, and the tensor's places in it: one for each row of a piece, whichever part it is of."""
        if self._errors is None:
            self._errors = self._builder.buffer(ERRORS, 0, "state")
        if tensor.name not in self.errors:
            first = sum(slots.count for slots in self.errors.values())
            whole = self._checkpoint.tensors[tensor.name]
            row_bytes = whole.nbytes // whole.shape[0]
            self.errors[tensor.name] = Slots(first, min(whole.shape[0], rows_per_piece(row_bytes)))
            self._builder.enlarge(self._errors, 8 * (first + self.errors[tensor.name].count))
        return self._errors, self.errors[tensor.name]

    def _upload_vector(
        self, tensor: TensorInfo, data: int, first: int, head_dim: int, change: tuple[tuple[str, float], ...]
    ) -> None:
        how = import_of(tensor)
        if how.kernel != "import_dense":
            raise Unsupported(f"{tensor.name}: a vector of type {tensor.dtype}; wanted F32, F16 or BF16")
        params = (how.block_bytes, 1, first, 16, head_dim if tensor.pair_rows else 0)
        buffers = (("raw", self._raw), ("params", self._params), ("data", data))
        dispatch = Dispatch("import_vector", buffers, (Ceil("rows", 64), 1, 1), change, (("element", how.format),))
        self.uploads.append(Upload(tensor.source, tensor.offset, tensor.shape[0], how.block_bytes, params, dispatch))


def random_uploads(builder: Builder, params: int) -> list[Upload]:
    """Uploads that fill every weight buffer on the GPU instead of from a file, for the bench.

    Quantised data gets random bits, scales a small constant, vectors and dense weights ones scaled down.
    """
    uploads = []
    for number, buffer in enumerate(builder.buffers):
        if buffer.kind != "weight":
            continue
        scales = buffer.name.endswith(".scales")
        word = struct.unpack("<I", struct.pack("<2e", 0.004, 0.004) if scales else struct.pack("<f", 1.0))[0]
        random = not scales and f"{buffer.name}.scales" in {b.name for b in builder.buffers}
        constants = (("RANDOM", True),) if random else (("WORD", word),)
        dispatch = Dispatch("fill", (("params", params), ("data", number)), (16, Ceil("rows", 1), 1), constants)
        uploads.append(Upload(-1, 0, -(-buffer.size // 4096), 4096, (), dispatch))
    return uploads

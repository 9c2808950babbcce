"""A program for the GPU, as data: buffers, weights to upload, and plans of dispatches.

Model code writes it, devices read it, and neither knows the other. Everything here is a frozen
dataclass of numbers and strings, so a program can be printed, counted and tested with no GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from webllm.errors import Unsupported

Kind = Literal["weight", "constant", "state", "scratch", "staging"]
Value = Literal["rows", "length"]

MAX_GRID = 65535  # workgroups in one dimension
PIECE_BYTES = 4 << 20  # weights reach the GPU in pieces of at most this size


@dataclass(frozen=True)
class Buffer:
    """size in bytes. weight: filled by uploads; constant: by the host at load; state: kept between
    steps; scratch: only within a plan, may share memory; staging: freed after loading. most: bytes
    that it may grow to, while its contents are kept; 0 where it never does."""

    name: str
    size: int
    kind: Kind
    most: int = 0

    @property
    def largest(self) -> int:
        """Bytes that it may come to take."""
        return max(self.size, self.most)


@dataclass(frozen=True)
class Ceil:
    """ceil(value / divisor): a grid size known when a step is encoded, not when it is planned.

    value: "rows", the rows of this step, or "length", the positions that its last row attends to.
    """

    value: Value
    divisor: int

    def __call__(self, rows: int, length: int) -> int:
        return -(-(rows if self.value == "rows" else length) // self.divisor)

    def __str__(self) -> str:
        return f"ceil({self.value}/{self.divisor})" if self.divisor > 1 else self.value


@dataclass(frozen=True)
class Split:
    """Into how many parts to cut a product so that its tiles fill the GPU; 0 where that is fewer than `least`.

    wanted / (tiles * ceil(rows / tile)), from 1 to `most`: few rows make few tiles, and many parts.
    """

    tile: int  # rows of a tile
    tiles: int  # tiles side by side
    wanted: int  # tiles in all that fill the GPU
    most: int
    least: int = 1

    def __call__(self, rows: int, length: int) -> int:
        parts = max(1, min(self.most, self.wanted // (self.tiles * -(-rows // self.tile))))
        return parts if parts >= self.least else 0

    def __str__(self) -> str:
        return f"split({self.wanted}/{self.tiles}ceil(rows/{self.tile}))"


Size = int | Ceil | Split


@dataclass(frozen=True)
class Dispatch:
    """One kernel launch. `variants` picks a library file for a slot: ("weight", "q4_1")."""

    kernel: str
    buffers: tuple[tuple[str, int], ...]  # binding name, buffer number
    grid: tuple[Size, Size, Size]
    constants: tuple[tuple[str, float], ...] = ()
    variants: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raise `Unsupported` for a grid that no WebGPU device takes."""
        widest = max(size for size in (*self.grid, 1) if isinstance(size, int))
        if widest > MAX_GRID:
            raise Unsupported(f"{self.kernel} would need {widest:,} workgroups side by side; WebGPU takes {MAX_GRID:,}")

    @property
    def label(self) -> str:
        """The kernel and its choices: "matvec q4_1 none int8 rms_norm"."""
        return label_of(self.kernel, dict(self.variants))


def label_of(kernel: str, variants: Mapping[str, str]) -> str:
    """See `Dispatch.label`."""
    return " ".join([kernel, *variants.values()])


@dataclass(frozen=True)
class Plan:
    """Dispatches in order; `result` is the buffer that is read back after them, if any.

    rows: the most records that a step of this plan may have.
    """

    dispatches: tuple[Dispatch, ...]
    result: int | None = None
    rows: int = 1


@dataclass(frozen=True)
class Upload:
    """How one tensor gets from a file into buffers: range by range through an import kernel.

    The device cuts [offset, offset + rows * row_bytes) into pieces of whole rows. For each it writes
    the bytes to the buffer `raw`, the words (first row, rows, *params) to `params`, and runs
    `dispatch` with the piece's rows. source -1: nothing is read, the kernel makes the data.
    """

    source: int
    offset: int
    rows: int
    row_bytes: int
    params: tuple[int, ...]
    dispatch: Dispatch

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def rows_per_piece(self) -> int:
        """At most PIECE_BYTES and 65535 rows (the largest grid); even, so that pieces start on whole words."""
        return max(2, min(PIECE_BYTES // self.row_bytes, 65535) & ~1)


@dataclass(frozen=True)
class Program:
    """Buffers, the plans over them, and how they are filled at load.

    context: positions for which the buffers that grow have room once they have grown to their most. edits: WGSL to take
    in place of files of kernels_wgsl, by name; see `kernels.module`.
    """

    buffers: tuple[Buffer, ...]
    plans: Mapping[str, Plan]
    uploads: tuple[Upload, ...] = ()
    constants: Mapping[str, bytes] = field(default_factory=dict)  # buffer name -> contents at load
    context: int = 0
    edits: tuple[tuple[str, str], ...] = ()

    def index(self, name: str) -> int:
        """Number of the buffer called `name`."""
        for i, buffer in enumerate(self.buffers):
            if buffer.name == name:
                return i
        raise KeyError(f"no buffer {name!r} in the program")

    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes of all buffers of each kind, before any grows."""
        totals: dict[str, int] = {}
        for buffer in self.buffers:
            totals[buffer.kind] = totals.get(buffer.kind, 0) + buffer.size
        return totals


def renumber(plan: Plan, number: Mapping[int, int]) -> Plan:
    """The same plan over other buffers: `number` maps old buffer numbers to new ones."""
    dispatches = (replace(d, buffers=_renamed(d.buffers, number)) for d in plan.dispatches)
    return Plan(tuple(dispatches), None if plan.result is None else number[plan.result], plan.rows)


def renumber_upload(upload: Upload, number: Mapping[int, int]) -> Upload:
    """The same upload over other buffers."""
    dispatch = replace(upload.dispatch, buffers=_renamed(upload.dispatch.buffers, number))
    return replace(upload, dispatch=dispatch)


def _renamed(buffers: Iterable[tuple[str, int]], number: Mapping[int, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, number[buffer]) for name, buffer in buffers)

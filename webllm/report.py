"""What loading made of a model's weights, tensor by tensor: formats, bytes, and what quantising lost."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.plan import Slots
from webllm.weights import import_of, matrix_bytes

_LAYER = re.compile(r"\.\d+\.")
_HEADINGS = ("tensors", "n", "in the file", "on the GPU", "bits", "MB", "mean error", "worst")


@dataclass(frozen=True)
class TensorReport:
    """One tensor. error: relative, the root mean square of what is lost over that of the values in the file; None where
    nothing was quantised by webllm."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # in the file
    format: str  # on the GPU
    nbytes: int  # on the GPU
    error: float | None

    @property
    def bits(self) -> float:
        """Of a number, scales and padding included."""
        return 8 * self.nbytes / max(1, math.prod(self.shape))


@dataclass(frozen=True)
class Report:
    """All tensors, in the file's order. `str` of it is a table, in which those of all layers share a line."""

    rows: tuple[TensorReport, ...]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as JSON would have them."""
        return [{**asdict(row), "bits": row.bits} for row in self.rows]

    def __str__(self) -> str:
        groups: dict[tuple[str, str, str], list[TensorReport]] = {}
        for row in self.rows:
            groups.setdefault((_LAYER.sub(".*.", row.name), row.dtype, row.format), []).append(row)
        lines = [_HEADINGS, *(_line(*key, rows) for key, rows in groups.items())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(_aligned(line, widths) for line in lines)


class GpuWeights:
    """The weights of a loaded model, as `llm.weights`."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def report(self) -> Report:
        """What became of each tensor.

        print(llm.weights.report())
        max(row.error or 0 for row in llm.weights.report().rows)
        """
        return self._report


def report_of(checkpoint: Checkpoint, errors: Mapping[str, Slots], data: bytes) -> Report:
    """The report of a loaded checkpoint. errors: `Program.errors`; data: what the buffer `weights.ERRORS` holds."""
    sums = array("f")
    sums.frombytes(data)
    relative = {name: _relative(sums[2 * s.first : 2 * (s.first + s.count)]) for name, s in errors.items()}
    return Report(tuple(_row(tensor, relative.get(name)) for name, tensor in checkpoint.tensors.items()))


def _relative(pairs: array[float]) -> float:
    lost, there = sum(pairs[::2]), sum(pairs[1::2])
    return math.sqrt(lost / there) if there else 0.0


def _row(tensor: TensorInfo, error: float | None) -> TensorReport:
    if len(tensor.shape) == 2:
        how, nbytes = import_of(tensor).format, matrix_bytes(tensor)
    else:
        how, nbytes = "f32", 4 * math.prod(tensor.shape)
    return TensorReport(tensor.name, tensor.shape, tensor.dtype, how, nbytes, error)


def _line(name: str, dtype: str, form: str, rows: list[TensorReport]) -> tuple[str, ...]:
    nbytes, values = sum(row.nbytes for row in rows), sum(math.prod(row.shape) for row in rows)
    errors = [row.error for row in rows if row.error is not None]
    told = (f"{sum(errors) / len(errors):.2%}", f"{max(errors):.2%}") if errors else ("", "")
    return (name, str(len(rows)), dtype, form, f"{8 * nbytes / max(1, values):.2f}", f"{nbytes / 1e6:.1f}", *told)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    """Texts to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if i in (0, 2, 3) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()

"""What a KV cache makes of numbers, and where it puts them: plain Python to compare the kernels with."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def stored(row: Sequence[float], kind: str, of: str) -> list[float]:
    """One position's numbers of one head as a cache of this kind has them. of: "k" or "v"."""
    if kind != "int8":
        return list(struct.unpack(_format(len(row), kind), struct.pack(_format(len(row), kind), *row)))
    numbers, scales = _quantised(row, of)
    return [number * _float(scales[quarter]) for number, quarter in zip(numbers, _quarters(len(row)), strict=True)]


def page(rows: Rows, kind: str, of: str) -> bytes:
    """A page of one head: K by units of eight numbers, V by positions, then the scales."""
    scales: list[int] = []
    if kind == "int8":
        quantised = [_quantised(row, of) for row in rows]
        rows, scales = [numbers for numbers, _ in quantised], [scale for _, four in quantised for scale in four]
    units = [[row[at : at + 8] for at in range(0, len(row), 8)] for row in rows]
    ordered = zip(*units, strict=True) if of == "k" else units
    numbers = [number for line in ordered for unit in line for number in unit]
    return struct.pack(_format(len(numbers), kind), *numbers) + array("H", scales).tobytes()


def _format(count: int, kind: str) -> str:
    return f"<{count}{ {'f16': 'e', 'f32': 'f', 'int8': 'b'}[kind] }"


def _quarters(count: int) -> list[int]:
    """Which of its four scales each number has: those of whole units."""
    return [4 * (i // 8) // (count // 8) for i in range(count)]


def _quantised(row: Sequence[float], of: str) -> tuple[list[int], list[int]]:
    """Bytes, and four scales in bfloat16; V has the same four times."""
    quarters = _quarters(len(row))
    sizes = [[abs(x) for x, mine in zip(row, quarters, strict=True) if mine == quarter] for quarter in range(4)]
    largest = [max(size, default=0.0) for size in (sizes if of == "k" else [[abs(x) for x in row]] * 4)]
    scales = [_rounded_up(most / 127) for most in largest]
    steps = [_float(scales[quarter]) for quarter in quarters]
    return [round(x / step) if step else 0 for x, step in zip(row, steps, strict=True)], scales


def _rounded_up(number: float) -> int:
    """The bits of the bfloat16 at or above a positive number."""
    bits: int = struct.unpack("<I", struct.pack("<f", number))[0]
    return (bits + 0xFFFF) >> 16


def _float(bits: int) -> float:
    """The value of a bfloat16."""
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])

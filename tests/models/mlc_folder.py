"""Folders as MLC LLM writes them, by a quantiser of numpy's own; and what their bytes mean, in float64.

Written from the format alone: groups of 32 (or 40) columns with a scale, integers packed into words along the columns.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BITS = {"q4": (4, 32, 8), "q3": (3, 40, 10)}  # of an integer; columns of a group, of a word


@dataclass(frozen=True)
class Record:
    """Bytes of a tensor, and what the list says of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes


@dataclass
class Folder:
    """records: in the file's order. exact: float64, by the names that the tensors have before they are quantised."""

    quant: str
    records: list[Record] = field(default_factory=list)
    exact: dict[str, Array] = field(default_factory=dict)

    def add(self, name: str, values: Array) -> None:
        """A matrix `NAME.weight` is quantised where the folder's quantisation has bits; all else is floats."""
        short = self.quant[:2]
        if values.ndim == 2 and short in BITS:
            words, scales, self.exact[name] = quantise(values, short, wide="f32" in self.quant)
            bare = name.removesuffix(".weight")
            self.records.append(Record(f"{bare}.q_weight", words.shape, "uint32", words.tobytes()))
            self._add_floats(f"{bare}.q_scale", scales)
        else:
            self.exact[name] = self._add_floats(name, values)

    def _add_floats(self, name: str, values: Array) -> Array:
        """float32 is stored as bfloat16: the upper halves, rounded to nearest."""
        if "f32" in self.quant:
            halves = to_bf16(values)
            self.records.append(Record(name, values.shape, "float32", halves.tobytes()))
            return from_bf16(halves).astype(np.float64)
        halves = values.astype(np.float16)
        self.records.append(Record(name, values.shape, "float16", halves.tobytes()))
        return halves.astype(np.float64)

    def write(
        self, path: Path, chat: dict[str, Any], manifest: str = "tensor-cache.json", shard: int = 1 << 14
    ) -> Path:
        """Shards of at most `shard` bytes, but for tensors that are larger."""
        path.mkdir(parents=True, exist_ok=True)
        shards: list[list[Record]] = [[]]
        for record in self.records:
            if shards[-1] and sum(len(r.data) for r in shards[-1]) + len(record.data) > shard:
                shards.append([])
            shards[-1].append(record)
        listed = [_write_shard(path, number, records) for number, records in enumerate(shards)]
        metadata = {"ParamSize": len(self.records), "ParamBytes": 0.0, "BitsPerParam": 4.5}
        (path / manifest).write_text(json.dumps({"metadata": metadata, "records": listed}), encoding="utf-8")
        (path / "mlc-chat-config.json").write_text(json.dumps(chat), encoding="utf-8")
        return path


def quantise(values: Array, short: str, wide: bool = False) -> tuple[Array, Array, Array]:
    """Words, scales, and what they mean. wide: scales are float32, which the file holds as bfloat16."""
    bits, group, per_word = BITS[short]
    most = 2 ** (bits - 1) - 1
    rows, cols = values.shape
    groups = -(-cols // group)
    padded = np.zeros((rows, groups * group))
    padded[:, :cols] = values
    grouped = padded.reshape(rows, groups, group)
    scales = np.abs(grouped).max(-1) / most
    scales = from_bf16(to_bf16(scales)) if wide else scales.astype(np.float16).astype(np.float32)
    codes = np.clip(np.round(grouped / np.where(scales == 0, 1, scales)[..., None]) + most, 0, 2 * most).astype(
        np.uint32
    )
    spread = codes.reshape(rows, -1, per_word) << (bits * np.arange(per_word, dtype=np.uint32))
    exact = (codes.astype(np.float64) - most) * scales[..., None].astype(np.float64)
    return spread.sum(-1).astype(np.uint32), scales, exact.reshape(rows, -1)[:, :cols]


def to_bf16(values: Array) -> Array:
    words = values.astype(np.float32).view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(halves: Array) -> Array:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _write_shard(path: Path, number: int, records: list[Record]) -> dict[str, Any]:
    data, listed = b"", []
    for record in records:
        listed.append(
            {
                "name": record.name,
                "shape": [*record.shape],
                "dtype": record.dtype,
                "format": "f32-to-bf16",  # on every record, whatever its dtype
                "nbytes": len(record.data),
                "byteOffset": len(data),
            }
        )
        data += record.data
    file = f"params_shard_{number}.bin"
    (path / file).write_bytes(data)
    md5 = hashlib.md5(data).hexdigest()
    return {"dataPath": file, "format": "raw-shard", "nbytes": len(data), "md5sum": md5, "records": listed}

"""Runs ops on a real device and compares with numpy in float64.

A `Lab` records ops on the production path (Builder, Recorder, Program, device.load) and reads the
results back. Weights go through their import kernels, from bytes that the `gguf` package made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.ops import Builder, Cache, Heads, Limits, Matrix, Recorder, Tensor, Vector
from webllm.plan import PIECE_BYTES, Program
from webllm.program import rope_table, step_bytes
from webllm.weights import Weights

Array = NDArray[Any]
Record = tuple[int, int]  # token, position


class Bytes:
    """A `Source` in memory."""

    name = "memory"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    async def read(self, offset: int, size: int) -> bytes:
        assert offset + size <= self.size
        return self.data[offset : offset + size]

    def close(self) -> None: ...


def encode(values: Array, dtype: str) -> bytes:
    """Values as a GGUF tensor of that type."""
    kind = gguf.GGMLQuantizationType[dtype]
    return gguf.quants.quantize(values.astype(np.float32), kind).tobytes()


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """What those bytes mean, by the `gguf` package, in float64."""
    kind = gguf.GGMLQuantizationType[dtype]
    words = np.frombuffer(data, np.uint8).reshape(shape[0], -1) if len(shape) > 1 else np.frombuffer(data, np.uint8)
    return gguf.quants.dequantize(words, kind).reshape(shape).astype(np.float64)


class Lab:
    """One small program. rows: those of the step; more than one records the prefill kernels."""

    def __init__(self, device: Any, rows: int = 1, limits: Limits | None = None, short: bool = False) -> None:
        self.device = device
        self.rows = rows
        self.builder = Builder(limits or Limits.of(device.limits))
        self.rec = Recorder(self.builder, rows, short)
        self.constants: dict[str, bytes] = {}
        self._records: Sequence[Record] = [(0, 0)] * rows
        self._tensors: dict[str, TensorInfo] = {}
        self._data = b""
        raw = self.builder.buffer("raw", PIECE_BYTES + 4, "staging")
        params = self.builder.buffer("params", 32, "staging")
        self.weights = Weights(self.builder, Checkpoint("test", {}, self._tensors, []), raw, params)

    def tensor(self, name: str, values: Array, padded_rows: int | None = None) -> Tensor:
        """An input of the step, or a place for its output."""
        values = np.atleast_2d(values).astype(np.float32)
        size = max(len(values), padded_rows or 0) * values[0].size * 4
        buffer = self.builder.buffer(name, size, "state")
        self.constants[name] = values.tobytes()
        return Tensor(self.rec, buffer, values.shape)

    def add(self, name: str, values: Array, dtype: str = "F32", *, pair_rows: bool = False) -> Array:
        """Put a tensor into the checkpoint; returns the values that it has there, in float64."""
        data = encode(values, dtype)
        self._data += bytes(-len(self._data) % 32)
        self._tensors[name] = TensorInfo(name, values.shape, dtype, len(self._data), len(data), 0, pair_rows)
        self._data += data
        return decode(data, dtype, values.shape)

    def matrix(self, name: str, values: Array, dtype: str = "F32") -> tuple[Matrix, Array]:
        """A linear layer's weight and the values that it has on the GPU."""
        exact = self.add(name, values, dtype)
        return self.weights.matrix(name, shape=values.shape), exact

    def vector(self, name: str, values: Array) -> Vector:
        self.add(name, values)
        return self.weights.vector(name, size=values.size)

    def step(self, records: Sequence[Record]) -> int:
        """The step buffer, with room for so many records."""
        self._records = records
        self.constants["step"] = step_bytes(records)
        return self.builder.buffer("step", len(self.constants["step"]), "state")

    def cache(
        self,
        heads: Heads,
        context: int,
        records: Sequence[Record],
        kind: str,
        frequencies: list[float],
        pages: list[int],
    ) -> Cache:
        """An empty cache whose pages lie in the order given."""
        size = len(pages) * 32 * heads.kv_heads * heads.dim * (2 if kind == "f16" else 4)
        self.constants["pages"] = np.array(pages, np.uint32).tobytes()
        self.constants["rope"] = rope_table(frequencies, context)
        return Cache(
            self.builder.buffer("k", size, "state"),
            self.builder.buffer("v", size, "state"),
            kind,
            self.step(records),
            self.builder.buffer("pages", 4 * len(pages), "constant"),
            self.builder.buffer("rope", len(self.constants["rope"]), "constant"),
            context,
        )

    def run(self, *outputs: tuple[Any, type]) -> list[Array]:
        """Run the plan once and read buffers: (tensor or buffer number, numpy type) each."""
        return self.sweep([self._records], *outputs)[0]

    def sweep(self, steps: Iterable[Sequence[Record]], *outputs: tuple[Any, type]) -> list[list[Array]]:
        """The same for several steps, by the records of their rows. Kernels are compiled once."""
        return asyncio.run(self._sweep(steps, outputs))

    async def _sweep(
        self, steps: Iterable[Sequence[Record]], outputs: tuple[tuple[Any, type], ...]
    ) -> list[list[Array]]:
        buffers = tuple(self.builder.buffers)
        program = Program(buffers, {"step": self.rec.plan()}, tuple(self.weights.uploads), self.constants)
        loaded = await self.device.load(program, [Bytes(self._data)])
        try:
            return [await self._run(loaded, records, outputs) for records in steps]
        finally:
            self.device.unload(loaded)

    async def _run(self, loaded: Any, records: Sequence[Record], outputs: tuple[tuple[Any, type], ...]) -> list[Array]:
        for name, data in self.constants.items():  # what an earlier step changed in place
            self.device.write(loaded, name, data)
        if "step" in self.constants:
            self.device.write(loaded, "step", step_bytes(records))
        await self.device.submit(loaded, "step", len(records), max(position for _, position in records) + 1)
        return [await self._read(loaded, *output) for output in outputs]

    async def _read(self, loaded: Any, what: Any, kind: type) -> Array:
        buffer = self.builder.buffers[what if isinstance(what, int) else what.buffer]
        data = await self.device.read(loaded, buffer.name, buffer.size)
        values = np.frombuffer(data, kind)
        if isinstance(what, int):
            return values
        count = int(np.prod(what.shape))
        return values[:count].reshape(what.shape)


def each(*lists: Sequence[Any]) -> list[Any]:
    """Parameters: all combinations, `slow` but for a few in which every value occurs.

    SwiftShader takes 3 s to compile a tiled kernel, and each combination is another pipeline.
    """
    chosen = {tuple(i % len(values) for values in lists) for i in range(max(map(len, lists)))}
    return [
        pytest.param(*(v for _, v in pairs), marks=() if tuple(i for i, _ in pairs) in chosen else pytest.mark.slow)
        for pairs in product(*map(enumerate, lists))
    ]


def nmse(got: Array, wanted: Array) -> float:
    """Mean squared error over mean square."""
    wanted = np.asarray(wanted, np.float64)
    error = np.mean((got.astype(np.float64).reshape(wanted.shape) - wanted) ** 2)
    return float(error / max(np.mean(wanted**2), 1e-30))

"""Runs ops on a real device and compares with numpy in float64.

A `Lab` records ops on the production path (Builder, Recorder, Program, device.load) and reads the
results back. Weights go through their import kernels, from bytes that the `gguf` package made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import webllm.lab
from webllm.lab import Record
from webllm.limits import Limits
from webllm.ops import Matrix, Tensor, Vector
from webllm.weights import IMPORTS

Array = NDArray[Any]


# Types that the `gguf` package reads and cannot make -> where their blocks have numbers in f16
K_TYPES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
# Types whose scales become products rounded to f16, and what that may cost: the square of a relative error of 1e-3.
# Everything else is kept as it is.
ROUNDED, ROUNDING = ("Q4_K", "Q5_K"), 1e-6


def encode(values: Array, dtype: str) -> bytes:
    """Values as a GGUF tensor of that type; for K types random blocks, whatever the values."""
    if dtype in K_TYPES:
        return random_blocks(values.size, dtype)
    kind = gguf.GGMLQuantizationType[dtype]
    return gguf.quants.quantize(values.astype(np.float32), kind).tobytes()


def random_blocks(count: int, dtype: str) -> bytes:
    """Any bits are a valid block as long as its scales are numbers: of both signs here, some subnormal."""
    rng = np.random.default_rng(count)
    size, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
    blocks = rng.integers(0, 256, (count // size, nbytes), np.uint8)
    for at in K_TYPES[dtype]:
        scales = rng.uniform(2e-6, 2e-4, len(blocks)) * rng.choice([-1, 1], len(blocks))
        blocks[:, at : at + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    return blocks.tobytes()


def columns(cols: int, dtype: str) -> int:
    """`cols` in whole blocks of the type."""
    block = IMPORTS[dtype].block
    return -(-cols // block) * block


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """What those bytes mean, by the `gguf` package, in float64."""
    kind = gguf.GGMLQuantizationType[dtype]
    words = np.frombuffer(data, np.uint8).reshape(shape[0], -1) if len(shape) > 1 else np.frombuffer(data, np.uint8)
    return gguf.quants.dequantize(words, kind).reshape(shape).astype(np.float64)


class Lab(webllm.lab.Lab):
    """`webllm.lab.Lab` with arrays in and out, on one device."""

    def __init__(self, device: Any, rows: int = 1, limits: Limits | None = None, short: bool = False) -> None:
        super().__init__(limits or Limits.of(device.limits), rows, short)
        self.device = device

    def tensor(self, name: str, values: Array, padded_rows: int | None = None) -> Tensor:
        """An input of the step, or a place for its output."""
        values = np.atleast_2d(values).astype(np.float32)
        padding = bytes(max(0, (padded_rows or 0) - len(values)) * values[0].size * 4)
        tensor = super().tensor(name, values.tobytes() + padding, *values.shape)
        self.constants[name] = values.tobytes()
        return tensor

    def add(self, name: str, values: Array, dtype: str = "F32", **options: Any) -> Array:
        """Put a tensor into the checkpoint; returns the values that it has there, in float64."""
        data = encode(values, dtype)
        super().add(name, data, dtype, *values.shape, **options)
        return decode(data, dtype, values.shape)

    def matrix(self, name: str, values: Array, dtype: str = "F32") -> tuple[Matrix, Array]:
        """A linear layer's weight and the values that it has on the GPU."""
        exact = self.add(name, values, dtype)
        return self.weights.matrix(name, shape=values.shape), exact

    def vector(self, name: str, values: Array) -> Vector:
        self.add(name, values)
        return self.weights.vector(name, size=values.size)

    def run(self, *outputs: tuple[Any, type]) -> list[Array]:
        """Run the plan once and read buffers: (tensor or buffer number, numpy type) each."""
        return self.sweep([self._records], *outputs)[0]

    def sweep(self, steps: Iterable[Sequence[Record]], *outputs: tuple[Any, type]) -> list[list[Array]]:
        """The same for several steps, by the records of their rows. Kernels are compiled once."""
        numbers = [what if isinstance(what, int) else what.buffer for what, _ in outputs]
        read = asyncio.run(super().sweep(self.device, steps, *numbers))
        return [[_shaped(data, *output) for data, output in zip(step, outputs, strict=True)] for step in read]


def _shaped(data: bytes, what: Any, kind: type) -> Array:
    values = np.frombuffer(data, kind)
    return values if isinstance(what, int) else values[: int(np.prod(what.shape))].reshape(what.shape)


def each(*lists: Sequence[Any]) -> list[Any]:
    """Parameters: all combinations, `slow` but for a few in which every value occurs.

    SwiftShader takes 3 s to compile a tiled kernel, and each combination is another pipeline.
    """
    chosen = {tuple(i % len(values) for values in lists) for i in range(max(map(len, lists)))}
    return [
        pytest.param(*(v for _, v in pairs), marks=() if tuple(i for i, _ in pairs) in chosen else pytest.mark.slow)
        for pairs in product(*map(enumerate, lists))
    ]


def with_features(device: Any, limits: Limits | None = None, **features: bool) -> Limits:
    """`limits` (default: the device's) with optional features; skips the test where the device has them not."""
    full, limits = Limits.of(device.limits, device.features), limits or Limits.of(device.limits)
    missing = [name for name, wanted in features.items() if wanted and not getattr(full, name)]
    if missing:
        pytest.skip(f"{device.info.name} has no {', '.join(missing)}")
    return replace(limits, **features)


def nmse(got: Array, wanted: Array) -> float:
    """Mean squared error over mean square."""
    wanted = np.asarray(wanted, np.float64)
    error = np.mean((got.astype(np.float64).reshape(wanted.shape) - wanted) ** 2)
    return float(error / max(np.mean(wanted**2), 1e-30))

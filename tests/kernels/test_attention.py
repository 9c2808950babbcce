"""rope_cache, attention_split + attention_merge, attention_tile: against numpy in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import Array, Lab, each, nmse, with_features
from webllm import ops
from webllm.lab import Record
from webllm.ops import Cache, Heads

CONTEXT = 400  # more than one split, more than one table of low positions, not a multiple of a page
PAGES = [7, 2, 9, 0, 4, 11, 5, 12, 1, 3, 10, 6, 8]
FREQUENCY = 0.31


def rotate(x: Array, positions: Array, frequencies: Array) -> Array:
    """Rotate-half rope. x: [rows, heads, dim]."""
    angle = positions[:, None, None] * frequencies
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def attend(q: Array, k: Array, v: Array, positions: Array) -> Array:
    """q: [rows, heads, dim], k and v: [context, kv heads, dim] -> [rows, heads * dim]."""
    group = q.shape[1] // k.shape[1]
    score = np.einsum("rhd,phd->rhp", q, np.repeat(k, group, 1)) * q.shape[2] ** -0.5
    score[np.broadcast_to(np.arange(len(k)) > positions[:, None, None], score.shape)] = -np.inf
    p = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("rhp,phd->rhd", p / p.sum(-1, keepdims=True), np.repeat(v, group, 1)).reshape(len(q), -1)


def quantised(values: Array, of: str) -> tuple[Array, Array]:
    """Bytes [..., dim], and scales in bfloat16 [..., 4] as a cache of int8 has them for the quarters of "k" or "v"."""
    quarter = np.repeat(4 * np.arange(values.shape[-1] // 8) // (values.shape[-1] // 8), 8)
    size = np.abs(values).astype(np.float32)
    largest = np.stack([np.max(size * (quarter == q), -1) for q in range(4)], -1)
    if of == "v":
        largest[:] = largest.max(-1, keepdims=True)
    up = ((largest / np.float32(127)).view(np.uint32) + 0xFFFF) & 0xFFFF0000
    scales = up.view(np.float32).astype(np.float64)
    factors = np.take(1 / np.where(scales == 0, np.inf, scales), quarter, -1)
    return np.round(values * factors).astype(np.int8), (up >> 16).astype(np.uint16)


def restored(numbers: Array, scales: Array) -> Array:
    quarter = np.repeat(4 * np.arange(numbers.shape[-1] // 8) // (numbers.shape[-1] // 8), 8)
    each = (scales.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    restored: Array = numbers * np.take(each, quarter, -1)
    return restored


def stored(values: Array, kind: str, of: str) -> Array:
    """What a cache makes of the values."""
    return restored(*quantised(values, of)) if kind == "int8" else values.astype(NUMBERS[kind]).astype(np.float64)


NUMBERS = {"f16": np.float16, "f32": np.float32, "int8": np.int8}


def in_pages(values: Array, kind: str, of: str) -> bytes:
    """[context, kv heads, dim] -> the bytes of the cache `of` "k" or "v", by page table."""
    numbers, scales = quantised(values, of) if kind == "int8" else (values.astype(NUMBERS[kind]), None)
    units = _by_page(numbers.reshape(*values.shape[:2], -1, 8))
    blocks = (units.swapaxes(2, 3) if of == "k" else units).reshape(len(PAGES) * values.shape[1], -1)
    if scales is None:
        return blocks.tobytes()
    behind = _by_page(scales).reshape(len(blocks), -1)
    return np.concatenate([blocks.view(np.uint8), behind.view(np.uint8)], axis=1).tobytes()


def _by_page(values: Array) -> Array:
    """[context, kv heads, ...] -> [pages, kv heads, 32, ...]"""
    paged = np.zeros((len(PAGES), values.shape[1], 32, *values.shape[2:]), values.dtype)
    for position, value in enumerate(values):
        paged[PAGES[position // 32], :, position % 32] = value
    return paged


def from_pages(words: Array, heads: Heads, kind: str, of: str) -> Array:
    """The other way."""
    count, dim = len(PAGES) * heads.kv_heads, heads.dim
    blocks = words.reshape(count, -1).view(np.uint8)
    end = 32 * dim * np.dtype(NUMBERS[kind]).itemsize
    units = np.ascontiguousarray(blocks[:, :end]).view(NUMBERS[kind])
    shape = (dim // 8, 32, 8) if of == "k" else (32, dim // 8, 8)
    numbers = units.reshape(count, *shape)
    rows = (numbers.swapaxes(1, 2) if of == "k" else numbers).reshape(count, 32, dim).astype(np.float64)
    if kind == "int8":
        rows = restored(rows, np.ascontiguousarray(blocks[:, end:]).view(np.uint16).reshape(count, 32, 4))
    paged = rows.reshape(len(PAGES), heads.kv_heads, 32, dim)
    return np.stack([paged[PAGES[p // 32], :, p % 32] for p in range(CONTEXT)])


def make_cache(lab: Lab, heads: Heads, first: int, kind: str) -> tuple[Cache, Array]:
    frequencies = FREQUENCY ** np.arange(heads.dim // 2)
    return lab.cache(heads, CONTEXT, rows_from(first, lab.rows), kind, list(frequencies), PAGES), frequencies


SHAPES = [
    Heads(9, 3, 64),
    Heads(3, 3, 16),
    Heads(14, 2, 64),
    Heads(4, 2, 8),
    Heads(4, 1, 256),
    Heads(8, 2, 128),
    Heads(10, 1, 80),
]


KINDS = ["f16", "f32", "int8"]


def rows_from(first: int, rows: int) -> list[Record]:
    return [(0, first + i) for i in range(rows)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "first"), [(1, 0), (1, 399), (1, 256), (40, 0), (21, 250)])
@pytest.mark.parametrize("heads", SHAPES[:4], ids=str)
def test_rope_cache_rotates_and_stores(device: Any, rng: Any, heads: Heads, rows: int, first: int, kind: str) -> None:
    lab = Lab(device, rows)
    x = rng.standard_normal((rows, heads.heads + 2 * heads.kv_heads, heads.dim))
    cache, frequencies = make_cache(lab, heads, first, kind)
    qkv = lab.tensor("qkv", x.reshape(rows, -1))
    ops.store(qkv, heads, cache)
    got, k, v = lab.run((qkv, np.float32), (cache.k, np.uint32), (cache.v, np.uint32))
    positions = np.arange(first, first + rows)
    turned = rotate(x[:, : heads.heads + heads.kv_heads], positions, frequencies)
    h, tolerance = heads.heads, {"f32": 1e-7, "f16": 2e-7, "int8": 1e-4}[kind]
    assert nmse(got.reshape(x.shape)[:, :h], turned[:, :h]) < 1e-7
    assert nmse(from_pages(k, heads, kind, "k")[positions], turned[:, h:]) < tolerance
    assert nmse(from_pages(v, heads, kind, "v")[positions], x[:, h + heads.kv_heads :]) < tolerance


def check_attention(
    device: Any,
    rng: Any,
    heads: Heads,
    kind: str,
    steps: list[list[Record]],
    scale: float = 1,
    short: bool = False,
    subgroups: bool = False,
    workgroups: int = 256,
) -> None:
    """One program for all steps, as in an answer. Beyond a row's own position the cache holds other numbers.

    The projection is the identity, so what is added to the residual is the attention itself.
    """
    rows, width = max(map(len, steps)), heads.heads * heads.dim
    limits = replace(with_features(device, subgroups=subgroups), workgroups=workgroups)
    lab = Lab(device, rows, limits, short)
    x = scale * rng.standard_normal((rows, heads.heads + 2 * heads.kv_heads, heads.dim))
    residual = rng.standard_normal((rows, width))
    cache, frequencies = make_cache(lab, heads, 0, kind)
    k, v = (rng.standard_normal((CONTEXT, heads.kv_heads, heads.dim)) for _ in "kv")
    lab.constants |= {"k": in_pages(k, kind, "k"), "v": in_pages(v, kind, "v")}
    k, v = stored(k, kind, "k"), stored(v, kind, "v")
    o_proj, _ = lab.matrix("o_proj", np.eye(width))
    y = lab.tensor("y", residual, -(-rows // 64) * 64)
    ops.attend(lab.tensor("qkv", x.reshape(rows, -1)), heads, cache, o_proj, add_to=y)
    for step, (got,) in zip(steps, lab.sweep(steps, (y, np.float32)), strict=True):
        positions = np.array([position for _, position in step])
        own = x[: len(step)]
        q, own_k, own_v = np.split(own, [heads.heads, heads.heads + heads.kv_heads], axis=1)
        all_k, all_v = k.copy(), v.copy()
        all_k[positions] = stored(rotate(own_k, positions, frequencies), kind, "k")
        all_v[positions] = stored(own_v, kind, "v")
        attended = attend(rotate(q, positions, frequencies), all_k, all_v, positions)
        assert nmse(got[: len(step)] - residual[: len(step)], attended) < 1e-7, step[0]


@pytest.mark.parametrize(("heads", "kind", "subgroups"), each(SHAPES, KINDS, [True, False, False]), ids=str)
def test_decode_attends_to_every_position_up_to_its_own(
    device: Any, rng: Any, heads: Heads, kind: str, subgroups: bool
) -> None:
    steps = [rows_from(first, 1) for first in (0, 1, 127, 128, 399)]
    check_attention(device, rng, heads, kind, steps, subgroups=subgroups)


@pytest.mark.parametrize(("heads", "kind", "workgroups"), each(SHAPES, KINDS, [1, 4]), ids=str)
def test_a_split_takes_several_blocks_where_the_gpu_has_few_workgroups(
    device: Any, rng: Any, heads: Heads, kind: str, workgroups: int
) -> None:
    """The last split may have one block fewer than the first, or none."""
    steps = [rows_from(first, 1) for first in (0, 128, 255, 256, 399)]
    check_attention(device, rng, heads, kind, steps, workgroups=workgroups)


@pytest.mark.parametrize(("heads", "kind", "subgroups"), each(SHAPES, KINDS, [False, False, True]), ids=str)
def test_short_decode_merges_splits_inside_the_projection(
    device: Any, rng: Any, heads: Heads, kind: str, subgroups: bool
) -> None:
    steps = [rows_from(first, 1) for first in (0, 127, 128, 399)]
    check_attention(device, rng, heads, kind, steps, short=True, subgroups=subgroups)


@pytest.mark.parametrize(("heads", "kind"), each(SHAPES, KINDS), ids=str)
def test_prefill_attends_to_every_position_up_to_its_own(device: Any, rng: Any, heads: Heads, kind: str) -> None:
    steps = [(0, 2), (0, 17), (200, 33), (330, 70), (0, 1), (399, 1)]
    check_attention(device, rng, heads, kind, [rows_from(*step) for step in steps])


@pytest.mark.parametrize(("first", "rows", "workgroups"), [(300, 1, 256), (300, 1, 1), (280, 20, 256)])
def test_attention_survives_scores_that_overflow_a_plain_softmax(
    device: Any, rng: Any, first: int, rows: int, workgroups: int
) -> None:
    steps = [rows_from(first, rows)]
    check_attention(device, rng, Heads(2, 1, 16), "f32", steps, scale=300, workgroups=workgroups)

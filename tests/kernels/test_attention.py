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


def in_pages(values: Array, kind: str, of: str) -> bytes:
    """[context, kv heads, dim] -> the bytes of the cache `of` "k" or "v", by page table."""
    size = np.float16 if kind == "f16" else np.float32
    _, kv_heads, dim = values.shape
    paged = np.zeros((len(PAGES), kv_heads, 32, dim // 8, 8), size)
    for position, value in enumerate(values):
        paged[PAGES[position // 32], :, position % 32] = value.reshape(kv_heads, dim // 8, 8)
    return (paged.swapaxes(2, 3) if of == "k" else paged).tobytes()


def from_pages(words: Array, heads: Heads, kind: str, of: str) -> Array:
    size = np.float16 if kind == "f16" else np.float32
    shape = (32, heads.dim // 8) if of == "v" else (heads.dim // 8, 32)
    units = words.view(size).reshape(len(PAGES), heads.kv_heads, *shape, 8)
    paged = (units.swapaxes(2, 3) if of == "k" else units).reshape(len(PAGES), heads.kv_heads, 32, heads.dim)
    return np.stack([paged[PAGES[p // 32], :, p % 32] for p in range(CONTEXT)]).astype(np.float64)


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


def rows_from(first: int, rows: int) -> list[Record]:
    return [(0, first + i) for i in range(rows)]


@pytest.mark.parametrize("kind", ["f16", "f32"])
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
    h, tolerance = heads.heads, 1e-7 if kind == "f32" else 2e-7
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
    size = np.float16 if kind == "f16" else np.float32
    k, v = (rng.standard_normal((CONTEXT, heads.kv_heads, heads.dim)).astype(size).astype(np.float64) for _ in "kv")
    lab.constants |= {"k": in_pages(k, kind, "k"), "v": in_pages(v, kind, "v")}
    o_proj, _ = lab.matrix("o_proj", np.eye(width))
    y = lab.tensor("y", residual, -(-rows // 64) * 64)
    ops.attend(lab.tensor("qkv", x.reshape(rows, -1)), heads, cache, o_proj, add_to=y)
    for step, (got,) in zip(steps, lab.sweep(steps, (y, np.float32)), strict=True):
        positions = np.array([position for _, position in step])
        own = x[: len(step)]
        q, own_k, own_v = np.split(own, [heads.heads, heads.heads + heads.kv_heads], axis=1)
        all_k, all_v = k.copy(), v.copy()
        all_k[positions] = rotate(own_k, positions, frequencies).astype(size)
        all_v[positions] = own_v.astype(size)
        attended = attend(rotate(q, positions, frequencies), all_k, all_v, positions)
        assert nmse(got[: len(step)] - residual[: len(step)], attended) < 1e-7, step[0]


@pytest.mark.parametrize(("heads", "kind", "subgroups"), each(SHAPES, ["f16", "f32"], [True, False, False]), ids=str)
def test_decode_attends_to_every_position_up_to_its_own(
    device: Any, rng: Any, heads: Heads, kind: str, subgroups: bool
) -> None:
    steps = [rows_from(first, 1) for first in (0, 1, 127, 128, 399)]
    check_attention(device, rng, heads, kind, steps, subgroups=subgroups)


@pytest.mark.parametrize(("heads", "kind", "workgroups"), each(SHAPES, ["f16", "f32"], [1, 4]), ids=str)
def test_a_split_takes_several_blocks_where_the_gpu_has_few_workgroups(
    device: Any, rng: Any, heads: Heads, kind: str, workgroups: int
) -> None:
    """The last split may have one block fewer than the first, or none."""
    steps = [rows_from(first, 1) for first in (0, 128, 255, 256, 399)]
    check_attention(device, rng, heads, kind, steps, workgroups=workgroups)


@pytest.mark.parametrize(("heads", "kind", "subgroups"), each(SHAPES, ["f16", "f32"], [False, False, True]), ids=str)
def test_short_decode_merges_splits_inside_the_projection(
    device: Any, rng: Any, heads: Heads, kind: str, subgroups: bool
) -> None:
    steps = [rows_from(first, 1) for first in (0, 127, 128, 399)]
    check_attention(device, rng, heads, kind, steps, short=True, subgroups=subgroups)


@pytest.mark.parametrize(("heads", "kind"), each(SHAPES, ["f16", "f32"]), ids=str)
def test_prefill_attends_to_every_position_up_to_its_own(device: Any, rng: Any, heads: Heads, kind: str) -> None:
    steps = [(0, 2), (0, 17), (200, 33), (330, 70), (0, 1), (399, 1)]
    check_attention(device, rng, heads, kind, [rows_from(*step) for step in steps])


@pytest.mark.parametrize(("first", "rows", "workgroups"), [(300, 1, 256), (300, 1, 1), (280, 20, 256)])
def test_attention_survives_scores_that_overflow_a_plain_softmax(
    device: Any, rng: Any, first: int, rows: int, workgroups: int
) -> None:
    steps = [rows_from(first, rows)]
    check_attention(device, rng, Heads(2, 1, 16), "f32", steps, scale=300, workgroups=workgroups)

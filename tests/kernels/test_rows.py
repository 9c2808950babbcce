"""embed, rms_norm, argmax_tile, next_token, import_vector, fill: against numpy."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import ROUNDED, ROUNDING, Lab, columns, nmse, with_features
from webllm import ops
from webllm.limits import Limits
from webllm.ops import RING, Builder, Norm, Recorder
from webllm.plan import Program
from webllm.weights import IMPORTS, random_uploads


@pytest.mark.parametrize("dtype", IMPORTS)
@pytest.mark.parametrize("cols", [32, 576])
def test_embed_looks_tokens_up_in_every_format(device: Any, rng: Any, dtype: str, cols: int) -> None:
    tokens = [0, 36, 5, 5]
    lab = Lab(device, len(tokens))
    table, exact = lab.matrix("table", rng.standard_normal((37, columns(cols, dtype))), dtype)
    step = lab.step([(token, i) for i, token in enumerate(tokens)])
    (got,) = lab.run((ops.embed(lab.rec, table, step), np.float32))
    assert nmse(got, exact[tokens]) < (ROUNDING if dtype in ROUNDED else 1e-12)


@pytest.mark.parametrize("dtype", IMPORTS)
def test_every_weight_has_the_value_that_the_file_gives_it(
    device: Any, rng: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploaded in pieces, the last of an odd number of rows. Equal but for f32's own rounding, and `ROUNDED` types."""
    rows, cols = 43, columns(224, dtype)
    monkeypatch.setattr("webllm.plan.PIECE_BYTES", 12 * cols // IMPORTS[dtype].block * IMPORTS[dtype].block_bytes)
    lab = Lab(device, rows)
    table, exact = lab.matrix("table", rng.standard_normal((rows, cols)), dtype)
    step = lab.step([(token, 0) for token in range(rows)])
    (got,) = lab.run((ops.embed(lab.rec, table, step), np.float32))
    assert [u.rows_per_piece for u in lab.weights.uploads] == [12]
    if dtype in ROUNDED:
        assert max(nmse(g, e) for g, e in zip(got, exact, strict=True)) < ROUNDING
    else:
        assert np.abs(got - exact).max() <= 1e-7 * np.abs(exact).max()


def test_embed_finds_tokens_in_a_table_of_several_parts(device: Any, rng: Any) -> None:
    tokens = [0, 31, 32, 69]
    lab = Lab(device, len(tokens), Limits(storage_binding=16 * 64 * 2))
    table, exact = lab.matrix("table", rng.standard_normal((70, 64)), "Q8_0")
    (got,) = lab.run((ops.embed(lab.rec, table, lab.step([(t, 0) for t in tokens])), np.float32))
    assert len(table.parts) > 2
    assert nmse(got, exact[tokens]) < 1e-12


@pytest.mark.parametrize("subgroups", [False, True])
@pytest.mark.parametrize("cols", [4, 172, 576, 4096])
@pytest.mark.parametrize("rows", [1, 3])
def test_rms_norm_scales_rows_to_unit_size(device: Any, rng: Any, rows: int, cols: int, subgroups: bool) -> None:
    lab = Lab(device, rows, with_features(device, subgroups=subgroups))
    x, weight = 100 * rng.standard_normal((rows, cols)), rng.standard_normal(cols)
    y = ops.rms_norm(lab.tensor("x", x), Norm(lab.vector("w", weight), 1e-5))
    (got,) = lab.run((y, np.float32))
    assert nmse(got, x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-5) * weight) < 1e-7


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_vectors_become_f32_whatever_they_were(device: Any, rng: Any, dtype: str) -> None:
    lab = Lab(device)
    exact = [lab.add(name, rng.standard_normal(size), dtype) for name, size in [("a", 66), ("b", 7)]]
    vector = lab.weights.vector("a", "b", size=73)
    (got,) = lab.run((vector.buffer, np.float32))
    assert np.array_equal(got, np.concatenate(exact).astype(np.float32))


@pytest.mark.parametrize("cols", [1, 512, 1024, 1025, 49152, 151936])
def test_next_token_takes_the_largest_logit_and_moves_on(device: Any, rng: Any, cols: int) -> None:
    lab = Lab(device)
    logits = rng.standard_normal(cols)
    result = lab.builder.buffer("result", 4 * RING, "state")
    step = lab.step([(11, 5)])
    ops.next_token(lab.tensor("logits", logits), step, result)
    ring, record = lab.run((result, np.uint32), (step, np.uint32))
    assert ring[0] == np.argmax(logits)
    assert record[4:8].tolist() == [np.argmax(logits), 6, 0, 1]


@pytest.mark.parametrize("at", [[0, 5], [1023, 1024], [700, 3000, 48000]])
def test_of_equal_logits_the_lowest_token_wins(device: Any, at: list[int]) -> None:
    lab = Lab(device)
    logits = np.full(49152, -1.0)
    logits[at] = 2.5
    result = lab.builder.buffer("result", 4 * RING, "state")
    ops.next_token(lab.tensor("logits", logits), lab.step([(0, 0)]), result)
    (ring,) = lab.run((result, np.uint32))
    assert ring[0] == min(at)


def test_random_weights_differ_and_their_scales_are_small(device: Any) -> None:
    builder = Builder(Limits())
    params = builder.buffer("params", 32, "staging")
    data, scales = builder.buffer("w", 10_000_000, "weight"), builder.buffer("w.scales", 1000, "weight")
    ones = builder.buffer("norm", 12, "weight")
    plan = Recorder(builder, 1).plan()
    program = Program(tuple(builder.buffers), {"none": plan}, tuple(random_uploads(builder, params)))

    async def read_all() -> list[bytes]:
        loaded = await device.load(program, [])
        read = [
            await device.read(loaded, builder.buffers[b].name, builder.buffers[b].size) for b in (data, scales, ones)
        ]
        device.unload(loaded)
        return read

    got = asyncio.run(read_all())
    words = np.frombuffer(got[0], np.uint32)
    assert len(np.unique(words)) > 0.99 * len(words)
    assert np.allclose(np.frombuffer(got[1], np.float16), 0.004, rtol=1e-3)
    assert np.frombuffer(got[2], np.float32).tolist() == [1, 1, 1]

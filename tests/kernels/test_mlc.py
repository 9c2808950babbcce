"""MLC's integers with scales that lie apart, brought to our formats: every value as numpy computes it in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import Array, Lab, nmse
from tests.models.mlc_folder import quantise, to_bf16
from webllm import ops
from webllm.limits import Limits
from webllm.ops import Matrix

GROUPS = {"MLC_Q4": 32, "MLC_Q3": 40}


def add(lab: Lab, name: str, values: Array, dtype: str, scales: str = "F16") -> Array:
    """Quantise values and put them into the lab's checkpoint; returns what they mean there."""
    words, factors, exact = quantise(values, dtype[-2:].lower(), wide=scales != "F16")
    put_in(lab, name, words, factors, dtype, scales, values.shape)
    return exact


def put_in(lab: Lab, name: str, words: Array, factors: Array, dtype: str, scales: str, shape: tuple[int, ...]) -> None:
    stored = {"F16": lambda f: f.astype(np.float16), "BF16": to_bf16, "F32": lambda f: f.astype(np.float32)}[scales](
        factors
    )
    super(Lab, lab).add(name, words.tobytes(), dtype, *shape, scales=(stored.tobytes(), scales))


def matrix(lab: Lab, values: Array, dtype: str, scales: str = "F16") -> tuple[Matrix, Array]:
    exact = add(lab, "w", values, dtype, scales)
    return lab.weights.matrix("w", shape=values.shape), exact


def looked_up(lab: Lab, table: Matrix) -> Array:
    """All rows of the table as they are on the GPU."""
    (got,) = lab.run((ops.embed(lab.rec, table, lab.step([(row, 0) for row in range(table.rows)])), np.float32))
    return got


@pytest.mark.parametrize("dtype", GROUPS)
@pytest.mark.parametrize("scales", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("cols", [72, 172, 320])
def test_every_weight_has_the_value_that_the_file_gives_it(
    device: Any, rng: Any, dtype: str, scales: str, cols: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploaded in pieces, of columns that end within a unit, a group and a word. Equal but for f32's own rounding."""
    rows = 43
    monkeypatch.setattr("webllm.plan.PIECE_BYTES", 12 * 16 * -(-cols // GROUPS[dtype]))
    lab = Lab(device, rows)
    table, exact = matrix(lab, rng.standard_normal((rows, cols)), dtype, scales)
    got = looked_up(lab, table)
    assert lab.weights.uploads[-1].rows_per_piece == 12
    assert np.abs(got - exact).max() <= 1e-7 * np.abs(exact).max()


def test_a_fifteen_which_the_quantiser_never_writes_is_a_fourteen(device: Any) -> None:
    lab = Lab(device, 2)
    words = np.array([[0xFEDCBA98, 0x76543210, 0xFFFFFFFF, 0]] * 2, np.uint32)
    put_in(lab, "w", words, np.full((2, 1), 0.5), "MLC_Q4", "F16", (2, 32))
    codes = [*range(8, 16), *range(8), *[15] * 8, *[0] * 8]
    got = looked_up(lab, lab.weights.matrix("w", shape=(2, 32)))
    assert got.tolist() == [[0.5 * (min(code, 14) - 7) for code in codes]] * 2


@pytest.mark.parametrize("dtype", GROUPS)
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_products_are_those_of_the_values(device: Any, rng: Any, dtype: str, rows: int) -> None:
    for cols in (172, 320):
        lab = Lab(device, rows, Limits(tiles=1))
        x = rng.standard_normal((rows, cols))
        w, exact = matrix(lab, rng.standard_normal((48, cols)), dtype)
        (got,) = lab.run((ops.linear(lab.tensor("x", x, 256), w), np.float32))
        assert nmse(got[:rows], x @ exact.T) < 1e-7


@pytest.mark.parametrize("dtype", GROUPS)
def test_a_matrix_beyond_the_binding_limit_is_cut_with_its_scales(device: Any, rng: Any, dtype: str) -> None:
    lab = Lab(device, 70, Limits(storage_binding=16 * 16 * 10 * 2))
    table, exact = matrix(lab, rng.standard_normal((70, 320)), dtype)
    assert len(table.parts) == 3
    assert np.abs(looked_up(lab, table) - exact).max() <= 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", GROUPS)
def test_gate_and_up_alternate_in_tiles_with_their_scales(device: Any, rng: Any, dtype: str) -> None:
    lab, x = Lab(device), rng.standard_normal((1, 172))
    gate, up = (add(lab, name, rng.standard_normal((40, 172)), dtype) for name in ("gate", "up"))
    weight = lab.weights.glu("gate", "up", (40, 172))
    ones = ops.Norm(lab.vector("norm", np.ones(172)), 0.0)
    y = ops.glu(lab.tensor("x", x, 64), weight, ones)
    (got,) = lab.run((y, np.float32))
    h = x / np.sqrt(np.mean(x**2))
    a = h @ gate.T
    assert weight.glu and nmse(got, a / (1 + np.exp(-a)) * (h @ up.T)) < 1e-7

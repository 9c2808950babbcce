"""Every matvec and matmul, sum_parts, act_mul and pack: against numpy on the dequantised weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import K_TYPES, ROUNDED, ROUNDING, Array, Lab, columns, each, nmse, with_features
from webllm import ops
from webllm.limits import Limits
from webllm.ops import Matrix, Norm
from webllm.weights import IMPORTS

QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *K_TYPES]
DENSE = ["F32", "F16", "BF16"]
SHAPES = [(5, 32), (48, 576), (33, 96), (130, 1536)]


def test_every_tensor_type_is_tested_here() -> None:
    assert set(QUANTISED + DENSE) == set(IMPORTS)


def tolerance(dtype: str) -> float:
    return ROUNDING if dtype in ROUNDED else 1e-7


def rows_of(count: int) -> list[tuple[int, int]]:
    return [(0, 0)] * count


def check_linear(
    device: Any, rng: Any, dtype: str, shape: tuple[int, int], rows: list[int], limits: Limits | None = None
) -> None:
    """A matrix product for several numbers of rows; one row alone is recorded as decode."""
    lab, cols = Lab(device, max(rows), limits), columns(shape[1], dtype)
    x = rng.standard_normal((max(rows), cols))
    w, exact = lab.matrix("w", rng.standard_normal((shape[0], cols)), dtype)
    y = ops.linear(lab.tensor("x", x, 256), w)
    worst = 1e-6 if lab.builder.limits.f16 and lab.rows > 1 else tolerance(dtype)
    x = in_int8(x) if ops.multiplies_integers(lab.rec, w) else x
    for count, (got,) in zip(rows, lab.sweep(map(rows_of, rows), (y, np.float32)), strict=True):
        assert nmse(got[:count], x[:count] @ exact.T) < worst


def in_int8(x: Array) -> Array:
    """What 8-bit activations come to: 16 columns share a scale, by which their largest is 127."""
    groups = x.astype(np.float32).reshape(len(x), -1, 16)
    most = np.abs(groups).max(axis=2, keepdims=True)
    codes = np.floor(groups * (1 / most) * np.float32(127) + np.float32(0.5))
    return (codes.astype(np.float64) * (most / np.float64(127))).reshape(x.shape)


@pytest.mark.parametrize("dtype", QUANTISED + DENSE)
@pytest.mark.parametrize("shape", SHAPES)
def test_matvec_multiplies_every_format(device: Any, rng: Any, dtype: str, shape: tuple[int, int]) -> None:
    check_linear(device, rng, dtype, shape, [1])


# A GPU that few tiles keep busy, one for which products are cut, and a CPU.
WHOLE, PARTS, SMALL = Limits(tiles=1), Limits(tiles=64), Limits(small=True)


@pytest.mark.parametrize(("dtype", "shape", "limits"), each(QUANTISED + DENSE, SHAPES, [WHOLE, PARTS, SMALL]))
def test_matmul_multiplies_every_format(
    device: Any, rng: Any, dtype: str, shape: tuple[int, int], limits: Limits
) -> None:
    check_linear(device, rng, dtype, shape, [3, 130, 70, 1], limits)


@pytest.mark.parametrize(("dtype", "shape"), each(QUANTISED + DENSE, SHAPES))
def test_matmul_multiplies_in_halves(device: Any, rng: Any, dtype: str, shape: tuple[int, int]) -> None:
    """Inputs keep 11 bits: each is off by up to 2^-12, and the errors of a sum are independent."""
    check_linear(device, rng, dtype, shape, [3, 130, 70, 1], with_features(device, WHOLE, f16=True))


def test_activations_beyond_the_largest_half_do_not_become_infinite(device: Any) -> None:
    lab = Lab(device, 2, with_features(device, WHOLE, f16=True))
    w, _ = lab.matrix("w", np.full((4, 32), 0.5), "F32")
    (got,) = lab.run((ops.linear(lab.tensor("x", np.full((2, 32), 1e6), 64), w), np.float32))
    assert np.array_equal(got, np.full((2, 4), 65504 * 16.0))


@pytest.mark.parametrize("cols", [4, 36, 172, 68])
def test_matvec_columns_need_not_fill_a_unit(device: Any, rng: Any, cols: int) -> None:
    check_linear(device, rng, "F32", (20, cols), [1])


@pytest.mark.parametrize("cols", [4, 172])
@pytest.mark.parametrize("limits", [WHOLE, SMALL])
def test_matmul_columns_need_not_fill_a_unit(device: Any, rng: Any, cols: int, limits: Limits) -> None:
    check_linear(device, rng, "F32", (20, cols), [3], limits)


INT8 = {
    "whole": WHOLE,
    "parts": PARTS,
    "no room for a row": Limits(workgroup_storage=512),
    "32 rows a workgroup": Limits(workgroups=1),
}


@pytest.mark.parametrize("limits", INT8.values(), ids=INT8)
@pytest.mark.parametrize("dtype", QUANTISED)
def test_matvec_multiplies_8_bit_activations(device: Any, rng: Any, dtype: str, limits: Limits) -> None:
    check_linear(device, rng, dtype, (45, 576), [1], with_features(device, limits, int8=True))


@pytest.mark.parametrize(("dtype", "shape", "limits"), each(QUANTISED, SHAPES, [WHOLE, PARTS]))
def test_matmul_multiplies_8_bit_activations(
    device: Any, rng: Any, dtype: str, shape: tuple[int, int], limits: Limits
) -> None:
    check_linear(device, rng, dtype, shape, [3, 130, 70, 1], with_features(device, limits, int8=True))


@pytest.mark.parametrize("limits", [Limits(), INT8["32 rows a workgroup"]], ids=["few rows", "32 rows a workgroup"])
@pytest.mark.parametrize("dtype", QUANTISED)
def test_matmul_of_few_rows_multiplies_8_bit_activations(device: Any, rng: Any, dtype: str, limits: Limits) -> None:
    check_linear(device, rng, dtype, (45, 576), [8, 2, 5], with_features(device, limits, int8=True))


@pytest.mark.parametrize("dtype", DENSE)
def test_weights_that_are_no_integers_take_floats(device: Any, rng: Any, dtype: str) -> None:
    check_linear(device, rng, dtype, (45, 576), [1], with_features(device, int8=True))


@pytest.mark.parametrize("value", [0.0, 1e-20, 1e36])
def test_8_bit_activations_of_any_size(device: Any, value: float) -> None:
    """All zero, nearly so, and nearly too large."""
    lab = Lab(device, 1, with_features(device, int8=True))
    w, exact = lab.matrix("w", np.full((4, 32), 1e-4), "Q8_0")
    (got,) = lab.run((ops.linear(lab.tensor("x", np.full((1, 32), value)), w), np.float32))
    assert np.allclose(got, value * exact.sum(axis=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_an_activation_that_is_not_a_number_is_not_lost(device: Any, value: float, rows: int) -> None:
    """The engine finds overflow by logits that are all NaN."""
    lab = Lab(device, rows, with_features(device, int8=True))
    w, _ = lab.matrix("w", np.ones((4, 64)), "Q8_0")
    x = np.ones((rows, 64))
    x[:, 37] = value
    (got,) = lab.run((ops.linear(lab.tensor("x", x, 64), w), np.float32))
    assert not np.isfinite(got).any()


def test_packed_rows_are_refused_where_they_cannot_be_multiplied(device: Any) -> None:
    lab = Lab(device, 1, with_features(device, int8=True))
    x, narrow = lab.tensor("x", np.ones((1, 64))), lab.tensor("narrow", np.ones((1, 40)))
    w, _ = lab.matrix("w", np.ones((4, 64)), "Q8_0")
    dense, _ = lab.matrix("dense", np.ones((4, 64)), "F32")
    norm = Norm(lab.vector("n", np.ones(64)), 1e-5)
    lab.add("gate", np.ones((16, 64)), "Q8_0")
    lab.add("up", np.ones((16, 64)), "Q8_0")
    with pytest.raises(ValueError, match="no norm"):
        ops.linear(ops.pack(x), w, norm=norm)
    with pytest.raises(ValueError, match="a weight of integers"):
        ops.linear(ops.pack(x), dense)
    with pytest.raises(ValueError, match="units of 32"):
        ops.pack(narrow)
    with pytest.raises(ValueError, match=r"16 columns, got \[4, 64\]"):
        ops.glu(x, lab.weights.glu("gate", "up", (16, 64)), norm, to=w)


@pytest.mark.parametrize("rows", [1, 66])
@pytest.mark.parametrize("limits", INT8.values(), ids=INT8)
def test_feed_forward_packs_what_is_between_its_products(device: Any, rng: Any, rows: int, limits: Limits) -> None:
    lab = Lab(device, rows, with_features(device, limits, int8=True))
    x, weight = rng.standard_normal((rows, 64)), rng.standard_normal(64)
    gate, up = (lab.add(name, rng.standard_normal((96, 64)), "Q4_0") for name in ("gate", "up"))
    down, exact = lab.matrix("down", rng.standard_normal((40, 96)), "Q4_1")
    hidden = ops.glu(
        lab.tensor("x", x, 128), lab.weights.glu("gate", "up", (96, 64)), Norm(lab.vector("n", weight), 1e-5), down
    )
    (got,) = lab.run((ops.linear(hidden, down), np.float32))
    normal = in_int8(normalised(x, weight))
    g, u = normal @ gate.T, normal @ up.T
    assert isinstance(hidden, ops.Packed)
    assert nmse(got, in_int8(g / (1 + np.exp(-g)) * u) @ exact.T) < 1e-5  # a rounding that fell the other way


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 66])
def test_linear_adds_bias_and_residual_in_place(device: Any, rng: Any, rows: int, int8: bool) -> None:
    lab = Lab(device, rows, with_features(device, int8=int8))
    x, bias, residual = rng.standard_normal((rows, 64)), rng.standard_normal(40), rng.standard_normal((rows, 40))
    w, exact = lab.matrix("w", rng.standard_normal((40, 64)), "Q4_1")
    y = lab.tensor("y", residual, 128)
    ops.linear(lab.tensor("x", x, 128), w, bias=lab.vector("b", bias), add_to=y)
    (got,) = lab.run((y, np.float32))
    assert nmse(got, (in_int8(x) if int8 else x) @ exact.T + bias + residual) < 1e-7


def normalised(x: Array, weight: Array) -> Array:
    return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-5) * weight


@pytest.mark.parametrize(
    ("rows", "limits"),
    [(1, Limits()), (1, Limits(workgroup_storage=512)), (5, Limits())],
    ids=["folded", "apart", "prefill"],
)
def test_linear_normalises_its_input(device: Any, rng: Any, rows: int, limits: Limits) -> None:
    lab = Lab(device, rows, limits)
    x, weight = rng.standard_normal((rows, 576)), rng.standard_normal(576)
    w, exact = lab.matrix("w", rng.standard_normal((24, 576)), "Q4_0")
    y = ops.linear(lab.tensor("x", x, 64), w, norm=Norm(lab.vector("n", weight), 1e-5))
    (got,) = lab.run((y, np.float32))
    assert nmse(got, normalised(x, weight) @ exact.T) < 1e-7


def check_glu(
    device: Any,
    rng: Any,
    dtype: str,
    width: int,
    rows: list[int],
    up_dtype: str | None = None,
    limits: Limits | None = None,
) -> Matrix:
    """Both products for several numbers of rows. up_dtype: another type than gate's. Returns the weight."""
    lab, cols = Lab(device, max(rows), limits), columns(64, dtype)
    x, weight = rng.standard_normal((max(rows), cols)), rng.standard_normal(cols)
    gate = lab.add("gate", rng.standard_normal((width, cols)), dtype)
    up = lab.add("up", rng.standard_normal((width, cols)), up_dtype or dtype)
    w = lab.weights.glu("gate", "up", (width, cols))
    y = ops.glu(lab.tensor("x", x, 128), w, Norm(lab.vector("n", weight), 1e-5))
    for count, (got,) in zip(rows, lab.sweep(map(rows_of, rows), (y, np.float32)), strict=True):
        normal = normalised(x[:count], weight)
        g, u = normal @ gate.T, normal @ up.T
        assert nmse(got[:count], g / (1 + np.exp(-g)) * u) < tolerance(dtype)
    return w


@pytest.mark.parametrize("width", [16, 40, 172])
@pytest.mark.parametrize("dtype", QUANTISED + DENSE)
def test_glu_gates_with_silu_in_decode(device: Any, rng: Any, width: int, dtype: str) -> None:
    check_glu(device, rng, dtype, width, [1])


@pytest.mark.parametrize(("dtype", "width"), each(["Q4_0", "Q8_0", "F32"], [172, 16, 40]))
def test_glu_gates_with_silu_in_prefill(device: Any, rng: Any, width: int, dtype: str) -> None:
    check_glu(device, rng, dtype, width, [3, 65])


@pytest.mark.parametrize("rows", [[1], [3, 65]], ids=["decode", "prefill"])
def test_gate_and_up_of_two_types_are_stacked(device: Any, rng: Any, rows: list[int]) -> None:
    w = check_glu(device, rng, "Q4_0", 172, rows, up_dtype="Q8_0")
    assert [(part.format, part.first) for part in w.parts] == [("q4_0", 0), ("q8_0", 172)] and not w.glu


@pytest.mark.parametrize("rows", [[1], [3, 65]], ids=["decode", "prefill"])
def test_gate_and_up_beyond_the_binding_limit_are_cut_between_tiles(device: Any, rng: Any, rows: list[int]) -> None:
    """A row is 32 bytes: 48 of each fit into a binding, and 108 are 48, 48 and 12, the last filled up to 16."""
    w = check_glu(device, rng, "Q4_0", 108, rows, limits=Limits(storage_binding=2 * 48 * 32 + 1000))
    assert [(part.first, part.rows) for part in w.parts] == [(0, 96), (96, 96), (192, 32)] and w.glu


def test_parts_of_mixed_formats_make_one_matrix(device: Any, rng: Any) -> None:
    lab = Lab(device)
    x = rng.standard_normal((1, 64))
    exact = [
        lab.add(n, rng.standard_normal((r, 64)), t)
        for n, r, t in [("q", 24, "Q4_1"), ("k", 8, "Q4_1"), ("v", 8, "Q8_0")]
    ]
    w = lab.weights.matrix("q", "k", "v", shape=(40, 64))
    (got,) = lab.run((ops.linear(lab.tensor("x", x), w), np.float32))
    assert len(w.parts) == 2
    assert nmse(got, x @ np.concatenate(exact).T) < 1e-7


def test_a_matrix_beyond_the_binding_limit_is_cut_by_rows(device: Any, rng: Any) -> None:
    lab = Lab(device, limits=Limits(storage_binding=64 * 16 * 2))
    x = rng.standard_normal((1, 64))
    w, exact = lab.matrix("w", rng.standard_normal((150, 64)), "Q4_0")
    (got,) = lab.run((ops.linear(lab.tensor("x", x), w), np.float32))
    assert [part.rows for part in w.parts] == [64, 64, 22]
    assert nmse(got, x @ exact.T) < 1e-7


def test_rows_stored_in_rotary_pairs_are_moved_half_a_head_apart(device: Any, rng: Any) -> None:
    lab = Lab(device)
    x, heads, dim = rng.standard_normal((1, 32)), 3, 16
    exact = lab.add("q", rng.standard_normal((heads * dim, 32)), "Q4_0", pair_rows=True)
    w = lab.weights.matrix("q", shape=(heads * dim, 32), head_dim=dim)
    (got,) = lab.run((ops.linear(lab.tensor("x", x), w), np.float32))
    apart = exact.reshape(heads, dim // 2, 2, 32).swapaxes(1, 2).reshape(heads * dim, 32)
    assert nmse(got, x @ apart.T) < 1e-7

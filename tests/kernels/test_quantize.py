"""Weights quantised on the GPU, against a least-squares fit of numpy's in float64, and GGUF's own rounding."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.harness import Lab, nmse, with_features
from webllm import ops
from webllm.limits import Limits
from webllm.weights import ERRORS

Array = NDArray[Any]
ROWS = 21


def quantise(lab: Lab, values: Array, dtype: str, to: str) -> tuple[Array, Array, float]:
    """The values in the file; those on the GPU, looked up row by row; and the relative error that it tells."""
    exact = lab.add("w", values, dtype, store_as=to)
    table = lab.weights.matrix("w", shape=values.shape)
    y = ops.embed(lab.rec, table, lab.step([(token, 0) for token in range(len(values))]))
    number = next(i for i, buffer in enumerate(lab.builder.buffers) if buffer.name == ERRORS)
    got, errors = lab.run((y, np.float32), (number, np.float32))
    lost, there = errors.reshape(-1, 2).sum(0, dtype=np.float64)
    return exact, got.astype(np.float64), float(np.sqrt(lost / there))


def heavy(rng: np.random.Generator, rows: int, cols: int) -> Array:
    """As weights are: many small numbers and a few large ones, rows of different sizes."""
    return rng.standard_t(5, (rows, cols)) * rng.uniform(0.01, 1, (rows, 1))


def units(values: Array) -> list[Array]:
    """[rows, up to 32] for each unit of columns."""
    return [values[:, at : at + 32] for at in range(0, values.shape[1], 32)]


def half(x: Array) -> Array:
    return x.astype(np.float16).astype(np.float64)


def with_minimum(x: Array) -> Array:
    """Each row of `x` as d q + m with q from 0 to 15: of many ranges, each end on its own, the best after three rounds
    of numpy's own least squares, written without a thought of the kernel's."""
    best, least = np.zeros_like(x), np.full(len(x), np.inf)
    for low in (0, 0.02, 0.05, 0.08):
        for high in (0, 0.02, 0.05, 0.08):
            width = np.ptp(x, axis=1)
            d, m = (1 - low - high) * width / 15, x.min(1) + low * width
            for _ in range(3):
                q = np.clip(np.round((x - m[:, None]) / d[:, None]), 0, 15)
                for row in range(len(x)):
                    d[row], m[row] = np.linalg.lstsq(np.stack([q[row], np.ones_like(q[row])], 1), x[row], rcond=None)[0]
                d, m = half(d), half(m)
                q = np.clip(np.round((x - m[:, None]) / d[:, None]), 0, 15)
                best, least = better(x, q * d[:, None] + m[:, None], best, least)
    return best


def symmetric(x: Array) -> Array:
    """The same of d q with q from -8 to 7: of many scales the best, after least squares."""
    best, least = np.zeros_like(x), np.full(len(x), np.inf)
    largest = x[np.arange(len(x)), np.abs(x).argmax(1)]
    for extreme in np.arange(6.5, 9.6, 0.25):
        d = -largest / extreme
        for _ in range(2):
            q = np.clip(np.round(x / d[:, None]), -8, 7)
            d = half((q * x).sum(1) / (q * q).sum(1))
            q = np.clip(np.round(x / d[:, None]), -8, 7)
            best, least = better(x, q * d[:, None], best, least)
    return best


def better(x: Array, made: Array, best: Array, least: Array) -> tuple[Array, Array]:
    error = ((made - x) ** 2).sum(1)
    return np.where((error < least)[:, None], made, best), np.minimum(error, least)


FITS = {"q4_1": with_minimum, "q4_0": symmetric}


def relative(got: Array, exact: Array) -> float:
    return float(np.sqrt(nmse(got, exact)))


@pytest.mark.parametrize("cols", [36, 76, 224])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("to", ["q4_1", "q4_0"])
def test_four_bits_are_as_near_as_a_least_squares_fit(device: Any, rng: Any, to: str, dtype: str, cols: int) -> None:
    """numpy tries three times as many ranges: 3 % are between the two at the most. The error told is the true one."""
    exact, got, told = quantise(Lab(device, ROWS), heavy(rng, ROWS, cols), dtype, to)
    fitted = np.concatenate([FITS[to](unit) for unit in units(exact)], axis=1)
    assert relative(got, exact) < 1.03 * relative(fitted, exact)
    assert told == pytest.approx(relative(got, exact), rel=1e-3)


@pytest.mark.parametrize(("to", "gain"), [("q4_1", 0.92), ("q4_0", 0.97)])
def test_four_bits_are_nearer_than_those_of_ggml_in_every_unit(device: Any, rng: Any, to: str, gain: float) -> None:
    """GGUF's Q4_1 takes the range, its Q4_0 the largest number. Sums in f32 may differ in the last digits."""
    exact, got, _ = quantise(Lab(device, ROWS), heavy(rng, ROWS, 512), "F32", to)
    kind = gguf.GGMLQuantizationType[to.upper()]
    plain = gguf.quants.dequantize(gguf.quants.quantize(exact.astype(np.float32), kind), kind).astype(np.float64)
    ours, theirs = (((made - exact) ** 2).reshape(-1, 32).sum(1) for made in (got, plain))
    assert (ours <= theirs * (1 + 1e-4)).all()
    assert relative(got, exact) < gain * relative(plain, exact)


@pytest.mark.parametrize("cols", [76, 224])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_eight_bits_are_off_by_half_a_step_at_the_most(device: Any, rng: Any, dtype: str, cols: int) -> None:
    """A step is the largest of 32 over 127; the scale's rounding to f16 moves the largest by 2^-11 of itself."""
    exact, got, told = quantise(Lab(device, ROWS), heavy(rng, ROWS, cols), dtype, "q8_0")
    for made, unit in zip(units(got), units(exact), strict=True):
        largest = np.abs(unit).max(1, keepdims=True)
        assert (np.abs(made - unit) <= largest * (0.5 / 127 + 2**-11) * 1.001).all()
    assert told == pytest.approx(relative(got, exact), rel=1e-3)


@pytest.mark.parametrize(("dtype", "to", "kind"), [("F32", "f16", np.float16), ("BF16", "f32", np.float32)])
def test_a_cast_is_numpy_s(device: Any, rng: Any, dtype: str, to: str, kind: type) -> None:
    """A device may round to either neighbour among the halves."""
    exact, got, told = quantise(Lab(device, ROWS), heavy(rng, ROWS, 76), dtype, to)
    wanted = exact.astype(kind).astype(np.float64)
    assert np.abs(got - wanted).max() <= (np.spacing(np.abs(wanted).max().astype(kind)) if to == "f16" else 0)
    assert told == pytest.approx(relative(got, exact), rel=1e-3, abs=1e-9)
    assert (told == 0) == (to == "f32")


@pytest.mark.parametrize("to", ["q4_1", "q4_0", "q8_0", "f16", "f32"])
def test_what_is_on_the_grid_and_what_is_all_alike_comes_back_as_it_was(device: Any, to: str) -> None:
    """Integers of one scale; zeros; one number 64 times, of either sign, which only scales that f16 rounds move."""
    integers = np.arange(64) % 16 - 8 if to != "q8_0" else np.arange(64) * 37 % 32 * 8 - 127
    rows = np.array([integers * 0.125, np.zeros(64), np.full(64, 0.5), np.full(64, -0.25)])
    exact, got, told = quantise(Lab(device, 4), rows, "F32", to)
    assert np.array_equal(got[:2], exact[:2])
    assert np.abs(got - exact).max() <= 1e-3 and told < 1e-3


@pytest.mark.parametrize("to", ["q4_1", "q4_0", "q8_0", "f16"])
def test_numbers_beyond_halves_and_numbers_that_are_none_do_no_harm_to_their_neighbours(device: Any, to: str) -> None:
    rows = np.ones((4, 64))
    rows[1, 5], rows[2, 7], rows[3, 9] = 1e30, np.inf, np.nan
    _, got, _ = quantise(Lab(device, 4), rows, "F32", to)
    assert np.allclose(got[0], 1, atol=1e-3) and np.allclose(got[1:, 32:], 1, atol=1e-3)


def test_a_tensor_in_pieces_and_parts_tells_one_error(device: Any, rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 6 rows, the last of one; parts of 16 rows by the binding limit."""
    monkeypatch.setattr("webllm.plan.PIECE_BYTES", 6 * 4 * 76)
    limits = Limits(storage_binding=16 * 3 * 16)
    values = heavy(rng, 55, 76)
    lab = Lab(device, 55, limits)
    exact, got, told = quantise(lab, values, "F32", "q4_1")
    assert len(lab.weights.uploads) == 4 and lab.weights.errors["w"].count == 6
    assert told == pytest.approx(relative(got, exact), rel=1e-3)


def test_sums_over_subgroups_tell_the_same(device: Any, rng: Any) -> None:
    exact, got, told = quantise(
        Lab(device, 5, with_features(device, subgroups=True)), heavy(rng, 5, 4096), "F16", "q4_0"
    )
    assert told == pytest.approx(relative(got, exact), rel=1e-3)


def test_gate_and_up_and_stacked_rows_are_quantised_where_they_go(device: Any, rng: Any) -> None:
    """As the same rows alone: a matrix of 40 of each, and one of three tensors on each other."""
    names, parts = ["gate", "up"], [heavy(rng, 40, 96) for _ in range(2)]
    x = rng.standard_normal((1, 96))
    both = []
    for stacked in (False, True):
        lab = Lab(device)
        for name, part in zip(names, parts, strict=True):
            lab.add(name, part, "F16", store_as="q4_1")
        w = lab.weights.matrix(*names, shape=(80, 96)) if stacked else lab.weights.glu(*names, (40, 96))
        y = ops.linear(lab.tensor("x", x), w if stacked else ops._as_stored(w))
        both.append(lab.run((y, np.float32))[0][0])
    tiles = np.zeros((3, 2, 16))  # gate and up alternate in tiles of 16, the last of 8
    for i, part in enumerate((both[1][:40], both[1][40:])):
        tiles[:, i].flat[:40] = part
    assert np.allclose(both[0].reshape(3, 2, 16).reshape(-1)[:72], tiles.reshape(-1)[:72], atol=1e-5)

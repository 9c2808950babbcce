"""What may be asked of sampling, how the kernels get it, and the choice on the host."""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webllm import kernels, sampling
from webllm.errors import RequestError
from webllm.sampling import GREEDY, RECORD_BYTES, Sampling

BAD: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.01, float("nan"), "1", True],
    "top_p": [-0.1, 1.1, float("inf")],
    "top_k": [-1, 1.5, 2**31 + 1],
    "min_p": [-0.1, 1.1],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1, None],
    "repetition_penalty": [0, -1, 2.1],
    "seed": [1.5, 2**63, -(2**63) - 1, "7"],
    "logit_bias": [5, [1], {"x": 1}, {-1: 1}, {1.5: 1}, {True: 1}, {3: 100.1}, {3: "1"}, {3: True}, {"9" * 5000: 1}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_what_is_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        Sampling(**{name: value})


def test_the_ends_of_the_ranges_are_allowed() -> None:
    Sampling(temperature=0, top_p=0, min_p=1, presence_penalty=-2, frequency_penalty=2, seed=-(2**63))
    Sampling(temperature=2, top_p=1, top_k=0, repetition_penalty=2, seed=2**63 - 1, logit_bias={0: 100, 1: -100})
    Sampling(temperature=np.float32(0.5), top_k=np.int64(3))


def test_biases_may_have_texts_for_ids_as_json_does() -> None:
    assert Sampling(logit_bias={"12": 1, 3: -5}).logit_bias == {12: 1.0, 3: -5.0}  # type: ignore[dict-item]


def test_options_go_before_the_file_s_settings_and_those_before_openai_s() -> None:
    file = {"temperature": 0.6, "top_k": 20.0, "top_p": 0.9, "unknown": 1}
    assert Sampling.of({"top_p": 0.5, "seed": None}, file) == Sampling(temperature=0.6, top_k=20, top_p=0.5)
    assert Sampling.of({}, {}) == Sampling(temperature=1, top_p=1, top_k=0, min_p=0, repetition_penalty=1)


@given(st.dictionaries(st.sampled_from([*BAD, "x"]), st.one_of(st.integers(), st.floats(), st.just("0.5"))))
def test_no_file_can_make_requests_fail(settings: dict[str, Any]) -> None:
    """Its numbers come from anywhere."""
    Sampling.of({}, settings)


def test_a_seed_stays_and_a_missing_one_is_drawn() -> None:
    assert Sampling(seed=5).seeded() == Sampling(seed=5)
    drawn = [Sampling().seeded().seed for _ in range(8)]
    assert all(seed is not None and 0 <= seed < 2**53 for seed in drawn) and len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("how", "greedy"),
    [
        (GREEDY, True),
        (Sampling(temperature=1e-6, top_k=5, seed=3), True),
        (Sampling(temperature=0, presence_penalty=0.1), False),
        (Sampling(temperature=0, logit_bias={1: 1}), False),
        (Sampling(), False),
    ],
)
def test_greedy_is_what_looks_at_logits_alone(how: Sampling, greedy: bool) -> None:
    assert how.greedy == greedy


def test_a_record_has_the_fields_of_the_kernels_struct_in_their_order() -> None:
    source = kernels.read("lib/sampling")
    body = source[source.index("struct Sampling {") : source.index("}")]
    names = [line.split(":")[0].strip() for line in body.splitlines()[1:] if ":" in line]
    how = Sampling(0.5, 0.75, 7, 0.25, 1.5, -1.5, 1.25, {3: 1}, seed=2 + (3 << 32))
    values = struct.unpack("<7fI2I2I", how.record())
    assert len(how.record()) == RECORD_BYTES
    fields = dict(zip(names, [*values[:8], values[8:10], *values[10:]], strict=True))
    assert fields == {
        **{"temperature": 0.5, "inverse": 2, "top_p": 0.75, "min_p": 0.25, "presence": 1.5, "frequency": -1.5},
        **{"repetition": 1.25, "top_k": 7, "seed": (2, 3), "flags": 1 | 2 | 4, "waits": 0},
    }


def test_constants_are_those_of_the_kernels() -> None:
    source = kernels.read("lib/sampling")
    for name in ("NONE", "HOST", "IN_PROMPT"):
        assert f"const {name} = 0x{getattr(sampling, name):08X}u;" in source


def test_filters_are_off_at_temperature_zero() -> None:
    """The likeliest token passes them all."""
    how = Sampling(temperature=0, top_k=3, top_p=0.5, logit_bias={1: 1})
    flags = struct.unpack("<12I", how.record())[10]
    assert flags == 4


HOWS = st.builds(
    Sampling,
    temperature=st.floats(0.05, 2),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 4, 1000]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    seed=st.integers(-(2**63), 2**63 - 1),
)


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=60), HOWS, st.integers(0, 5000))
def test_the_choice_is_the_same_with_numpy_and_without(eighths: list[int], how: Sampling, place: int) -> None:
    """Eighths, so that there are equal scores."""
    scores = array("f", (value / 8 for value in eighths))
    assert sampling._draw_plain(scores, place, how) == sampling._draw_numpy(scores.tobytes(), place, how)


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60), HOWS, st.integers(0, 50))
def test_a_choice_is_never_outside_of_what_the_filters_leave(scores: list[float], how: Sampling, place: int) -> None:
    """Each filter alone bounds it: no more than top_k are better, enough probability is not yet in the better ones."""
    data = array("f", scores)
    token = how.draw(data.tobytes(), place)
    better = [s for i, s in enumerate(data) if (-s, i) < (-data[token], token)]
    most = max(data)
    weights = np.exp((np.array(data, np.float64) - most) / how.temperature)
    assert how.top_k == 0 or len(better) < how.top_k
    assert not better or how.top_p > 0
    assert weights[token] >= how.min_p - 1e-9
    share = np.exp((np.array(better) - most) / how.temperature).sum() / weights.sum()
    assert not better or share < how.top_p + 1e-9 or how.top_p == 1


def test_the_noise_is_even_and_neighbours_do_not_know_each_other() -> None:
    """2^18 words each: 256 bins of the high and of the low byte, and the high bits of neighbours in place and token."""
    tokens = np.arange(1 << 18, dtype=np.uint64)
    words = sampling._hash(3, 0, 17, tokens)
    others = [sampling._hash(3, 0, 18, tokens), sampling._hash(4, 0, 17, tokens), np.roll(words, 1)]
    bins = [words >> 24, words & 255, *((words >> 28) << 4 | other >> 28 for other in others)]
    for values in bins:
        seen = np.bincount(values.astype(np.int64), minlength=256)
        chi_square = float(np.sum((seen - 1024.0) ** 2) / 1024)
        assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5


def test_places_of_an_answer_are_drawn_independently() -> None:
    """Pairs of tokens that follow each other come as often as their probabilities' product."""
    p = np.array([0.5, 0.3, 0.2])
    scores = np.log(p).astype(np.float32).tobytes()
    drawn = [Sampling(seed=8).draw(scores, place) for place in range(6001)]
    seen = Counter(pairwise(drawn))
    wanted = {(a, b): 6000 * p[a] * p[b] for a in range(3) for b in range(3)}
    assert sum((seen[pair] - n) ** 2 / n for pair, n in wanted.items()) < 8 + 5 * 16**0.5

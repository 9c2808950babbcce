"""score_tile, gather, sample: tokens by the same rules in numpy, and distributions against chi-square."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import Array, Lab
from webllm import ops
from webllm.ops import RING
from webllm.plan import Program
from webllm.sampling import HOST, IN_PROMPT, NONE, Sampling

ROWS = 16


class Chooser:
    """The plan `sample` over a vocabulary, for ROWS sequences at once. What is not given is as if it were off."""

    def __init__(self, device: Any, vocab: int) -> None:
        lab = Lab(device, ROWS)
        self.device, self.vocab = device, vocab
        self.result = lab.builder.buffer("result", 4 * RING * ROWS, "state")
        logits, step = (
            lab.tensor("logits", np.zeros((ROWS, vocab))),
            lab.builder.buffer("step", 16 + 16 * ROWS, "state"),
        )
        ops.sample(logits, step, self.result)
        program = Program(tuple(lab.builder.buffers), {"sample": lab.rec.plan(self.result)})
        self.loaded = asyncio.run(device.load(program, []))

    def tokens(
        self,
        logits: Array,
        hows: Sampling | Sequence[Sampling],
        steps: int = 1,
        first: int = 0,
        counts: Array | None = None,
    ) -> Array:
        """[steps, ROWS]: tokens of places `first` on. logits: [vocab] or [ROWS, vocab]; counts: [vocab]."""
        hows = [hows] * ROWS if isinstance(hows, Sampling) else hows
        bias = np.zeros((ROWS, self.vocab))
        for row, how in enumerate(hows):
            bias[row, list(how.logit_bias)] = list(how.logit_bias.values())
        self.write("logits", np.broadcast_to(logits, (ROWS, self.vocab)).astype(np.float32).tobytes())
        self.write("sampling", b"".join(how.record() for how in hows))
        self.write("bias", bias.astype(np.float32).tobytes())
        if counts is not None:
            self.write("counts", np.broadcast_to(counts, (ROWS, self.vocab)).astype(np.uint32).tobytes())
        rows = b"".join(struct.pack("<4I", 9, 100, row, first) for row in range(ROWS))
        self.write("step", struct.pack("<4I", ROWS, 0, 0, 0) + rows)
        return self.go_on(steps, first)

    def write(self, name: str, data: bytes) -> None:
        self.device.write(self.loaded, name, data)

    def go_on(self, steps: int, first: int) -> Array:
        """More steps from where the last ones ended."""
        submitted = asyncio.run(self._submit(steps))
        ring = np.frombuffer(submitted, np.uint32).reshape(RING, ROWS)
        return ring[(first + np.arange(steps)) % RING]

    async def _submit(self, steps: int) -> bytes:
        return bytes(await self.device.submit(self.loaded, ["sample"], ROWS, 1, steps))

    def read(self, name: str, kind: type) -> Array:
        program = self.loaded.program
        size = program.buffers[program.index(name)].size
        return np.frombuffer(asyncio.run(self.device.read(self.loaded, name, size)), kind)

    def close(self) -> None:
        self.device.unload(self.loaded)


@pytest.fixture(scope="module")
def chooser(device: Any) -> Iterator[Any]:
    """A `Chooser` for a vocabulary, kept for the next test: a slow compiler compiles once."""
    made: dict[int, Chooser] = {}

    def get(vocab: int) -> Chooser:
        if vocab not in made:
            made[vocab] = Chooser(device, vocab)
        return made[vocab]

    yield get
    for one in made.values():
        one.close()


def gumbel(seed: int, place: int, tokens: Array) -> Array:
    """-log(-log(1 - w)) of the pcg4d hash, in float64."""
    words = [np.full(len(tokens), word, np.uint32) for word in (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, place)]
    v = [word * np.uint32(1664525) + np.uint32(1013904223) for word in (*words, tokens.astype(np.uint32))]
    for mix in (True, False):
        for target, (a, b) in enumerate([(1, 3), (2, 0), (0, 1), (1, 2)]):
            v[target] = v[target] + v[a] * v[b]
        v = [word ^ (word >> np.uint32(16)) for word in v] if mix else v
    return -np.log(-np.log1p(-(v[3] + 0.5) / 2**32))


def adjusted(logits: Array, how: Sampling, counts: Array) -> Array:
    """Logits after bias and penalties."""
    scores = logits.astype(np.float64).copy()
    scores[list(how.logit_bias)] += list(how.logit_bias.values())
    r, times = how.repetition_penalty, counts & ~np.uint32(IN_PROMPT)
    scores = np.where(counts > 0, np.where(scores > 0, scores / r, scores * r), scores)
    return scores - how.frequency_penalty * times - how.presence_penalty * (times > 0)


def kept(scores: Array, how: Sampling) -> Array:
    """The tokens that the filters leave, the likeliest first."""
    order = np.argsort(-scores, kind="stable")
    order = order[: how.top_k or len(order)]
    if how.temperature == 0:
        return order[:1]
    p = np.exp((scores[order] - scores[order[0]]) / how.temperature)
    if how.top_p < 1:
        order = order[: 1 + np.count_nonzero(np.cumsum(p)[:-1] < how.top_p * p.sum())]
    return order[: max(1, np.count_nonzero(p[: len(order)] >= how.min_p))]


def check(logits: Array, how: Sampling, place: int, token: int, counts: Array | None = None) -> None:
    """The token is the best, with noise, of those that are left; f32 may take another that is as good to 4 digits."""
    scores = adjusted(logits, how, np.zeros(len(logits), np.uint32) if counts is None else counts)
    left = kept(scores, how)
    noisy = scores[left] + how.temperature * gumbel(how.seed or 0, place, left)
    assert token in left, (how, place, token)
    assert noisy.max() - noisy[left.tolist().index(token)] < 1e-4 * max(1, abs(noisy.max())), (how, place, token)


FILTERS = {
    "none": Sampling(),
    "hot": Sampling(temperature=1.7),
    "top_k": Sampling(top_k=5),
    "top_k 1": Sampling(top_k=1),
    "top_p": Sampling(top_p=0.7),
    "top_p 0": Sampling(top_p=0),
    "min_p": Sampling(min_p=0.05),
    "min_p 1": Sampling(min_p=1),
    "all": Sampling(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02),
    "cold": Sampling(temperature=0.05, top_p=0.9),
    "bias": Sampling(logit_bias={0: -100.0}),
    "zero": Sampling(temperature=0, logit_bias={0: -100.0}, top_k=7),
}


@pytest.mark.parametrize("vocab", [1, 7, 1023, 1025, 49152])
def test_tokens_are_those_of_numpy_for_every_filter(chooser: Any, rng: Any, vocab: int) -> None:
    """A row each, with a seed of its own, over logits like a model's: few tokens far above many."""
    logits = rng.standard_normal((ROWS, vocab)) * 2.5 + np.where(rng.random((ROWS, vocab)) < 0.01, 9, 0)
    logits = logits.astype(np.float32)
    hows = [replace(how, seed=int(rng.integers(2**62))) for how in [*FILTERS.values(), *FILTERS.values()][:ROWS]]
    tokens = chooser(vocab).tokens(logits, hows, first=70)
    for row, how in enumerate(hows):
        check(logits[row], how, 70, tokens[0, row])


def test_penalties_and_bias_come_before_the_filters(chooser: Any, rng: Any) -> None:
    """Tokens of the prompt alone, of the answer alone, of both, often and never; positive logits and negative ones."""
    vocab, penalties = 1025, {"presence_penalty": 1.5, "frequency_penalty": -0.4, "repetition_penalty": 1.3}
    logits = (rng.standard_normal(vocab) * 3).astype(np.float32)
    counts = (rng.integers(0, 4, vocab) * rng.integers(0, 2, vocab)).astype(np.uint32)
    counts |= np.where(rng.random(vocab) < 0.3, IN_PROMPT, 0).astype(np.uint32)
    bias = {int(token): float(rng.uniform(-9, 9)) for token in rng.integers(0, vocab, 99)}
    hows = [Sampling(**{name: value}) for name, value in penalties.items()]
    hows += [Sampling(**penalties, logit_bias=bias, top_p=p, top_k=k) for p in (1, 0.8) for k in (0, 9)]
    hows += [Sampling(temperature=0, **penalties), Sampling(temperature=0, logit_bias=bias)]
    hows = [replace(how, seed=seed) for seed, how in enumerate([*hows, *hows])][:ROWS]
    made = chooser(vocab)
    tokens = made.tokens(logits, hows, counts=counts)[0]
    wanted = np.tile(counts, (ROWS, 1))
    for row, how in enumerate(hows):
        check(logits, how, 0, tokens[row], counts if how.penalises else np.zeros_like(counts))
        wanted[row, tokens[row]] += how.penalises
    assert np.array_equal(made.read("counts", np.uint32).reshape(ROWS, vocab), wanted)
    scores = made.read("logits", np.float32).reshape(ROWS, vocab)[0]
    assert np.allclose(scores, adjusted(logits, hows[0], counts), rtol=1e-6, atol=1e-6)


def test_of_equal_scores_the_lowest_token_is_the_likeliest(chooser: Any) -> None:
    logits = np.full(49152, -1.0)
    logits[[700, 3000, 48000]] = 2.5
    assert set(chooser(49152).tokens(logits, Sampling(temperature=0, logit_bias={1: 1}))[0]) == {700}
    assert set(chooser(49152).tokens(logits, Sampling(top_k=1))[0]) == {700}
    two = chooser(49152).tokens(logits, [Sampling(top_k=2, seed=seed) for seed in range(ROWS)])[0]
    assert set(two) == {700, 3000}


def test_steps_that_run_ahead_draw_what_single_steps_draw(chooser: Any, rng: Any) -> None:
    """Over the ring's end, from place 58 on."""
    hows = [Sampling(top_p=0.9, seed=1 + 2**40 * row) for row in range(ROWS)]
    logits = rng.standard_normal((ROWS, 1025)) * 2
    ahead = chooser(1025).tokens(logits, hows, steps=9, first=58)
    records = chooser(1025).read("step", np.uint32)[4:].reshape(ROWS, 4)
    assert records.tolist() == [[ahead[-1, row], 109, row, 67] for row in range(ROWS)]
    single = [chooser(1025).tokens(logits, hows, first=58 + i)[0] for i in range(0, 9, 2)]
    assert np.array_equal(ahead[::2], single)
    assert len({tuple(places) for places in ahead.tolist()}) == 9


def test_the_same_seed_draws_the_same_and_every_half_of_it_counts(chooser: Any, rng: Any) -> None:
    logits = rng.standard_normal(1025)
    seeds = [5, 5, 6, 5 + 2**32, 5 - 2**63, -5] + [5] * 10
    got = chooser(1025).tokens(logits, [Sampling(seed=seed) for seed in seeds], steps=9).T.tolist()
    assert got[0] == got[1] == got[15]
    assert len({tuple(row) for row in got[1:6]}) == 5


@pytest.mark.parametrize(
    "how", [Sampling(seed=1), Sampling(top_k=3, seed=1), Sampling(temperature=0, logit_bias={0: 1})]
)
def test_tokens_without_a_finite_logit_are_never_chosen(chooser: Any, how: Sampling) -> None:
    """All of them, and the row says so by another word than a token."""
    logits = np.full((ROWS, 1025), np.nan)
    logits[0, ::2] = np.inf
    logits[1, ::3] = -np.inf
    logits[2:, 77] = -5.0
    logits[3:, 1024] = 3e38
    logits[4:, 1024] = np.inf
    tokens = chooser(1025).tokens(logits, how)[0].tolist()
    assert tokens == [NONE, NONE, 77, 1024, *[77] * 12]


WIDE = Sampling(top_p=0.9, frequency_penalty=0.5, seed=4)


def test_what_the_candidates_do_not_settle_is_left_to_the_host(chooser: Any) -> None:
    """49152 equal logits lie in one bin, which is more than the candidates hold. Steps behind it change nothing."""
    made = chooser(49152)
    tokens = made.tokens(np.zeros(49152), WIDE, steps=3, counts=np.zeros(49152))
    assert tokens[0].tolist() == [HOST] * ROWS
    step = made.read("step", np.uint32)[4:].reshape(ROWS, 4)
    assert step.tolist() == [[9, 100, row, 0] for row in range(ROWS)]
    assert not made.read("counts", np.uint32).any()
    assert not made.read("histogram", np.uint32).any()
    assert made.read("candidates", np.uint32)[0] == 0
    rows = (struct.pack("<4I", 7, 101, row, 1) for row in range(ROWS))
    made.write("step", struct.pack("<4I", ROWS, 0, 0, 0) + b"".join(rows))
    made.write("sampling", replace(WIDE, top_p=1.0).record() * ROWS)  # which needs no candidates
    went_on = made.go_on(1, first=1)[0]
    check(np.zeros(49152), replace(WIDE, top_p=1.0), 1, went_on[0], np.zeros(49152, np.uint32))


@pytest.mark.parametrize(
    "how", [Sampling(top_p=0.98), Sampling(top_k=5000), Sampling(min_p=0.01), Sampling(top_k=1025)]
)
@pytest.mark.parametrize("slope", [1 / 300, 1 / 2000])
def test_a_wide_choice_is_settled_where_the_best_of_all_is_a_candidate(
    chooser: Any, how: Sampling, slope: float
) -> None:
    """The best of all tokens is the best of those that the filters leave, if it is one. The host agrees."""
    made, host = chooser(49152), 0
    logits = -slope * np.arange(49152)
    hows = [replace(how, seed=seed) for seed in range(ROWS)]
    tokens = made.tokens(logits, hows)[0]
    scores = logits.astype(np.float32).tobytes()
    for row, one in enumerate(hows):
        drawn = one.draw(scores, 0)
        check(logits.astype(np.float32), one, 0, drawn)
        host += tokens[row] == HOST
        assert tokens[row] in (HOST, drawn)
    assert host < ROWS - 1 if slope > 1 / 1000 else host > 0


@pytest.mark.parametrize("level", [-500.0, -120.0, 120.0, 500.0])
def test_scores_beyond_the_histogram_are_chosen_right_or_by_the_host(chooser: Any, rng: Any, level: float) -> None:
    hows = [Sampling(top_p=0.8, seed=seed) for seed in range(ROWS)]
    for vocab in (7, 1025):
        logits = (level + 3 * rng.standard_normal(vocab)).astype(np.float32)
        for how, token in zip(hows, chooser(vocab).tokens(logits, hows)[0], strict=True):
            if vocab == 1025 and abs(level) == 500:  # all in one bin
                assert token == HOST
            else:
                check(logits, how, 0, token)


LOGITS = np.array([2.0, 1.0, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -9.0], np.float32)


@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=1.3),
        Sampling(top_p=0.75, temperature=0.8),
        Sampling(top_k=6, temperature=1.4),
        Sampling(top_k=8, top_p=0.9, min_p=0.07),
    ],
    ids=["hot", "top_p", "top_k", "all"],
)
@pytest.mark.parametrize("device", ["wgpu"], indirect=True)
def test_tokens_come_as_often_as_their_probability_says(chooser: Any, how: Sampling) -> None:
    """20480 draws of 16 seeds. The limit is 5 standard deviations of chi-square. None lies outside of what is left."""
    rounds = [
        chooser(12).tokens(LOGITS, [replace(how, seed=99 + row) for row in range(ROWS)], steps=RING, first=RING * i)
        for i in range(20)
    ]
    seen = np.bincount(np.concatenate(rounds).ravel(), minlength=12)
    left = kept(LOGITS.astype(np.float64), how)
    p = np.exp(LOGITS[left].astype(np.float64) / how.temperature)
    wanted = p / p.sum() * 20480
    assert seen.sum() == seen[left].sum() == 20480
    many = wanted > 5
    freedom = np.count_nonzero(many) - 1
    assert np.sum((seen[left] - wanted)[many] ** 2 / wanted[many]) < freedom + 5 * np.sqrt(2 * freedom)

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
from webllm.sampling import IN_PROMPT, Sampling

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

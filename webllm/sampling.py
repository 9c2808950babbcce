"""How tokens are chosen: what a request may ask for, as the kernels read it, and the same choice on the host.

The GPU chooses (`ops.sample`). Where its candidates do not settle a token, the host reads all scores and `draw` chooses
by the same rules with the same noise, so that one seed gives one answer whoever chose.
"""

from __future__ import annotations

import math
import re
import secrets
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from numbers import Integral, Real
from typing import Any

from webllm.errors import RequestError

RECORD_BYTES = 48  # of a sequence in the buffer `sampling`
NONE = 0xFFFFFFFF  # in place of a token: every logit is infinite or no number
HOST = 0xFFFFFFFE  # in place of a token: the host has to choose
IN_PROMPT = 1 << 31  # the bit of a count in the buffer `counts`

_FILTERED, _PENALISED, _BIASED = 1, 2, 4
_COLD = 1e-5  # temperatures below count as 0: scores are f32
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 2**31),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 2),
    "seed": (-(2**63), 2**63 - 1),
}
_WHOLE = ("top_k", "seed")
_BIAS = 100  # at most so much, up and down
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen; without arguments, from the model's own distribution.

    temperature: 0 (the likeliest token) to 2. top_k: only so many of the likeliest; 0 for all. top_p: only the
    likeliest that together have this share of the probability. min_p: only those with at least this fraction of the
    likeliest one's. presence_penalty, frequency_penalty: -2 to 2, taken from the logits of tokens in the answer, once
    and for every time. repetition_penalty: 0.01 to 2, divides positive logits of tokens in prompt or answer and
    multiplies negative ones. logit_bias: token id -> -100 to 100, added before the penalties. seed: a whole number of
    64 bits; the same gives the same answer on the same device, None a new one each time.

    The filters follow each other as in Transformers: top_k, top_p over what is left, min_p. Raises `RequestError`.

        webllm.Sampling(temperature=0.7, top_p=0.9, seed=1)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in _RANGES:
            if not (name == "seed" and self.seed is None):
                _check(name, getattr(self, name))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @classmethod
    def of(cls, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sampling:
        """Of a request's options, None or missing meaning the default: the checkpoint's, otherwise OpenAI's.

        A default that is out of range, as files may have it, is passed over.
        """
        return cls(**_own(defaults) | {name: value for name, value in options.items() if value is not None})

    @property
    def greedy(self) -> bool:
        """Whether each token is simply that of the largest logit."""
        return self._cold and not (self.penalises or self.logit_bias)

    @property
    def penalises(self) -> bool:
        """Whether it matters which tokens were there before."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0, 0, 1)

    def seeded(self) -> Sampling:
        """The same with a seed: its own, or a new one that JavaScript can hold too."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))

    def record(self) -> bytes:
        """What the kernels read, struct Sampling of kernels_wgsl/lib/sampling.wgsl. Wants a seed unless greedy."""
        flags = _FILTERED * self._filters + _PENALISED * self.penalises + _BIASED * bool(self.logit_bias)
        temperature = 0.0 if self._cold else self.temperature
        numbers = [temperature, 1 / temperature if temperature else 0.0, self.bound, self.min_p]
        numbers += [self.presence_penalty, self.frequency_penalty, self.repetition_penalty]
        return struct.pack("<7fI2I2I", *numbers, self.top_k, *self.seed_words(), flags, 0)

    def draw(self, scores: bytes, place: int) -> int:
        """The token for `place` in the answer; scores: f32 of the whole vocabulary, after bias and penalties.

        What the GPU chooses, but for rounding. Wants a seed and a temperature above 0.
        """
        if sys.platform == "emscripten" and "numpy" not in sys.modules:
            return _draw_plain(array("f", scores), place, self)
        return _draw_numpy(scores, place, self)

    @property
    def _cold(self) -> bool:
        return self.temperature < _COLD

    @property
    def _filters(self) -> bool:
        return not self._cold and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def bound(self) -> float:
        """top_p, or more than any sum of probabilities where it is off."""
        return self.top_p if self.top_p < 1 else 2.0

    def seed_words(self) -> tuple[int, int]:
        seed = self.seed or 0
        return seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF


def _draw_plain(scores: Sequence[float], place: int, how: Sampling) -> int:
    order = sorted(range(len(scores)), key=lambda token: -scores[token])[: how.top_k or None]
    weights = [math.exp((scores[token] - scores[order[0]]) / how.temperature) for token in order]
    sums = list(accumulate(weights))
    within_p = bisect_left(sums, how.bound * sums[-1]) + 1  # with the one that fills the share
    within_min = bisect_right(weights, -how.min_p, key=lambda weight: -weight)
    words = how.seed_words()

    def noisy(token: int) -> float:
        w = (_hash(*words, place, token) + 0.5) / 2**32
        return scores[token] - how.temperature * math.log(-math.log1p(-w))

    return max(order[: max(1, min(within_p, within_min))], key=noisy)


def _draw_numpy(data: bytes, place: int, how: Sampling) -> int:
    import numpy as np

    scores = np.frombuffer(data, np.float32).astype(np.float64)
    order = np.argsort(-scores, kind="stable")[: how.top_k or None]
    weights = np.exp((scores[order] - scores[order[0]]) / how.temperature)
    before = np.cumsum(weights) - weights
    kept = (before < how.bound * weights.sum()) & (weights >= how.min_p)
    kept[0] = True
    tokens = order[kept]
    w = (_hash(*how.seed_words(), place, tokens.astype(np.uint64)) + 0.5) / 2**32
    return int(tokens[np.argmax(scores[tokens] - how.temperature * np.log(-np.log1p(-w)))])


def _hash(low: int, high: int, place: int, token: Any) -> Any:
    """The hash of kernels_wgsl/lib/noise.wgsl, for one token or a uint64 array of them."""
    x, y, z, w = ((word * 1664525 + 1013904223) & _WORD for word in (low, high, place, token))
    for shift in (16, 32):  # of words of 32 bits: the second time nothing is left to mix in
        x = (x + y * w) & _WORD
        y = (y + z * x) & _WORD
        z = (z + x * y) & _WORD
        w = (w + y * z) & _WORD
        x, y, z, w = (word ^ word >> shift for word in (x, y, z, w))
    return w


def _check(name: str, value: Any) -> None:
    """Raise `RequestError` unless the value is a number of the right kind in its range."""
    low, high = _RANGES[name]
    if not _is_number(value, low, high, whole=name in _WHOLE):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise RequestError(f"{name} must be {kind} from {low} to {high}, got {value!r}")


def _is_number(value: Any, low: float, high: float, whole: bool = False) -> bool:
    kind: Any = Integral if whole else Real
    return isinstance(value, kind) and not isinstance(value, bool) and bool(low <= value <= high)


def _bias(given: Any) -> dict[int, float]:
    """logit_bias with ids as numbers; JSON has them as texts."""
    if not isinstance(given, Mapping):
        raise RequestError(f"logit_bias must map token ids to numbers, got {given!r}")
    bias = {}
    for key, value in given.items():
        token = int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key) else key
        if not _is_number(token, 0, 2**31, whole=True):
            raise RequestError(f"logit_bias must map token ids to numbers, got the id {key!r}")
        if not _is_number(value, -_BIAS, _BIAS):
            raise RequestError(f"logit_bias of token {token} must be a number from -{_BIAS} to {_BIAS}, got {value!r}")
        bias[int(token)] = float(value)
    return bias


def _own(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint that can be used."""
    usable = {}
    for name, value in defaults.items():
        if name in _RANGES:
            value = int(value) if name in _WHOLE and isinstance(value, float) and value.is_integer() else value
            with suppress(RequestError):
                _check(name, value)
                usable[name] = value
    return usable


GREEDY = Sampling(temperature=0)  # the likeliest token each time

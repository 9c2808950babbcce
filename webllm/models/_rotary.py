"""Rotary positions (RoFormer, Su et al. 2021): their angles, and the ways in which contexts were lengthened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webllm.errors import BadModel, Unsupported
from webllm.models._config import Config


@dataclass(frozen=True)
class Rotary:
    """frequencies: angle per position of each pair; a head's first 2 * len(frequencies) numbers are rotated, none where
    there are none. scale: of cosine and sine."""

    frequencies: tuple[float, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class _Rope:
    """What a scaling rule may need. size: numbers of a head that are rotated. context: positions that are loaded."""

    size: int
    theta: float
    rule: Mapping[str, Any]
    context: int
    trained: int  # positions that the model knew before it was lengthened
    longest: int

    def number(self, key: str, default: float | None = None) -> float:
        value = self.rule.get(key)
        value = self.rule[key] if value is None and default is None else default if value is None else value
        return float(value)  # type: ignore[arg-type]

    def plain(self, theta: float = 0.0) -> list[float]:
        return [(theta or self.theta) ** (-2 * i / self.size) for i in range(self.size // 2)]


def rotary(
    config: Config,
    context: int,
    *,
    factors: Sequence[float] = (),
    part: float = 1.0,
    rule: Mapping[str, Any] | None = None,
) -> Rotary:
    """The angles by `rope_parameters` or `rope_theta` and `rope_scaling` of config.json.

    context: positions that are loaded; two rules depend on them. factors: divisors that a GGUF carries ready-made (its
    `rope_freqs`) in place of a rule. part: of a head that is rotated, where config.json does not say. rule: in place of
    config.json's.
    """
    rule = rule_of(config.more) if rule is None else rule
    try:
        rope = _rope(config, rule, context, part)
        if factors:
            divided = (f / factor for f, factor in zip(rope.plain(), factors, strict=True))
            return Rotary(tuple(divided))
        kind = rule.get("rope_type", rule.get("type", "default"))
        if kind not in _RULES:
            raise Unsupported(f"rope_scaling of type {str(kind)[:40]!r}; supported are {', '.join(_RULES)}")
        frequencies, scale = _RULES[kind](rope)
        if not all(map(math.isfinite, (*frequencies, scale))):
            raise ValueError("not all are finite")
        return Rotary(tuple(frequencies), scale)
    except KeyError as missing:
        raise BadModel(f"the configuration's rope_scaling lacks {missing}") from None
    except (ArithmeticError, TypeError, ValueError) as error:
        raise BadModel(
            f"the configuration's rope_scaling {str(dict(rule))[:200]} makes no frequencies: {error}"
        ) from None


def rule_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rope_parameters`, where transformers 5 has it all, or the older keys in its words."""
    older = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if config.get(key) is not None}
    return {**older, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}


def _rope(config: Config, rule: Mapping[str, Any], context: int, part: float) -> _Rope:
    theta, part = float(rule.get("rope_theta", 10000.0)), float(rule.get("partial_rotary_factor", part))
    size = int(config.head_dim * part)
    if not 1 <= theta < math.inf:
        raise BadModel(f"wanted rope_theta from 1, got {theta}")
    if size % 8 or not 0 < size <= config.head_dim:
        raise Unsupported(f"{size} of a head's {config.head_dim} numbers are rotated; wanted a multiple of 8")
    longest = config.max_position_embeddings
    trained = rule.get("original_max_position_embeddings") or config.more.get("original_max_position_embeddings")
    return _Rope(size, theta, rule, context, int(trained or longest), longest)


def _default(rope: _Rope) -> tuple[list[float], float]:
    return rope.plain(), 1.0


def _linear(rope: _Rope) -> tuple[list[float], float]:
    """All positions closer together (Chen et al. 2023)."""
    return [f / rope.number("factor") for f in rope.plain()], 1.0


def _dynamic(rope: _Rope) -> tuple[list[float], float]:
    """A larger theta beyond the known positions: for the context that is loaded, so that it stays as text grows."""
    factor, known = rope.number("factor"), rope.longest
    longer = factor * max(rope.context, known) / known - (factor - 1)
    return rope.plain(rope.theta * longer ** (rope.size / (rope.size - 2))), 1.0


def _llama3(rope: _Rope) -> tuple[list[float], float]:
    """Slow frequencies are divided by the factor, fast ones kept, those between blended (Llama 3.1)."""
    factor, low, high = (rope.number(k) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    known = rope.number("original_max_position_embeddings")
    turns = [known * f / (2 * math.pi) for f in rope.plain()]
    blends = [min(1.0, max(0.0, (n - low) / (high - low))) for n in turns]
    return [f * (blend + (1 - blend) / factor) for f, blend in zip(rope.plain(), blends, strict=True)], 1.0


def _yarn(rope: _Rope) -> tuple[list[float], float]:
    """Likewise, blended by the pair's number, and scores sharpened (YaRN, Peng et al. 2023)."""
    factor = rope.number("factor", rope.longest / rope.trained)

    def pair(turns: float) -> float:
        return rope.size * math.log(rope.trained / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(rope.number("beta_fast", 32)), pair(rope.number("beta_slow", 1))
    if rope.rule.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.size - 1)
    high += 0.001 * (low == high)
    slow = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(rope.size // 2)]
    frequencies = [f * (1 - s + s / factor) for f, s in zip(rope.plain(), slow, strict=True)]
    return frequencies, rope.number("attention_factor", _sharpened(rope, factor))


def _sharpened(rope: _Rope, factor: float) -> float:
    if factor <= 1:
        return 1.0
    own, all_dim = rope.rule.get("mscale"), rope.rule.get("mscale_all_dim")
    one, other = (own, all_dim) if own and all_dim else (1, 0)
    return (0.1 * one * math.log(factor) + 1) / (0.1 * other * math.log(factor) + 1)


def _longrope(rope: _Rope) -> tuple[list[float], float]:
    """A divisor for each pair: one list for contexts trained at first, one for longer ones (Ding et al. 2024)."""
    which = "long_factor" if rope.context > rope.trained else "short_factor"
    divided = (f / float(factor) for f, factor in zip(rope.plain(), rope.rule[which], strict=True))
    grown = rope.longest / rope.trained
    scale = math.sqrt(1 + math.log(grown) / math.log(rope.trained)) if grown > 1 else 1.0
    return list(divided), rope.number("attention_factor", scale)


_RULES: Mapping[str, Callable[[_Rope], tuple[list[float], float]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,
}

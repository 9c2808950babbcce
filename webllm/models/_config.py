"""config.json, read: the numbers that every family has, and access to the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webllm.errors import BadModel, Unsupported
from webllm.ops import Heads

# transformers' name of an activation function -> that in `ops.ACTS`
_ACTS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True)
class Config:
    """The keys of config.json that matter to all, under their own names; `more` is all of it."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    act: str
    more: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Config:
        """Read config.json; unknown keys are ignored, missing ones get the defaults that most architectures have.

        Raises `BadModel` for numbers that do not fit together, `Unsupported` for those that kernels cannot run.
        """
        try:
            heads = int(config["num_attention_heads"])
            eps = (config.get(key) for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"))
            made = cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                num_hidden_layers=int(config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // max(1, heads)),
                vocab_size=int(config["vocab_size"]),
                norm_eps=float(next((value for value in eps if value is not None), 1e-6)),
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
                act=_act(config),
                more=config,
            )
        except KeyError as missing:
            raise BadModel(f"the configuration lacks {missing}") from None
        made.check()
        return made

    def check(self) -> None:
        """Raise unless the numbers fit together and the kernels can run them."""
        sizes = (self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.num_key_value_heads)
        if min(*sizes, self.num_attention_heads, self.head_dim, self.vocab_size) < 1:
            raise BadModel(f"every size must be at least 1, got {self}")
        if not 0 <= self.norm_eps < math.inf:
            raise BadModel(f"wanted rms_norm_eps from 0, got {self.norm_eps}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise BadModel(f"{self.num_attention_heads} heads do not share {self.num_key_value_heads} K/V heads evenly")
        if self.hidden_size % 4 or self.intermediate_size % 4 or self.head_dim % 8 or self.head_dim > 256:
            raise Unsupported(
                f"wanted hidden_size and intermediate_size in fours, head_dim in eights up to 256; got "
                f"{self.hidden_size}, {self.intermediate_size}, {self.head_dim}"
            )

    @property
    def heads(self) -> Heads:
        """Shape of attention."""
        return Heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)

    def number(self, key: str, default: float) -> float:
        """A number of config.json; null counts as missing. Raises `BadModel` for anything else, and for infinities."""
        value = self.more.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadModel(f"the configuration's {key} must be a number, got {str(value)[:40]}")
        return float(value)

    def count(self, key: str, default: int, most: int = 1 << 31) -> int:
        """Likewise a whole number from 0 to `most`."""
        value = self.number(key, default)
        if value != int(value) or not 0 <= value <= most:
            raise BadModel(f"the configuration's {key} must be a whole number from 0 to {most}, got {value}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Likewise true or false."""
        value = self.more.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise BadModel(f"the configuration's {key} must be true or false, got {str(value)[:40]}")
        return value

    def each_layer(self, key: str) -> list[Any] | None:
        """A list with an entry a layer, or None. Raises `BadModel` for another number of entries."""
        value = self.more.get(key)
        if value is not None and (not isinstance(value, list | tuple) or len(value) < self.num_hidden_layers):
            raise BadModel(f"the configuration's {key} must be a list of {self.num_hidden_layers}, one a layer")
        return None if value is None else list(value)


def _act(config: Mapping[str, Any]) -> str:
    named = (config.get(key) for key in ("hidden_activation", "hidden_act", "activation_function"))
    name = next((value for value in named if value is not None), "silu")
    if name not in _ACTS:
        raise Unsupported(f"hidden_act {str(name)[:40]!r}; supported are {', '.join(_ACTS)}")
    return _ACTS[name]

"""Llama (Touvron et al. 2023): pre-norm blocks of grouped-query attention with rotary positions, and SwiGLU.

Also Vicuna, TinyLlama, SmolLM and all that say `model_type: llama`. Tensor names are those of
Hugging Face's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webllm import ops
from webllm.errors import BadModel, Unsupported
from webllm.ops import Cache, Heads, Matrix, Norm, Recorder, Tensor
from webllm.weights import Weights


@dataclass(frozen=True)
class Config:
    """The keys of config.json that matter here, under their own names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    tie_word_embeddings: bool
    max_position_embeddings: int
    qkv_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], *, qkv_bias: bool = False) -> Config:
        """Read config.json's keys; unknown ones are ignored, missing ones get the architecture's defaults."""
        _check_features(config)
        rope = config.get("rope_parameters") or {}  # where transformers 5 puts theta and scaling
        try:
            heads = int(config["num_attention_heads"])
            made = cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                num_hidden_layers=int(config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // max(1, heads)),
                vocab_size=int(config["vocab_size"]),
                rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
                rope_scaling=rope or config.get("rope_scaling"),
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
                qkv_bias=bool(config.get("attention_bias", qkv_bias)),
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
        if not (1 <= self.rope_theta < math.inf and 0 <= self.rms_norm_eps < math.inf):
            raise BadModel(
                f"wanted rope_theta from 1 and rms_norm_eps from 0, got {self.rope_theta}, {self.rms_norm_eps}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise BadModel(f"{self.num_attention_heads} heads do not share {self.num_key_value_heads} K/V heads evenly")
        if self.hidden_size % 4 or self.intermediate_size % 4 or self.head_dim % 8 or self.head_dim > 256:
            raise Unsupported(
                f"wanted hidden_size and intermediate_size in fours, head_dim in eights up to 256; got "
                f"{self.hidden_size}, {self.intermediate_size}, {self.head_dim}"
            )

    @property
    def heads(self) -> Heads:
        return Heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)


def _check_features(config: Mapping[str, Any]) -> None:
    """Raise `Unsupported` for what a configuration may ask for and the model here has not."""
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise Unsupported(f"hidden_act {act!r}; supported is silu")
    if config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or ()):
        raise Unsupported("use_sliding_window: attention to the last positions only is not supported")
    rotated = config.get("partial_rotary_factor") or (config.get("rope_parameters") or {}).get("partial_rotary_factor")
    if rotated not in (None, 1, 1.0):
        raise Unsupported(f"partial_rotary_factor {rotated!r}: only heads that are rotated as a whole are supported")


def config_of(config: Mapping[str, Any]) -> Config:
    """Read config.json."""
    return Config.of(config)


def inverse_frequencies(config: Config, factors: Sequence[float] = ()) -> list[float]:
    """Angle per position of each of the head_dim / 2 rotary pairs.

    factors: divisors that a GGUF carries ready-made (its `rope_freqs`) in place of `rope_scaling`.
    """
    half = config.head_dim // 2
    plain = [config.rope_theta ** (-i / half) for i in range(half)]
    if factors:
        return [f / factor for f, factor in zip(plain, factors, strict=True)]
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    try:
        if kind == "default":
            return plain
        if kind == "linear":
            return [f / float(scaling["factor"]) for f in plain]
        if kind == "llama3":
            return [_llama3(f, scaling) for f in plain]
    except KeyError as missing:
        raise BadModel(f"the configuration's rope_scaling lacks {missing}") from None
    except (ZeroDivisionError, TypeError, ValueError) as error:
        raise BadModel(f"the configuration's rope_scaling {dict(scaling)} makes no frequencies: {error}") from None
    raise Unsupported(f"rope_scaling of type {kind!r}; supported are default, linear and llama3")


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    """Slow frequencies are divided by the factor, fast ones kept, those between blended (Llama 3.1)."""
    factor, low, high = (float(scaling[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(scaling["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    blend = min(1.0, max(0.0, (turns - low) / (high - low)))
    return frequency * (blend + (1 - blend) / factor)


def decode(config: Config, rec: Recorder, w: Weights, caches: Sequence[Cache], logits: Tensor) -> None:
    """One token a sequence: fills the cache at its position and `logits` [rows, vocab]."""
    x = ops.embed(rec, embedding(config, w), caches[0].step)
    for i, cache in enumerate(caches):
        block(config, w, f"model.layers.{i}", x, cache)
    ops.linear(x, head(config, w), norm=norm(config, w, "model.norm.weight"), out=logits)


def prefill(config: Config, rec: Recorder, w: Weights, caches: Sequence[Cache]) -> None:
    """Many tokens of one sequence: fills the cache. The last block needs its K and V only."""
    x = ops.embed(rec, embedding(config, w), caches[0].step)
    last = len(caches) - 1
    for i, cache in enumerate(caches[:last]):
        block(config, w, f"model.layers.{i}", x, cache)
    ops.store(qkv(config, w, f"model.layers.{last}", x), config.heads, caches[last])


def block(config: Config, w: Weights, at: str, x: Tensor, cache: Cache) -> None:
    """One layer, added to the residual stream `x` in place."""
    heads = config.heads
    o_proj = w.matrix(f"{at}.self_attn.o_proj.weight", shape=(config.hidden_size, heads.heads * heads.dim))
    ops.attend(qkv(config, w, at, x), heads, cache, o_proj, add_to=x)

    size = (config.intermediate_size, config.hidden_size)
    gate_up = w.glu(f"{at}.mlp.gate_proj.weight", f"{at}.mlp.up_proj.weight", shape=size)
    down_proj = w.matrix(f"{at}.mlp.down_proj.weight", shape=(config.hidden_size, config.intermediate_size))
    hidden = ops.glu(x, gate_up, norm(config, w, f"{at}.post_attention_layernorm.weight"), to=down_proj)
    ops.linear(hidden, down_proj, add_to=x)


def qkv(config: Config, w: Weights, at: str, x: Tensor) -> Tensor:
    """Queries, keys and values of the step's rows, side by side: [rows, heads.width]."""
    names = [f"{at}.self_attn.{p}_proj" for p in "qkv"]
    width = config.heads.width
    weight = w.matrix(*(f"{n}.weight" for n in names), shape=(width, config.hidden_size), head_dim=config.head_dim)
    bias = None
    if config.qkv_bias:
        bias = w.vector(*(f"{n}.bias" for n in names), size=width, head_dim=config.head_dim)
    return ops.linear(x, weight, norm=norm(config, w, f"{at}.input_layernorm.weight"), bias=bias)


def norm(config: Config, w: Weights, name: str) -> Norm:
    """The weight called `name` of a root-mean-square norm, with the model's epsilon."""
    return Norm(w.vector(name, size=config.hidden_size), config.rms_norm_eps)


def head(config: Config, w: Weights) -> Matrix:
    """The LM head; tied embeddings share the embedding's buffers."""
    if config.tie_word_embeddings:
        return embedding(config, w)
    return w.matrix("lm_head.weight", shape=(config.vocab_size, config.hidden_size))


def embedding(config: Config, w: Weights) -> Matrix:
    """A row a token."""
    return w.matrix("model.embed_tokens.weight", shape=(config.vocab_size, config.hidden_size))

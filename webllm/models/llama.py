"""Llama (Touvron et al. 2023): pre-norm blocks of grouped-query attention with rotary positions, and SwiGLU.

Also Vicuna, TinyLlama, SmolLM and all that say `model_type: llama`. Tensor names are those of
Hugging Face's checkpoints. Other families are this `Model` with the methods changed in which they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from webllm import ops
from webllm.models._config import Config
from webllm.models._rotary import Rotary, rotary
from webllm.ops import Cache, Heads, LayerNorm, Matrix, Norm, Recorder, Tensor, Vector
from webllm.weights import Name, Weights


class Model:
    """Records the steps of one model: operations on `weights`, as `config`, its config.json, says."""

    biased = False  # whether all linear layers have biases
    output = "self_attn.o_proj"
    attention_norm: str | None = "input_layernorm"  # before attention
    mlp_norm: str | None = "post_attention_layernorm"  # before the feed-forward layer
    defaults: ClassVar[Mapping[str, Any]] = {}  # for keys that config.json lacks

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        given = {key: value for key, value in config.items() if value is not None}
        self.config, self.w = Config.of({**self.defaults, **given}), weights

    def rotary(self, layer: int, context: int, factors: Sequence[float] = ()) -> Rotary:
        """Rotary positions of a layer, for so many positions. factors: a GGUF's own."""
        return rotary(self.config, context, factors=factors)

    def heads(self, layer: int) -> Heads:
        """Attention of a layer."""
        return self.config.heads

    def decode(self, rec: Recorder, caches: Sequence[Cache], logits: Tensor) -> None:
        """One token a sequence: fills the cache at its position and `logits` [rows, vocab]."""
        x = self.embed(rec, caches[0].step)
        for layer, cache in enumerate(caches):
            self.block(layer, x, cache)
        self.head(x, logits)

    def prefill(self, rec: Recorder, caches: Sequence[Cache]) -> None:
        """Many tokens of one sequence: fills the cache. The last block needs its K and V only."""
        x = self.embed(rec, caches[0].step)
        for layer, cache in enumerate(caches[:-1]):
            self.block(layer, x, cache)
        last = len(caches) - 1
        ops.store(self.qkv(last, x), self.heads(last), caches[last])

    def embed(self, rec: Recorder, step: int) -> Tensor:
        """The step's tokens as vectors: the residual stream [rows, hidden]."""
        return ops.embed(rec, self.embedding(), step)

    def block(self, layer: int, x: Tensor, cache: Cache) -> None:
        """One layer, added to the residual stream `x` in place."""
        self.attention(layer, x, cache, add_to=x)
        self.mlp(layer, x, add_to=x)

    def attention(self, layer: int, x: Tensor, cache: Cache, add_to: Tensor | None = None) -> Tensor:
        """Attention of the layer, projected: [rows, hidden]."""
        return self.attend(layer, self.qkv(layer, x), cache, add_to)

    def attend(self, layer: int, qkv: Tensor, cache: Cache, add_to: Tensor | None = None) -> Tensor:
        """Attention by queries, keys and values, projected: [rows, hidden]."""
        heads, size, name = self.heads(layer), self.config.hidden_size, f"{self.at(layer)}.{self.output}"
        weight = self.w.matrix(f"{name}.weight", shape=(size, heads.heads * heads.dim))
        return ops.attend(qkv, heads, cache, weight, bias=self.bias(f"{name}.bias", size), add_to=add_to)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values of the step's rows, side by side: [rows, heads.width]."""
        names = [f"{self.at(layer)}.self_attn.{p}_proj" for p in "qkv"]
        weights, biases = ([f"{name}.{what}" for name in names] for what in ("weight", "bias"))
        biased = self.biased or self.config.flag("attention_bias", False)
        return self.project(x, weights, biases if biased else (), self.before(layer, self.attention_norm))

    def project(
        self, x: Tensor, weights: Sequence[Name], biases: Sequence[Name], norm: Norm | LayerNorm | None
    ) -> Tensor:
        """Queries, keys and values by these weights, stacked: [rows, heads.width]."""
        config, width = self.config, self.config.heads.width
        weight = self.w.matrix(*weights, shape=(width, config.hidden_size), head_dim=config.head_dim)
        bias = self.w.vector(*biases, size=width, head_dim=config.head_dim) if biases else None
        return ops.linear(x, weight, norm=norm, bias=bias)

    def mlp(self, layer: int, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """The gated feed-forward layer: [rows, hidden]."""
        gate_up, down, norm = self.gate_up(layer), self.down(layer), self.before(layer, self.mlp_norm)
        gated = ops.glu(x, gate_up, norm, to=down, act=self.config.act)
        return ops.linear(gated, down, add_to=add_to)

    def gate_up(self, layer: int) -> Matrix:
        """Gate and up projections, side by side."""
        gate, up = (f"{self.at(layer)}.mlp.{p}_proj.weight" for p in ("gate", "up"))
        return self.w.glu(gate, up, shape=(self.config.intermediate_size, self.config.hidden_size))

    def down(self, layer: int) -> Matrix:
        """The projection back to the residual stream."""
        shape = (self.config.hidden_size, self.config.intermediate_size)
        return self.w.matrix(f"{self.at(layer)}.mlp.down_proj.weight", shape=shape)

    def head(self, x: Tensor, logits: Tensor) -> None:
        """The last norm and the LM head; tied embeddings share the embedding's buffers."""
        ops.linear(x, self.unembedding("lm_head.weight"), norm=self.norm("model.norm"), out=logits)

    def norm(self, name: str) -> Norm | LayerNorm:
        """The norm called `name`, with the model's epsilon."""
        return self.rms_norm(name, self.config.hidden_size)

    def rms_norm(self, name: str, size: int) -> Norm:
        """The root-mean-square norm called `name`."""
        return Norm(self.w.vector(f"{name}.weight", size=size), self.config.norm_eps)

    def layer_norm(self, name: str) -> LayerNorm:
        """The norm called `name` that takes the mean away too."""
        weight, bias = (self.w.vector(f"{name}.{what}", size=self.config.hidden_size) for what in ("weight", "bias"))
        return LayerNorm(weight, bias, self.config.norm_eps)

    def before(self, layer: int, name: str | None) -> Norm | LayerNorm | None:
        """The norm before a part of the layer, if it has one."""
        return None if name is None else self.norm(f"{self.at(layer)}.{name}")

    def bias(self, name: str, size: int) -> Vector | None:
        """The bias called `name`, if there is one."""
        return self.w.vector(name, size=size) if self.biased or self.w.has(name) else None

    def embedding(self) -> Matrix:
        """A row a token."""
        return self.table("model.embed_tokens.weight")

    def unembedding(self, name: str) -> Matrix:
        """The LM head called `name`, or the embedding where they are one."""
        return self.embedding() if self.config.tie_word_embeddings else self.table(name)

    def table(self, name: str) -> Matrix:
        """A matrix of a row a token."""
        return self.w.matrix(name, shape=(self.config.vocab_size, self.config.hidden_size))

    def at(self, layer: int) -> str:
        """What the names of a layer's tensors begin with."""
        return f"model.layers.{layer}"

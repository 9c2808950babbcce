"""GPT-2 (Radford et al. 2019): pre-norm blocks with LayerNorm and GELU, learned positions. Weights are [in, out]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from webllm import ops
from webllm.models import llama
from webllm.models._rotary import Rotary
from webllm.ops import Cache, LayerNorm, Matrix, Recorder, Tensor
from webllm.weights import Weights


class Model(llama.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        super().__init__(config, weights)
        self.prefix = "" if weights.has("wte.weight") else "transformer."  # the first files have none

    def rotary(self, layer: int, context: int, factors: Sequence[float] = ()) -> Rotary:
        """None: positions are learned."""
        return Rotary()

    def embed(self, rec: Recorder, step: int) -> Tensor:
        """The step's tokens and positions as vectors."""
        x = ops.embed(rec, self.embedding(), step)
        shape = (self.config.max_position_embeddings, self.config.hidden_size)
        ops.add_positions(x, self.w.matrix(f"{self.prefix}wpe.weight", shape=shape), step)
        return x

    def attend(self, layer: int, qkv: Tensor, cache: Cache, add_to: Tensor | None = None) -> Tensor:
        """Attention by queries, keys and values, projected."""
        heads, name, size = self.heads(layer), f"{self.at(layer)}.attn.c_proj", self.config.hidden_size
        weight, bias = self.turned(name, (size, heads.heads * heads.dim)), self.w.vector(f"{name}.bias", size=size)
        return ops.attend(qkv, heads, cache, weight, bias=bias, add_to=add_to)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values of the step's rows, side by side."""
        return self.linear(x, f"{self.at(layer)}.attn.c_attn", self.config.heads.width, f"{self.at(layer)}.ln_1")

    def mlp(self, layer: int, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """Two weights, GELU between them."""
        at, hidden, inner = self.at(layer), self.config.hidden_size, self.config.intermediate_size
        down = self.turned(f"{at}.mlp.c_proj", (hidden, inner))
        wide = ops.act(self.linear(x, f"{at}.mlp.c_fc", inner, f"{at}.ln_2"), self.config.act, to=down)
        return ops.linear(wide, down, bias=self.w.vector(f"{at}.mlp.c_proj.bias", size=hidden), add_to=add_to)

    def linear(self, x: Tensor, name: str, rows: int, norm: str) -> Tensor:
        """A linear layer of the normalised residual stream."""
        weight, bias = self.turned(name, (rows, self.config.hidden_size)), self.w.vector(f"{name}.bias", size=rows)
        return ops.linear(x, weight, norm=self.norm(norm), bias=bias)

    def turned(self, name: str, shape: tuple[int, int]) -> Matrix:
        """A linear layer's weight [out, in]."""
        return self.w.transposed(f"{name}.weight", shape)

    def norm(self, name: str) -> LayerNorm:
        """The norm called `name`."""
        return self.layer_norm(name)

    def head(self, x: Tensor, logits: Tensor) -> None:
        """The last norm and the LM head."""
        norm = self.norm(f"{self.prefix}ln_f")
        ops.linear(x, self.unembedding("lm_head.weight"), norm=norm, out=logits)

    def embedding(self) -> Matrix:
        """A row a token."""
        return self.table(f"{self.prefix}wte.weight")

    def at(self, layer: int) -> str:
        """What the names of a layer's tensors begin with."""
        return f"{self.prefix}h.{layer}"

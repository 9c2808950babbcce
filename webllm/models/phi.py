"""Phi-1.5 and Phi-2 (Li et al. 2023): attention and feed-forward layer side by side, behind one LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm import ops
from webllm.errors import Unsupported
from webllm.models import llama
from webllm.models._mlp import mlp
from webllm.ops import Cache, Tensor
from webllm.weights import Weights


class Model(llama.Model):
    """See `llama.Model`."""

    biased = True
    output = "self_attn.dense"
    attention_norm = None  # `normalised` is what attention gets
    defaults: ClassVar[Mapping[str, Any]] = {
        "partial_rotary_factor": 0.5,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu_new",
    }

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        super().__init__(config, weights)
        if self.config.flag("qk_layernorm", False):
            raise Unsupported("qk_layernorm: Phi with norms of q and k is not supported")

    def block(self, layer: int, x: Tensor, cache: Cache) -> None:
        """One layer: both parts take the same, and add to the residual stream."""
        normalised, at = self.normalised(layer, x), f"{self.at(layer)}.mlp"
        self.attend(layer, super().qkv(layer, normalised), cache, add_to=x)
        mlp(self, normalised, None, f"{at}.fc1", f"{at}.fc2", add_to=x)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values of the step's rows, side by side."""
        return super().qkv(layer, self.normalised(layer, x))

    def normalised(self, layer: int, x: Tensor) -> Tensor:
        """What both parts take."""
        return ops.layer_norm(x, self.layer_norm(f"{self.at(layer)}.input_layernorm"))

    def head(self, x: Tensor, logits: Tensor) -> None:
        """The last norm and the LM head, which has a bias."""
        bias = self.w.vector("lm_head.bias", size=self.config.vocab_size)
        norm = self.layer_norm("model.final_layernorm")
        ops.linear(x, self.unembedding("lm_head.weight"), norm=norm, bias=bias, out=logits)

"""GPT-NeoX (Black et al. 2022) and Pythia: attention and feed-forward layer side by side, each behind its LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm import ops
from webllm.models import llama
from webllm.models._mlp import mlp
from webllm.ops import Cache, LayerNorm, Matrix, Tensor
from webllm.weights import Rows, Weights


class Model(llama.Model):
    """See `llama.Model`."""

    biased = True
    output = "attention.dense"
    defaults: ClassVar[Mapping[str, Any]] = {"hidden_act": "gelu", "layer_norm_eps": 1e-5}

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        older = {"partial_rotary_factor": config.get("rotary_pct", 0.25), "rope_theta": config.get("rotary_emb_base")}
        super().__init__({**{k: v for k, v in older.items() if v is not None}, **config}, weights)

    def block(self, layer: int, x: Tensor, cache: Cache) -> None:
        """One layer. Unless its parts come one after the other, both take the residual stream as it was."""
        norm = self.norm(f"{self.at(layer)}.post_attention_layernorm")
        if self.config.flag("use_parallel_residual", True):
            normalised = ops.layer_norm(x, norm)
            self.attention(layer, x, cache, add_to=x)
            self.feed_forward(layer, normalised, None, add_to=x)
        else:
            self.attention(layer, x, cache, add_to=x)
            self.feed_forward(layer, x, norm, add_to=x)

    def feed_forward(self, layer: int, x: Tensor, norm: LayerNorm | None, add_to: Tensor) -> None:
        """Two weights, GELU between them."""
        at = f"{self.at(layer)}.mlp"
        mlp(self, x, norm, f"{at}.dense_h_to_4h", f"{at}.dense_4h_to_h", add_to)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values; the checkpoint has them head by head."""
        name, dim = f"{self.at(layer)}.attention.query_key_value", self.config.head_dim
        places = [(3 * head + part) * dim for part in range(3) for head in range(self.config.num_attention_heads)]
        weights, biases = ([Rows(f"{name}.{what}", at, at + dim) for at in places] for what in ("weight", "bias"))
        return self.project(x, weights, biases, self.before(layer, self.attention_norm))

    def norm(self, name: str) -> LayerNorm:
        """The norm called `name`."""
        return self.layer_norm(name)

    def head(self, x: Tensor, logits: Tensor) -> None:
        """The last norm and the LM head."""
        ops.linear(x, self.unembedding("embed_out.weight"), norm=self.norm("gpt_neox.final_layer_norm"), out=logits)

    def embedding(self) -> Matrix:
        """A row a token."""
        return self.table("gpt_neox.embed_in.weight")

    def at(self, layer: int) -> str:
        """What the names of a layer's tensors begin with."""
        return f"gpt_neox.layers.{layer}"

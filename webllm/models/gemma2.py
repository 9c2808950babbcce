"""Gemma 2 (Gemma Team 2024): norms on both sides of each part, soft caps, and a sliding window in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from webllm import ops
from webllm.models import gemma
from webllm.models._norms import post_norm_block
from webllm.ops import Cache, Heads, Tensor


class Model(gemma.Model):
    """See `llama.Model`."""

    mlp_norm = "pre_feedforward_layernorm"
    defaults: ClassVar[Mapping[str, Any]] = {
        **gemma.Model.defaults,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window_pattern": 2,  # every second layer attends to all positions
    }

    def heads(self, layer: int) -> Heads:
        """Attention of a layer: to a window, or to all positions."""
        scale = self.config.number("query_pre_attn_scalar", 256) ** -0.5
        window = self.config.count("sliding_window", 4096) if self.is_local(layer) else 0
        return replace(
            self.config.heads, scale=scale, cap=self.config.number("attn_logit_softcapping", 0), window=window
        )

    def is_local(self, layer: int) -> bool:
        """Whether a layer attends to a window."""
        if types := self.config.each_layer("layer_types"):
            return bool(types[layer] == "sliding_attention")
        return (layer + 1) % max(1, self.config.count("sliding_window_pattern", 1)) != 0

    def block(self, layer: int, x: Tensor, cache: Cache) -> None:
        """One layer: what its parts give is normalised before it joins the residual stream."""
        post_norm_block(self, layer, x, cache)

    def head(self, x: Tensor, logits: Tensor) -> None:
        """The LM head, its logits within a bound."""
        super().head(x, logits)
        if cap := self.config.number("final_logit_softcapping", 0):
            ops.soft_cap(logits, cap)

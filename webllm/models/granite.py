"""Granite 3 (Granite Team 2024): Llama with multipliers of embeddings, residuals, attention and logits.

They cost nothing here. The residual stream is kept divided by the residual multiplier: parts then add what they give as
it is, and norms, which take scale away, need only their epsilon divided by its square. The last norm's weight takes the
logits' scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webllm import ops
from webllm.errors import BadModel
from webllm.models import llama
from webllm.ops import Heads, Norm, Recorder, Tensor
from webllm.weights import Weights


class Model(llama.Model):
    """See `llama.Model`."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        super().__init__(config, weights)
        self.residual = self.config.number("residual_multiplier", 1)
        self.logits_scaling = self.config.number("logits_scaling", 1)
        if self.residual <= 0 or self.logits_scaling <= 0:
            raise BadModel("the configuration's residual_multiplier and logits_scaling must be above 0")

    def heads(self, layer: int) -> Heads:
        """Attention, whose scores have a factor of their own."""
        return replace(self.config.heads, scale=self.config.number("attention_multiplier", 1))

    def embed(self, rec: Recorder, step: int) -> Tensor:
        """The step's tokens as vectors, in the residual stream's scale."""
        scale = self.config.number("embedding_multiplier", 1) / self.residual
        return ops.embed(rec, self.embedding(), step, scale=scale)

    def rms_norm(self, name: str, size: int) -> Norm:
        """The norm called `name`, for the residual stream's scale."""
        scale = 1 / self.logits_scaling if name == "model.norm" else 1.0
        return Norm(self.w.vector(f"{name}.weight", size=size, scale=scale), self.config.norm_eps / self.residual**2)

"""Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024): Llama with one weight for q, k and v, and one for gate and up.

Positions are lengthened by LongRoPE, and Phi-4-mini rotates three quarters of a head.
"""

from __future__ import annotations

from webllm.models import mistral
from webllm.ops import Matrix, Tensor
from webllm.weights import Rows


class Model(mistral.Model):
    """See `llama.Model`."""

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values of the step's rows, side by side."""
        norm = self.before(layer, self.attention_norm)
        return self.project(x, [f"{self.at(layer)}.self_attn.qkv_proj.weight"], (), norm)

    def gate_up(self, layer: int) -> Matrix:
        """The upper half of the rows is gate, the lower up."""
        name, half = f"{self.at(layer)}.mlp.gate_up_proj.weight", self.config.intermediate_size
        return self.w.glu(Rows(name, 0, half), Rows(name, half, 2 * half), shape=(half, self.config.hidden_size))

"""Qwen3 (Yang et al. 2025): Llama with a norm of each head of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm import ops
from webllm.models import qwen2
from webllm.ops import Tensor


class Model(qwen2.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {}

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values, the first two normalised."""
        qkv = super().qkv(layer, x)
        q, k = (self.rms_norm(f"{self.at(layer)}.self_attn.{p}_norm", self.config.head_dim) for p in "qk")
        ops.qk_norm(qkv, self.config.heads, q, k)
        return qkv

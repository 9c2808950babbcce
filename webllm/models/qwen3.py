"""Qwen3 (Yang et al. 2025): Llama with a norm of each head of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm.models import qwen2
from webllm.models._norms import qk_norm
from webllm.ops import Tensor


class Model(qwen2.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {}

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values, the first two normalised."""
        return qk_norm(self, layer, super().qkv(layer, x), self.config.head_dim, self.config.head_dim)

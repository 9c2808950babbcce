"""OLMo 2 (OLMo Team 2024): Llama with norms after each part in place of before it, and norms of all of q and of k."""

from __future__ import annotations

from webllm.models import llama
from webllm.models._norms import post_norm_block, qk_norm
from webllm.ops import Cache, Tensor


class Model(llama.Model):
    """See `llama.Model`."""

    attention_norm = mlp_norm = None

    def block(self, layer: int, x: Tensor, cache: Cache) -> None:
        """One layer."""
        post_norm_block(self, layer, x, cache)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values, the first two normalised over all heads together."""
        heads = self.config.heads
        return qk_norm(self, layer, super().qkv(layer, x), heads.heads * heads.dim, heads.kv_heads * heads.dim)

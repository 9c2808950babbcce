"""Norms beside those before each part of a block."""

from __future__ import annotations

from webllm import ops
from webllm.models.llama import Model
from webllm.ops import Cache, Tensor


def qk_norm(model: Model, layer: int, qkv: Tensor, q_size: int, k_size: int) -> Tensor:
    """Normalises q and k in place, by weights of these sizes, and returns qkv."""
    at = f"{model.at(layer)}.self_attn"
    q, k = model.rms_norm(f"{at}.q_norm", q_size), model.rms_norm(f"{at}.k_norm", k_size)
    ops.qk_norm(qkv, model.config.heads, q, k)
    return qkv


def post_norm_block(model: Model, layer: int, x: Tensor, cache: Cache) -> None:
    """A block whose parts' outputs are normalised before they join the residual stream `x`."""
    at, size = model.at(layer), model.config.hidden_size
    ops.add_norm(model.attention(layer, x, cache), model.rms_norm(f"{at}.post_attention_layernorm", size), add_to=x)
    ops.add_norm(model.mlp(layer, x), model.rms_norm(f"{at}.post_feedforward_layernorm", size), add_to=x)

"""The feed-forward layer without a gate: two weights, an activation function between them."""

from __future__ import annotations

from webllm import ops
from webllm.models.llama import Model
from webllm.ops import LayerNorm, Tensor


def mlp(model: Model, x: Tensor, norm: LayerNorm | None, up: str, down: str, add_to: Tensor | None = None) -> Tensor:
    """down(act(up(norm(x)))), with biases if there are any; added to `add_to` in place if given: [rows, hidden]."""
    hidden, inner = model.config.hidden_size, model.config.intermediate_size
    to = model.w.matrix(f"{down}.weight", shape=(hidden, inner))
    wide = ops.linear(
        x, model.w.matrix(f"{up}.weight", shape=(inner, hidden)), norm=norm, bias=model.bias(f"{up}.bias", inner)
    )
    return ops.linear(
        ops.act(wide, model.config.act, to=to), to, bias=model.bias(f"{down}.bias", hidden), add_to=add_to
    )

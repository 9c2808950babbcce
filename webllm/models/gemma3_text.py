"""Gemma 3 (Gemma Team 2025), the text models: Gemma 2 with norms of q and k in place of soft caps.

Five of six layers attend to a window, with rotary positions of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from webllm.models import gemma, gemma2
from webllm.models._norms import qk_norm
from webllm.models._rotary import Rotary, rotary
from webllm.ops import Tensor


class Model(gemma2.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {**gemma.Model.defaults, "sliding_window_pattern": 6}

    def rotary(self, layer: int, context: int, factors: Sequence[float] = ()) -> Rotary:
        """Angles of a layer: slower, and perhaps lengthened, where it attends to all positions."""
        kind = "sliding_attention" if self.is_local(layer) else "full_attention"
        rules: Mapping[str, Any] = self.config.more.get("rope_parameters") or {}
        if isinstance(rules.get(kind), Mapping):
            rule: Mapping[str, Any] = {"rope_theta": 1e4 if self.is_local(layer) else 1e6, **rules[kind]}
        elif self.is_local(layer):
            rule = {"rope_theta": self.config.number("rope_local_base_freq", 1e4)}
        else:
            scaling = self.config.more.get("rope_scaling") or {}
            rule = {"rope_theta": self.config.number("rope_theta", 1e6), **scaling}
        return rotary(self.config, context, rule=rule)

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        """Queries, keys and values, the first two normalised."""
        return qk_norm(self, layer, super().qkv(layer, x), self.config.head_dim, self.config.head_dim)

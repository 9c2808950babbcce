"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm.models import llama
from webllm.models._window import sliding
from webllm.ops import Heads


class Model(llama.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {"attention_bias": True}

    def heads(self, layer: int) -> Heads:
        """Attention of a layer; some look at a sliding window alone."""
        return sliding(self.config, layer)

"""Mistral (Jiang et al. 2023): Llama, attending to a sliding window of positions in its first version."""

from __future__ import annotations

from webllm.models import llama
from webllm.models._window import sliding
from webllm.ops import Heads


class Model(llama.Model):
    """See `llama.Model`."""

    def heads(self, layer: int) -> Heads:
        """Attention of a layer."""
        return sliding(self.config, layer, every=True)

"""SmolLM3 (Bakouch et al. 2025): Llama without rotary positions in every fourth layer."""

from __future__ import annotations

from collections.abc import Sequence

from webllm.models import llama
from webllm.models._rotary import Rotary
from webllm.models._window import sliding
from webllm.ops import Heads


class Model(llama.Model):
    """See `llama.Model`."""

    def rotary(self, layer: int, context: int, factors: Sequence[float] = ()) -> Rotary:
        """Rotary positions of a layer, or none (NoPE, Kazemnejad et al. 2023)."""
        which = self.config.each_layer("no_rope_layers")  # 1 where there are some, whatever the name says
        interval = max(1, self.config.count("no_rope_layer_interval", 4))
        has_some = which[layer] if which else (layer + 1) % interval
        return super().rotary(layer, context, factors) if has_some else Rotary()

    def heads(self, layer: int) -> Heads:
        """Attention of a layer."""
        return sliding(self.config, layer)

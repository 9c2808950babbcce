"""Sliding windows: which layers attend to the last positions only."""

from __future__ import annotations

from dataclasses import replace

from webllm.models._config import Config
from webllm.ops import Heads


def sliding(config: Config, layer: int, every: bool = False) -> Heads:
    """Attention of a layer: of `sliding_window` positions where config.json says that the layer has one.

    `layer_types` says it; without it, `every` layer has one, or, with `use_sliding_window`, those from
    `max_window_layers` on.
    """
    window, types = config.count("sliding_window", 0), config.each_layer("layer_types")
    if types:
        has_one = types[layer] == "sliding_attention"
    elif every:
        has_one = True
    else:
        has_one = config.flag("use_sliding_window", False) and layer >= config.count("max_window_layers", 0)
    return replace(config.heads, window=window) if has_one else config.heads

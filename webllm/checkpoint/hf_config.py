"""config.json in one family's words, in the words that most use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OLDER = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}


def in_common_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with GPT-2's keys under the others' names too, where it has none under those.

    in_common_words({"n_layer": 12})["num_hidden_layers"]  # 12
    """
    found = {theirs: config[ours] for ours, theirs in _OLDER.items() if config.get(ours) is not None}
    if type(config.get("n_embd")) is int:
        found = {"intermediate_size": 4 * config["n_embd"], **found}
    return {**found, **{key: value for key, value in config.items() if value is not None or key not in found}}

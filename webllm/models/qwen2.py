"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webllm.models import llama
from webllm.models.llama import Config, decode, inverse_frequencies, prefill

__all__ = ["Config", "config_of", "decode", "inverse_frequencies", "prefill"]


def config_of(config: Mapping[str, Any]) -> Config:
    """Read config.json; Qwen2 does not name its biases there."""
    return llama.Config.of(config, qkv_bias=True)

"""StableLM 2 (Bellagente et al. 2024): Llama with LayerNorm, a quarter of each head rotated, biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from webllm.errors import Unsupported
from webllm.models import llama
from webllm.ops import LayerNorm
from webllm.weights import Weights


class Model(llama.Model):
    """See `llama.Model`."""

    defaults: ClassVar[Mapping[str, Any]] = {"partial_rotary_factor": 0.25, "layer_norm_eps": 1e-5}

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        super().__init__({**config, "attention_bias": config.get("use_qkv_bias")}, weights)
        for key in ("use_parallel_residual", "qk_layernorm"):
            if self.config.flag(key, False):
                raise Unsupported(f"{key}: StableLM with it (StableLM-2-12B) is not supported")

    def norm(self, name: str) -> LayerNorm:
        """The norm called `name`."""
        return self.layer_norm(name)

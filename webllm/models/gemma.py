"""Gemma (Gemma Team 2024): Llama with scaled embeddings, GELU, and norms whose weights count from one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from webllm import ops
from webllm.models import llama
from webllm.ops import Norm, Recorder, Tensor


class Model(llama.Model):
    """See `llama.Model`."""

    # Early files say "gelu" in hidden_act and mean this.
    defaults: ClassVar[Mapping[str, Any]] = {"tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh"}

    def embed(self, rec: Recorder, step: int) -> Tensor:
        """The step's tokens as vectors of about unit size."""
        return ops.embed(rec, self.embedding(), step, scale=math.sqrt(self.config.hidden_size))

    def rms_norm(self, name: str, size: int) -> Norm:
        """The norm called `name`: by 1 + weight. Some formats (`norms_include_one`) hold the sum."""
        plus = 0.0 if self.config.flag("norms_include_one", False) else 1.0
        return Norm(self.w.vector(f"{name}.weight", size=size, plus=plus), self.config.norm_eps)

"""Makes tests/data/tiny-llama and tiny-qwen2: random models as `transformers` saves them, and what it computes.

    pip install torch transformers && python tests/data/make_tiny.py

The weights are bfloat16; logits are of the same weights in float32 on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

HERE = Path(__file__).parent
SIZES = {
    "hidden_size": 44,  # no whole number of units of 32 columns
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 131,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SCALING = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
POSITIONS = [0, 1, 31, 33, 39]


def make(name: str, model: transformers.PreTrainedModel) -> None:
    """Large weights and uneven norms, so that a wrong one is seen."""
    with torch.no_grad():
        for key, value in model.named_parameters():
            scale = 0.3 if value.dim() == 1 else value.shape[-1] ** -0.5
            value.copy_(torch.randn_like(value) * scale + ("norm" in key))
    model.generation_config.eos_token_id = [2, 7]
    model.to(torch.bfloat16).save_pretrained(HERE / name)
    model = type(model).from_pretrained(HERE / name, dtype=torch.float32)  # its rotary frequencies are not rounded
    ids = torch.randint(0, SIZES["vocab_size"], (1, POSITIONS[-1] + 1))
    with torch.no_grad():
        logits = model(ids).logits[0, POSITIONS].tolist()
    expected = {"transformers": transformers.__version__, "ids": ids[0].tolist(), "positions": POSITIONS}
    rounded = [[float(f"{value:.8g}") for value in row] for row in logits]
    (HERE / name / "expected.json").write_text(json.dumps({**expected, "logits": rounded}) + "\n", encoding="utf-8")


torch.manual_seed(3)
make("tiny-llama", LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=SCALING, tie_word_embeddings=False)))
make("tiny-qwen2", Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)))

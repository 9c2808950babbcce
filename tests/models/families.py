"""The families of models, one case or more of each: what tests/data/families/ is made of, and docs/models.md lists.

Sizes are awkward on purpose: no powers of two, rows that end within units of 32 columns, heads * head_dim that is not
hidden_size. Weights are made of their tensors' names, so that none need to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

SIZES = {
    "hidden_size": 84,
    "intermediate_size": 76,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 131,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EVEN = {**SIZES, "hidden_size": 96}  # for families whose heads make up the hidden size
NO_GROUPS = {**EVEN, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": None}
PROMPT = 141  # more than a chunk of 64 rows and a split of 128 positions
POSITIONS = (0, 1, 23, 24, 25, 33, 64, 127, 128, 140)  # ends of windows, pages, chunks and splits
GREEDY = 50
WINDOW = 24


@dataclass(frozen=True)
class Case:
    """A tiny model of a family. config: what config.json has besides SIZES. says: what sets it apart.

    context: positions that are loaded, where a rule depends on them. greedy: tokens that follow the prompt.
    """

    family: str
    models: str
    says: str
    config: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    context: int = PROMPT + GREEDY + 1
    greedy: int = GREEDY
    norm: float = 1.0  # about what norms' weights are


def rope(kind: str, **rule: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **rule}}


LLAMA = "Llama 1 to 3.2, Vicuna, TinyLlama, SmolLM and SmolLM2, DeepSeek-R1-Distill-Llama"
QWEN2 = "Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen"
PHI3 = "Phi-3, Phi-3.5-mini, Phi-4-mini"
LONG = {
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5],
    "long_factor": [1.0, 1.2, 1.7, 2.4, 3.2, 5.0, 6.5, 8.0],
}

CASES: Mapping[str, Case] = {
    "llama": Case("llama", LLAMA, "grouped-query attention, SwiGLU"),
    "llama-linear": Case("llama", LLAMA, "rope scaling linear", rope("linear", factor=4.0)),
    "llama-dynamic": Case(
        "llama",
        LLAMA,
        "rope scaling dynamic",
        {**rope("dynamic", factor=4.0), "max_position_embeddings": 64},
        context=PROMPT,
        greedy=0,
    ),
    "llama-yarn": Case(
        "llama", LLAMA, "rope scaling YaRN", rope("yarn", factor=4.0, original_max_position_embeddings=64)
    ),
    "llama-llama3": Case(
        "llama",
        LLAMA,
        "rope scaling llama3",
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "llama-biased": Case("llama", LLAMA, "biases of attention", {"attention_bias": True, "tie_word_embeddings": True}),
    "qwen2": Case("qwen2", QWEN2, "biases of q, k and v", {"tie_word_embeddings": True}),
    "qwen3": Case("qwen3", "Qwen3", "norms of q and k"),
    "mistral": Case("mistral", "Mistral 7B, Ministral, Mistral Nemo", "a sliding window", {"sliding_window": WINDOW}),
    "phi3": Case("phi3", PHI3, "fused weights", {"sliding_window": WINDOW}),
    "phi3-partial": Case(
        "phi3",
        PHI3,
        "part of a head is rotated; LongRoPE below its first context",
        {
            **rope("longrope", partial_rotary_factor=0.5, **{k: v[:4] for k, v in LONG.items()}),
            "head_dim": None,
            "original_max_position_embeddings": 200,
        },
        EVEN,
    ),
    "phi3-longrope": Case(
        "phi3",
        PHI3,
        "LongRoPE beyond its first context",
        {**rope("longrope", **LONG), "original_max_position_embeddings": 64, "head_dim": None},
        EVEN,
    ),
    "gemma": Case("gemma", "Gemma", "scaled embeddings, norms by 1 + weight, GELU", norm=0.0),
    "gemma2": Case(
        "gemma2",
        "Gemma 2",
        "soft caps, local and global attention, norms after each part",
        {
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 20,
        },
        norm=0.0,
    ),
    "gemma3_text": Case(
        "gemma3_text",
        "Gemma 3 (270M, 1B)",
        "norms of q and k, five local layers to a global one with rotary positions of its own",
        {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 20,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        },
        norm=0.0,
    ),
    "olmo2": Case("olmo2", "OLMo 2", "norms after each part, norms of all of q and of k"),
    "granite": Case(
        "granite",
        "Granite 3",
        "multipliers of embeddings, residuals, attention and logits",
        {
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.2,
            "logits_scaling": 3.0,
            "tie_word_embeddings": True,
        },
    ),
    "stablelm": Case(
        "stablelm",
        "StableLM 2 1.6B, Zephyr 3B",
        "LayerNorm, part of a head is rotated",
        {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
        EVEN,
    ),
    "smollm3": Case(
        "smollm3",
        "SmolLM3",
        "layers without rotary positions",
        {"no_rope_layers": [1, 0, 1], "use_sliding_window": False},
    ),
    "phi": Case(
        "phi", "Phi-1.5, Phi-2", "attention and feed-forward side by side", {"partial_rotary_factor": 0.5}, NO_GROUPS
    ),
    "gpt_neox": Case("gpt_neox", "GPT-NeoX, Pythia", "the same, two norms; GELU", {"rotary_pct": 0.5}, NO_GROUPS),
    "gpt_neox-serial": Case(
        "gpt_neox", "GPT-NeoX, Pythia", "one part after the other", {"use_parallel_residual": False}, NO_GROUPS
    ),
    "gpt2": Case(
        "gpt2",
        "GPT-2",
        "learned positions, weights as [in, out]",
        sizes={
            "n_embd": 96,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 256,
            "vocab_size": 131,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}


def weight(name: str, shape: tuple[int, ...], norm: float = 1.0) -> NDArray[np.float32]:
    """Numbers that keep activations near one, uneven in norms and biases, so that a wrong one is seen."""
    random = np.random.RandomState(crc32(name.encode()))  # its numbers never change
    scale = 0.3 if len(shape) == 1 else shape[-1] ** -0.5
    values = random.standard_normal(shape) * scale
    if len(shape) == 1 and "norm" in name and not name.endswith("bias"):
        values += norm
    return values.astype(np.float32)


def table() -> str:
    """The families for docs/models.md, a row each; `python -m tests.models.families` prints it."""
    families: dict[str, list[Case]] = {}
    for case in CASES.values():
        families.setdefault(case.family, []).append(case)
    rows = (
        f"| `{name}` | {cases[0].models} | {'; '.join(c.says for c in cases)} |" for name, cases in families.items()
    )
    return "\n".join(["| `model_type` | models | what is tested |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())

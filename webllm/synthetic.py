"""A checkpoint without a file: the tensor table that a model of some configuration and quantisation would have.

Enough to plan a model, to count its bytes, and to measure its speed with weights made up on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.errors import BadModel, RequestError
from webllm.models.llama import Config
from webllm.program import architecture, read_config
from webllm.weights import IMPORTS

# quantisation -> tensor types of the layers' matrices, and of embedding and LM head
QUANTS: Mapping[str, tuple[str, str]] = {
    "q4": ("Q4_0", "Q8_0"),
    "q4_sym": ("Q4_0", "Q8_0"),
    "q4_1": ("Q4_1", "Q8_0"),
    "q5": ("Q5_0", "Q8_0"),
    "q8": ("Q8_0", "Q8_0"),
    "q2_k": ("Q2_K", "Q6_K"),
    "q4_k": ("Q4_K", "Q6_K"),
    "q6_k": ("Q6_K", "Q6_K"),
    "f16": ("F16", "F16"),
    "f32": ("F32", "F32"),
}
MAX_LAYERS = 4096

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def checkpoint_from_config(config: Mapping[str, Any], quant: str = "q4") -> Checkpoint:
    """The checkpoint of a model with this config.json, its weights lying nowhere.

    quant: one of `QUANTS`. Matrices whose rows do not divide into its blocks are F16; norms and biases are F32.
    Raises `Unsupported` for an unknown `model_type`, `BadModel` for a configuration that makes no sense.

        checkpoint = checkpoint_from_config(json.loads(Path("config.json").read_text()), "q4")
    """
    if quant not in QUANTS:
        raise RequestError(f"quant must be one of {', '.join(QUANTS)}, got {quant!r}")
    bare = Checkpoint(f"{config.get('model_type')} {quant}", dict(config), tensors={}, sources=())
    shapes = _shapes(_checked(architecture(bare), config))
    return replace(bare, tensors={name: _tensor(name, shape, quant) for name, shape in shapes})


def _checked(model: ModuleType, config: Mapping[str, Any]) -> Config:
    """The model's configuration, whose layers can be counted out."""
    made: Config = read_config(model, config)[0]
    if made.num_hidden_layers > MAX_LAYERS:
        raise BadModel(f"the configuration claims {made.num_hidden_layers} layers; at most {MAX_LAYERS} are allowed")
    return made


def _tensor(name: str, shape: tuple[int, ...], quant: str) -> TensorInfo:
    layers, outer = QUANTS[quant]
    dtype = layers if name.startswith("model.layers.") else outer
    if len(shape) == 1:
        dtype = "F32"
    elif shape[1] % IMPORTS[dtype].block:
        dtype = "F16"
    how = IMPORTS[dtype]
    return TensorInfo(name, shape, dtype, 0, math.prod(shape) // how.block * how.block_bytes)


def _shapes(config: Config) -> Shapes:
    """Name and shape of every tensor, as Hugging Face's checkpoints of the Llama family have them."""
    yield "model.embed_tokens.weight", (config.vocab_size, config.hidden_size)
    for number in range(config.num_hidden_layers):
        for name, shape in _layer(config):
            yield f"model.layers.{number}.{name}", shape
    yield "model.norm.weight", (config.hidden_size,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, config.hidden_size)


def _layer(config: Config) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    yield "input_layernorm.weight", (hidden,)
    for name, rows in (("q", q), ("k", kv), ("v", kv)):
        yield f"self_attn.{name}_proj.weight", (rows, hidden)
        if config.qkv_bias:
            yield f"self_attn.{name}_proj.bias", (rows,)
    yield "self_attn.o_proj.weight", (hidden, q)
    yield "post_attention_layernorm.weight", (hidden,)
    yield "mlp.gate_proj.weight", (inner, hidden)
    yield "mlp.up_proj.weight", (inner, hidden)
    yield "mlp.down_proj.weight", (hidden, inner)

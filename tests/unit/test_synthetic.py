"""Checkpoints made of a configuration, and programs described."""

import pytest

from webllm.describe import bytes_read, describe, dispatches_by_layer, parts_of
from webllm.errors import BadModel, RequestError, Unsupported
from webllm.limits import Limits
from webllm.program import Settings, build
from webllm.synthetic import QUANTS, checkpoint_from_config

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def test_a_made_up_qwen2_has_biases_and_its_own_head():
    tensors = checkpoint_from_config({**CONFIG, "model_type": "qwen2"}, "q4").tensors
    assert tensors["model.layers.2.self_attn.k_proj.bias"].shape == (32,)
    assert tensors["lm_head.weight"].dtype == "Q8_0"


@pytest.mark.parametrize("quant", QUANTS)
def test_every_quantisation_makes_a_program_that_reads_all_its_weights(quant):
    checkpoint = checkpoint_from_config({**CONFIG, "tie_word_embeddings": True, "intermediate_size": 172}, quant)
    program = build(checkpoint, Settings(128), Limits())
    assert bytes_read(program, program.plans["decode"]) == describe(program)["memory"]["weights"]


def test_an_embedding_that_is_not_the_head_is_not_counted_as_read():
    program = build(checkpoint_from_config({**CONFIG, "tie_word_embeddings": False}, "q8"), Settings(128), Limits())
    table = sum(buffer.size for buffer in program.buffers if buffer.name.startswith("model.embed_tokens"))
    assert table > 0
    assert bytes_read(program, program.plans["decode"]) == describe(program)["memory"]["weights"] - table


def test_rows_that_do_not_divide_into_blocks_are_f16():
    checkpoint = checkpoint_from_config({**CONFIG, "intermediate_size": 172}, "q4")
    assert checkpoint.tensors["model.layers.0.mlp.down_proj.weight"].dtype == "F16"
    assert checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].dtype == "Q4_0"


def test_a_made_up_checkpoint_refuses_what_it_does_not_know():
    with pytest.raises(RequestError, match="q4"):
        checkpoint_from_config(CONFIG, "q3")
    with pytest.raises(Unsupported):
        checkpoint_from_config({"model_type": "mamba"})
    with pytest.raises(BadModel):
        checkpoint_from_config({"model_type": "llama"})


def test_each_layer_counts_its_own_dispatches():
    program = build(checkpoint_from_config(CONFIG), Settings(128), Limits())
    counts = dispatches_by_layer(program, program.plans["decode"])
    assert set(counts) == {0, 1, 2} and len(set(counts.values())) == 1
    outside = {"embed", "argmax_tile", "next_token"}
    kernels = [dispatch.kernel for dispatch in program.plans["decode"].dispatches]
    assert sum(counts.values()) == len(kernels) - sum(kernel in outside for kernel in kernels) - 1  # the LM head


@pytest.mark.parametrize("limits", [Limits(), Limits(workgroup_storage=2048), Limits(int8=True)])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_every_dispatch_is_of_a_part_of_the_model(model_type, limits):
    """Norms inside products and apart from them, products in parts, activations of 8 bits."""
    checkpoint = checkpoint_from_config({**CONFIG, "model_type": model_type, "hidden_size": 1024, "head_dim": 16})
    program = build(checkpoint, Settings(2048), limits)
    parts = {name: set(parts_of(program, plan)) for name, plan in program.plans.items()}
    layer = {"embedding", "qkv", "attention", "o_proj", "gate+up", "down"}
    assert parts["prefill"] == layer
    assert parts["decode"] == parts["decode_long"] == layer | {"LM head"}
    assert parts["greedy"] == parts["sample"] == {"choose"}


def test_memory_is_what_the_buffers_of_a_loaded_model_take():
    program = build(checkpoint_from_config(CONFIG), Settings(128), Limits())
    memory, kinds = describe(program)["memory"], program.bytes_by_kind()
    assert memory["kv"] == 3 * 2 * 128 * 2 * 16 * 2  # layers, k and v, positions, heads, head size, bytes
    assert memory["total"] == sum(size for kind, size in kinds.items() if kind != "staging")

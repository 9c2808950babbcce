"""Folders that MLC LLM converted: without their wasm they compute what their bytes mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import webllm
from tests.kernels.harness import each
from tests.models.mlc_folder import Folder
from tests.models.reference import Model, Shape, forward
from webllm.errors import ChecksumMismatch
from webllm.static_server import serve_in_thread

Array = NDArray[Any]

IDS = [3, 141, 59, 26, 5, 35, 89, 79, 32, 38, 46, 264]
POSITIONS = [0, 5, 11]
PADDED = 320  # rows of the embedding, of which the last mean nothing


@dataclass(frozen=True)
class Family:
    """What distinguishes one of MLC's layouts. fused: its names of the matrices with q, k and v, and gate and up."""

    kind: str
    tied: bool = False
    bias: bool = False
    qkv: str = "self_attn.qkv_proj"
    theta_key: str = "position_embedding_base"


FAMILIES = {
    "llama": Family("llama"),
    "llama, tied": Family("llama", tied=True),
    "qwen2": Family("qwen2", tied=True, bias=True, qkv="self_attn.c_attn", theta_key="rope_theta"),
}
QUANTS = ["q4f16_1", "q4f32_1", "q3f16_1", "q0f16", "q0f32"]


def made(family: Family, quant: str, seed: int = 5) -> tuple[Folder, dict[str, Any], Model]:
    """A folder, its mlc-chat-config.json, and the model that its bytes are."""
    rng = np.random.default_rng(seed)
    s = Shape(
        arch="halves", tied=family.tied, theta=5000.0
    )  # rotary pairs lie half a head apart, as Hugging Face has them
    folder = Folder(quant)
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim

    def matrix(rows: int, cols: int) -> Array:
        return rng.standard_normal((rows, cols)) * cols**-0.5

    def norm() -> Array:
        return 1 + 0.3 * rng.standard_normal(s.hidden)

    folder.add("model.embed_tokens.weight", matrix(PADDED, s.hidden))
    for layer in range(s.layers):
        at = f"model.layers.{layer}."
        folder.add(at + "input_layernorm.weight", norm())
        folder.add(at + family.qkv + ".weight", matrix(q + 2 * kv, s.hidden))
        if family.bias:
            folder.add(at + family.qkv + ".bias", 0.3 * rng.standard_normal(q + 2 * kv))
        folder.add(at + "self_attn.o_proj.weight", matrix(s.hidden, q))
        folder.add(at + "post_attention_layernorm.weight", norm())
        folder.add(at + "mlp.gate_up_proj.weight", matrix(2 * s.ffn, s.hidden))
        folder.add(at + "mlp.down_proj.weight", matrix(s.hidden, s.ffn))
    folder.add("model.norm.weight", norm())
    if not family.tied:
        folder.add("lm_head.weight", matrix(PADDED, s.hidden))
    return folder, chat_config(family, quant, s), Model(s, separate(folder.exact, family, s), {}, {})


def chat_config(family: Family, quant: str, s: Shape) -> dict[str, Any]:
    model = {
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "num_hidden_layers": s.layers,
        "head_dim": s.head_dim,
        "rms_norm_eps": s.eps,
        "vocab_size": PADDED,
        "context_window_size": 131072,
        "prefill_chunk_size": 2048,
        "rope_scaling": None,
        family.theta_key: s.theta,
    }
    return {
        "version": "0.1.0",
        "model_type": family.kind,
        "quantization": quant,
        "model_config": model,
        "vocab_size": PADDED,
        "active_vocab_size": s.vocab,
        "context_window_size": 512,
        "sliding_window_size": -1,
        "temperature": 0.6,
        "top_p": None,
        "eos_token_id": [2, 7],
        "conv_template": {"stop_token_ids": [9], "stop_str": ["<|end|>"]},
    }


def separate(exact: dict[str, Array], family: Family, s: Shape) -> dict[str, Array]:
    """By GGUF's names, as the reference takes them."""
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    w = {
        "token_embd.weight": exact["model.embed_tokens.weight"][: s.vocab],
        "output_norm.weight": exact["model.norm.weight"],
    }
    if not family.tied:
        w["output.weight"] = exact["lm_head.weight"][: s.vocab]
    for layer in range(s.layers):
        at, to = f"model.layers.{layer}.", f"blk.{layer}."
        for kind in ("weight", "bias") if family.bias else ("weight",):
            rows = exact[f"{at}{family.qkv}.{kind}"]
            w |= dict(zip((f"{to}attn_{p}.{kind}" for p in "qkv"), np.split(rows, [q, q + kv]), strict=True))
        w[f"{to}ffn_gate.weight"], w[f"{to}ffn_up.weight"] = np.split(exact[at + "mlp.gate_up_proj.weight"], 2)
        w[f"{to}ffn_down.weight"] = exact[at + "mlp.down_proj.weight"]
        w[f"{to}attn_output.weight"] = exact[at + "self_attn.o_proj.weight"]
        w[f"{to}attn_norm.weight"] = exact[at + "input_layernorm.weight"]
        w[f"{to}ffn_norm.weight"] = exact[at + "post_attention_layernorm.weight"]
    return w


async def check(place: Any, model: Model) -> None:
    async with await webllm.load(place, kv="f32", exact=True) as llm:
        got = np.stack([await llm.logits(IDS[: at + 1]) for at in POSITIONS])
    wanted = forward(model, IDS)[POSITIONS]
    assert got.shape == wanted.shape, "rows of the embedding without a token have no logits"
    assert (np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max() < 1e-5


@pytest.mark.parametrize(("family", "quant"), each(list(FAMILIES), QUANTS))
async def test_a_folder_computes_what_its_bytes_mean(family: str, quant: str, tmp_path: Path) -> None:
    """72 and 172 columns: no whole number of groups. Scales lie in other files than their integers."""
    folder, chat, model = made(FAMILIES[family], quant)
    await check(folder.write(tmp_path, chat), model)


async def test_an_older_folder_has_its_list_under_another_name(tmp_path: Path) -> None:
    folder, chat, model = made(FAMILIES["llama"], "q4f16_1")
    await check(folder.write(tmp_path, chat, manifest="ndarray-cache.json"), model)


async def test_a_folder_on_a_web_server_computes_the_same_and_a_damaged_one_is_found_out(tmp_path: Path) -> None:
    folder, chat, model = made(FAMILIES["qwen2"], "q4f16_1")
    folder.write(tmp_path / "model", chat)
    with serve_in_thread(tmp_path) as server:
        await check(f"{server.url}/model/", model)
        shard = tmp_path / "model" / "params_shard_3.bin"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 16
        shard.write_bytes(data)
        with pytest.raises(
            ChecksumMismatch, match=r"params_shard_3\.bin: its MD5 is [0-9a-f]{32}, wanted [0-9a-f]{32}"
        ):
            await webllm.load(f"{server.url}/model/")

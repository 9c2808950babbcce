"""Small random Llama and Qwen2 models: as GGUF files, and as a forward pass in numpy's float64.

The forward pass is written from the papers, shares nothing with webllm, and was checked against `transformers`. A new
architecture's numbers are compared with it through `in_memory` and `logits_of`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.device.native import NativeDevice
from webllm.engine import Engine
from webllm.host.files import BytesSource
from webllm.limits import Limits
from webllm.program import Settings, build

Array = NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """Odd sizes on purpose: nothing is a power of two, heads * head_dim is not hidden, rows end within tiles."""

    arch: str = "llama"  # "llama": rotary pairs in adjacent rows, else half a head apart; "qwen2": biases on q, k and v
    layers: int = 3
    hidden: int = 72
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 24
    ffn: int = 172
    vocab: int = 301
    context: int = 2048
    tied: bool = False
    factors: tuple[float, ...] = ()  # divisors of the rotary frequencies, one a pair
    types: dict[str, str] = field(default_factory=dict)  # tensor's short name -> GGUF type; the others are F32
    eps: float = 1e-5
    theta: float = 10000.0


@dataclass(frozen=True)
class Model:
    """weights: float64, exactly the values that the file's bytes mean, by GGUF's names."""

    shape: Shape
    weights: dict[str, Array]
    data: dict[str, Array]  # what goes to the file
    types: dict[str, GGMLQuantizationType]


def random_model(shape: Shape, seed: int = 11) -> Model:
    """Weights that keep the numbers near one through all layers."""
    rng = np.random.default_rng(seed)
    model = Model(shape, {}, {}, {})
    for name, dims in _dims(shape).items():
        scale = dims[-1] ** -0.5 if len(dims) > 1 else 0.3
        values = rng.standard_normal(dims) * scale + ("norm" in name)
        short = name.split(".")[-2] if not name.endswith(".bias") else ""
        _add(model, name, values, "F32" if len(dims) == 1 else shape.types.get(short, "F32"))
    if shape.factors:
        _add(model, "rope_freqs.weight", np.array(shape.factors), "F32")
    return model


def llama3_factors(half: int, theta: float = 10000.0) -> tuple[float, ...]:
    """Llama 3.1's divisors for factor 8, low 1, high 4 and an original context of 64: some 1, some 8, some between."""
    wavelength = 2 * np.pi * theta ** (np.arange(half) / half)
    smooth = np.clip((64 / wavelength - 1) / (4 - 1), 0, 1)
    return tuple(1 / (smooth + (1 - smooth) / 8))


def write_gguf(model: Model, path: Path, **changes: Any) -> Path:
    """The model as a file. changes: `without` leaves tensors out, `tensors` puts others in their place, `numbers` adds
    to the metadata."""
    s, writer = model.shape, GGUFWriter(path, model.shape.arch)
    writer.add_block_count(s.layers)
    writer.add_context_length(s.context)
    writer.add_embedding_length(s.hidden)
    writer.add_feed_forward_length(s.ffn)
    writer.add_head_count(s.heads)
    writer.add_head_count_kv(s.kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_value_length(s.head_dim)
    writer.add_rope_dimension_count(s.head_dim)
    writer.add_layer_norm_rms_eps(s.eps)
    writer.add_rope_freq_base(s.theta)
    writer.add_vocab_size(s.vocab)
    for key, value in changes.get("numbers", {}).items():
        writer.add_uint16(key, value)
    tensors = {**model.data, **changes.get("tensors", {})}
    for name, data in tensors.items():
        if name not in changes.get("without", ()):
            writer.add_tensor(name, data, raw_dtype=model.types.get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def config_of(s: Shape) -> dict[str, Any]:
    """The shape as a config.json has it."""
    return {
        "model_type": s.arch,
        "num_hidden_layers": s.layers,
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "vocab_size": s.vocab,
        "max_position_embeddings": s.context,
        "rms_norm_eps": s.eps,
        "rope_theta": s.theta,
        "tie_word_embeddings": s.tied,
    }


def in_memory(config: dict[str, Any], tensors: dict[str, Array]) -> Checkpoint:
    """A checkpoint of these tensors as F32, under Hugging Face's names."""
    infos, data = {}, b""
    for name, values in tensors.items():
        infos[name] = TensorInfo(name, values.shape, "F32", len(data), 4 * values.size)
        data += values.astype(np.float32).tobytes()
    return Checkpoint("in memory", config, infos, [BytesSource(data)])


def logits_of(device: NativeDevice, checkpoint: Checkpoint, ids: list[int], positions: list[int]) -> Array:
    """Logits after each of the positions, with a cache in f32: [len(positions), vocab]."""

    async def run() -> Array:
        program = build(checkpoint, Settings(len(ids), kv="f32"), Limits.of(device.limits))
        loaded = await device.load(program, checkpoint.sources)
        sizes = {"context": len(ids), "chunk": program.plans["prefill"].rows}
        engine = Engine(device, loaded, **sizes, vocab_size=checkpoint.config["vocab_size"], ahead=1)
        rows = [np.frombuffer(await engine.logits(ids[: position + 1]), np.float32) for position in positions]
        device.unload(loaded)
        return np.stack(rows)

    return asyncio.run(run())


def forward(model: Model, ids: list[int]) -> Array:
    """Logits after each of `ids`: [len(ids), vocab]."""
    s, w = model.shape, model.weights
    angles = np.arange(len(ids))[:, None] * _frequencies(s)
    x = w["token_embd.weight"][ids]
    for layer in range(s.layers):
        at = f"blk.{layer}."
        h = _rms_norm(x, w[at + "attn_norm.weight"], s.eps)
        q, k, v = (_project(w, at + f"attn_{p}", h).reshape(len(ids), -1, s.head_dim) for p in "qkv")
        q, k = (_rotate(heads, angles, pairs=s.arch == "llama") for heads in (q, k))
        x = x + _attend(q, k, v) @ w[at + "attn_output.weight"].T
        h = _rms_norm(x, w[at + "ffn_norm.weight"], s.eps)
        gate, up = h @ w[at + "ffn_gate.weight"].T, h @ w[at + "ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[at + "ffn_down.weight"].T
    head = w["token_embd.weight" if s.tied else "output.weight"]
    logits: Array = _rms_norm(x, w["output_norm.weight"], s.eps) @ head.T
    return logits


def _dims(s: Shape) -> dict[str, tuple[int, ...]]:
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    dims: dict[str, tuple[int, ...]] = {"token_embd.weight": (s.vocab, s.hidden), "output_norm.weight": (s.hidden,)}
    if not s.tied:
        dims["output.weight"] = (s.vocab, s.hidden)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (s.hidden,),
        "attn_q.weight": (q, s.hidden),
        "attn_k.weight": (kv, s.hidden),
        "attn_v.weight": (kv, s.hidden),
        "attn_output.weight": (s.hidden, q),
        "ffn_norm.weight": (s.hidden,),
        "ffn_gate.weight": (s.ffn, s.hidden),
        "ffn_up.weight": (s.ffn, s.hidden),
        "ffn_down.weight": (s.hidden, s.ffn),
    }
    if s.arch == "qwen2":
        layer |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    return dims | {f"blk.{i}.{name}": d for i in range(s.layers) for name, d in layer.items()}


def _add(model: Model, name: str, values: Array, dtype: str) -> None:
    kind = GGMLQuantizationType[dtype]
    data = gguf.quants.quantize(values.astype(np.float32), kind)
    model.data[name], model.types[name] = data, kind
    model.weights[name] = gguf.quants.dequantize(data, kind).reshape(values.shape).astype(np.float64)


def _frequencies(s: Shape) -> Array:
    half = s.head_dim // 2
    plain: Array = s.theta ** (-np.arange(half) / half)
    return plain / np.array(s.factors, np.float32) if s.factors else plain


def _rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def _project(w: dict[str, Array], name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def _rotate(x: Array, angles: Array, pairs: bool) -> Array:
    """x: [rows, heads, dim], angles: [rows, dim / 2]. pairs: 2i and 2i + 1 turn together, else i and i + dim / 2."""
    halves = x.reshape(*x.shape[:2], -1, 2) if pairs else x.reshape(*x.shape[:2], 2, -1).swapaxes(-1, -2)
    a, b = halves[..., 0], halves[..., 1]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    turned = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return (turned if pairs else turned.swapaxes(-1, -2)).reshape(x.shape)


def _attend(q: Array, k: Array, v: Array) -> Array:
    """Causal; each K/V head serves several query heads. [rows, heads, dim] -> [rows, heads * dim]."""
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("rhd,phd->hrp", q, k) / np.sqrt(q.shape[2])
    scores[:, ~np.tri(len(q), dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Array = np.einsum("hrp,phd->rhd", weights / weights.sum(-1, keepdims=True), v)
    return mixed.reshape(len(q), -1)

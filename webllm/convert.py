"""Writes a model anew, quantised, as a folder for a static server: in MLC's layout. Native only.

MLC's layout because it is what a page can fetch best: shards of 32 MB with a checksum each, whose 4 bits come to the
GPU without loss, and beside them, as JSON, the configuration, the tokenizer and the chat template. `webllm.load` reads
it by path or URL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.checkpoint.hf_folder import MLC, checkpoint_from_folder
from webllm.errors import RequestError, Unsupported
from webllm.host.folders import LocalFolder
from webllm.weights import DENSE

Array = NDArray[Any]
OnProgress = Callable[[dict[str, Any]], None]

QUANTS = {"q4": "q4f16_1", "f16": "q0f16"}
_SHARD = 32 << 20  # bytes, but for a tensor that has more
_GROUP, _MOST = 32, 7  # columns that share a scale; the largest integer
_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_FUSED_QKV = {"llama": "qkv_proj", "qwen2": "c_attn"}  # model_type -> MLC's name
_SAMPLING = ("temperature", "top_p", "repetition_penalty")


async def convert(source: Path, out: Path, quant: str = "q4", on_progress: OnProgress | None = None) -> Path:
    """Convert a folder in Hugging Face's layout, with weights in F32, F16 or BF16.

    quant: "q4" (4 bits and a scale of 32 by least squares) or "f16". on_progress: gets {"phase": "convert", "loaded",
    "total" (tensors of the source), ...}. Raises `RequestError` where `out` is not empty, `Unsupported` for other
    sources.

        await convert(Path("SmolLM2-135M-Instruct"), Path("smollm2-q4"))
    """
    if quant not in QUANTS:
        raise RequestError(f"quant must be one of {', '.join(QUANTS)}, got {quant!r}")
    if out.exists() and any(out.iterdir()):
        raise RequestError(f"{out}: this folder is not empty; give one that is, or that is not there yet")
    checkpoint = await checkpoint_from_folder(LocalFolder(source))
    try:
        out.mkdir(parents=True, exist_ok=True)
        writer = _Writer(out, quant == "q4")
        async for name, values in _tensors(checkpoint, on_progress):
            writer.add(name, values)
        writer.finish()
    finally:
        for file in checkpoint.sources:
            await file.aclose()
    for name in _COPIED:
        if (source / name).is_file():
            (out / name).write_bytes((source / name).read_bytes())
    text = json.dumps(_chat_config(checkpoint, QUANTS[quant]), indent=1)
    (out / MLC).write_text(text, encoding="utf-8")  # last: a folder without it is no model
    return out


async def _tensors(checkpoint: Checkpoint, on_progress: OnProgress | None) -> AsyncIterator[tuple[str, Array]]:
    """(MLC's name, numbers) of all tensors, q, k and v in one, gate and up in one."""
    kind = str(checkpoint.config.get("model_type"))
    if kind not in _FUSED_QKV:
        raise Unsupported(f"{checkpoint.name}: model_type {kind!r}; converted are {', '.join(_FUSED_QKV)}")
    total, done = len(checkpoint.tensors), 0
    tied = checkpoint.config.get("tie_word_embeddings")
    names = [name for name in checkpoint.tensors if not (tied and name == "lm_head.weight")]
    for name, parts in _fused(names, _FUSED_QKV[kind]):
        yield name, np.concatenate([await _read(checkpoint, checkpoint.tensors[part]) for part in parts])
        done += len(parts)
        if on_progress:
            on_progress({"phase": "convert", "loaded": done, "total": total, "tensors": done, "seconds": 0.0})


def _fused(names: list[str], qkv: str) -> Iterator[tuple[str, list[str]]]:
    """MLC's name, and the tensors that it consists of."""
    for name in names:
        if ".q_proj." in name:
            yield name.replace("q_proj", qkv), [name.replace("q_proj", f"{one}_proj") for one in "qkv"]
        elif ".gate_proj." in name:
            yield name.replace("gate_proj", "gate_up_proj"), [name, name.replace("gate_proj", "up_proj")]
        elif not any(f".{one}_proj." in name for one in ("k", "v", "up")):
            yield name, [name]


async def _read(checkpoint: Checkpoint, tensor: TensorInfo) -> Array:
    if tensor.dtype not in DENSE:
        raise Unsupported(f"{checkpoint.name}: {tensor.name} is {tensor.dtype}; converted are {', '.join(DENSE)}")
    data = await checkpoint.sources[tensor.source].read(tensor.offset, tensor.nbytes)
    if tensor.dtype == "BF16":
        values: Array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[tensor.dtype]).astype(np.float32)
    return values.reshape(tensor.shape)


def quantise(values: Array) -> tuple[Array, Array]:
    """Words of eight integers, [rows, cols / 8], and scales in f16, [rows, cols / 32]: weight = scale * (integer - 7).

    Of four scales a group, and what least squares makes of each, the best is taken.
    """
    rows, cols = values.shape
    groups = -(-cols // _GROUP)
    x = np.zeros((rows, groups * _GROUP), np.float32)
    x[:, :cols] = values
    x = x.reshape(rows, groups, _GROUP)
    most = np.abs(x).max(-1)
    best, least = np.zeros((rows, groups), np.float32), np.full((rows, groups), np.inf, np.float32)
    for largest in (7.0, 7.5, 8.0, 8.5):
        q = _codes(x, most / np.float32(largest))
        squares = (q * q).sum(-1)
        for scale in (most / np.float32(largest), (q * x).sum(-1) / np.where(squares == 0, 1, squares)):
            scale = scale.astype(np.float16).astype(np.float32)
            error = ((_codes(x, scale) * scale[..., None] - x) ** 2).sum(-1)
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
    codes = (_codes(x, best) + _MOST).astype(np.uint32).reshape(rows, -1, 8)
    words = (codes << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32)
    return words, best.astype(np.float16)


def _codes(x: Array, scale: Array) -> Array:
    inverse = 1 / np.where(scale == 0, 1, scale)
    return np.clip(np.round(x * inverse[..., None]), -_MOST, _MOST)


@dataclass
class _Writer:
    """Collects tensors into shards and writes the list of them."""

    out: Path
    quantised: bool
    shards: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)  # of the shard that is being filled
    data: bytearray = field(default_factory=bytearray)

    def add(self, name: str, values: Array) -> None:
        if values.ndim != 2 or not self.quantised:
            self._put(name, values.astype(np.float16), "float16")
            return
        words, scales = quantise(values)
        bare = name.removesuffix(".weight")
        self._put(f"{bare}.q_weight", words, "uint32")
        self._put(f"{bare}.q_scale", scales, "float16")

    def _put(self, name: str, values: Array, dtype: str) -> None:
        if self.data and len(self.data) + values.nbytes > _SHARD:
            self._end_shard()
        place = {"nbytes": values.nbytes, "byteOffset": len(self.data)}
        self.records.append({"name": name, "shape": [*values.shape], "dtype": dtype, "format": "raw", **place})
        self.data += values.tobytes()

    def _end_shard(self) -> None:
        name = f"params_shard_{len(self.shards)}.bin"
        (self.out / name).write_bytes(self.data)
        md5 = hashlib.md5(self.data, usedforsecurity=False).hexdigest()
        told = {"dataPath": name, "format": "raw-shard", "nbytes": len(self.data), "md5sum": md5}
        self.shards.append({**told, "records": self.records})
        self.records, self.data = [], bytearray()

    def finish(self) -> None:
        """The last shard, and the list."""
        self._end_shard()
        text = json.dumps({"metadata": {}, "records": self.shards})
        (self.out / "tensor-cache.json").write_text(text, encoding="utf-8")


def _chat_config(checkpoint: Checkpoint, quantization: str) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "version": "0.1.0",
        "model_type": config["model_type"],
        "quantization": quantization,
        "model_config": {key: value for key, value in config.items() if key != "model_type"},
        "vocab_size": config["vocab_size"],
        "context_window_size": config.get("max_position_embeddings", 2048),
        "sliding_window_size": -1,
        "tokenizer_files": [*_COPIED],
        "eos_token_id": sorted(checkpoint.stop_ids),
        "bos_token_id": config.get("bos_token_id"),
        "conv_template": {},
        **{key: checkpoint.generation[key] for key in _SAMPLING if key in checkpoint.generation},
    }

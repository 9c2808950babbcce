"""A GGUF file's weights as a folder in Hugging Face's layout: real weights for what reads safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.host.files import FileSource
from webllm.tokenizer_json import CONTROL, tokenizer_json

Array = NDArray[Any]


async def dequantised(
    file: Path, folder: Path, kind: type = np.float16, change: Callable[[Array], Array] = lambda w: w
) -> Path:
    """Write `folder`, unless it is there: config.json, tokenizer.json with its settings, and model.safetensors.

    kind: of all tensors. change: applied to each matrix, in float32.
    """
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True)
    source = FileSource(file)
    checkpoint = checkpoint_from_gguf(await read_gguf(source), source)
    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        values = _values(await source.read(tensor.offset, tensor.nbytes), tensor, checkpoint.config["head_dim"])
        tensors[name] = np.ascontiguousarray(change(values) if values.ndim == 2 else values, kind)
    save_file(tensors, folder / "model.safetensors")
    for name, content in {"config": checkpoint.config, **tokenizer_files(checkpoint)}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def tokenizer_files(checkpoint: Checkpoint) -> dict[str, Any]:
    """tokenizer and tokenizer_config, as most repositories write them: special tokens are in the vocabulary too."""
    own = checkpoint.vocabulary
    assert own is not None
    special = {text: i for i, text in enumerate(own.tokens) if own.token_types[i] == CONTROL}
    made = json.loads(tokenizer_json(own))
    made["added_tokens"] = [{"id": i, "content": text, "special": True} for text, i in special.items()]
    made["model"]["vocab"] |= special
    made["decoder"] = {"type": "ByteLevel"}
    ends = {"bos_token": own.bos_id, "eos_token": own.eos_id}
    settings = {name: None if i is None else own.tokens[i] for name, i in ends.items()}
    return {"tokenizer": made, "tokenizer_config": {**settings, "chat_template": checkpoint.chat_template}}


def _values(data: bytes | memoryview, tensor: TensorInfo, head_dim: int) -> Array:
    """A tensor in float32, its rotary pairs half a head apart."""
    raw = np.frombuffer(data, np.uint8).reshape(*tensor.shape[:-1], -1)
    values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[tensor.dtype]).reshape(tensor.shape)
    if not tensor.pair_rows:
        return values
    pairs = values.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)

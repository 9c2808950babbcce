"""From a folder that MLC LLM converted to a `Checkpoint`; the wasm that goes with it is not needed.

    mlc-chat-config.json          the architecture's numbers, the conversation, sampling
    tensor-cache.json             where each tensor lies; ndarray-cache.json in older folders
    params_shard_*.bin            tensors, one after another; each file has its MD5 in the list
    tokenizer.json                and tokenizer_config.json, as in Hugging Face's layout

A quantised matrix is two records: `q_weight`, integers packed into words along the columns, and `q_scale`, a scale for
each group of them; they may lie in different files. q, k and v are one matrix, as are gate and up: here they are runs
of its rows. The files may come from anywhere: each is bounded, and what is taken from it is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from webllm.checkpoint import Checkpoint, Folder, Source, TensorInfo, Vocabulary, rows_of
from webllm.checkpoint.bounded_json import json_object
from webllm.checkpoint.hf_folder import (
    MAX_SMALL,
    checked_config,
    ids_of,
    sampling_of,
    template_of,
    vocabulary_of_folder,
)
from webllm.checkpoint.hf_folder import MLC as CONFIG
from webllm.checkpoint.mlc_template import jinja_of
from webllm.errors import BadModel, ModelNotFound, Truncated, Unsupported

MANIFESTS = ("tensor-cache.json", "ndarray-cache.json")

# quantisation -> what a pair of q_weight and q_scale is; "" has none. q4f16_2 leaves embedding and LM head as they are.
QUANTS: Mapping[str, str] = {
    **{"q4f16_1": "MLC_Q4", "q4f32_1": "MLC_Q4", "q4f16_2": "MLC_Q4", "q3f16_1": "MLC_Q3"},
    **{"q0f16": "", "q0f32": "", "q0bf16": ""},
}
_GROUPS = {"MLC_Q4": 32, "MLC_Q3": 40}  # columns that share a scale; their integers take four words
# model_type -> the name that Hugging Face gives it
MODEL_TYPES: Mapping[str, str] = {
    **{name: name for name in ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text")},
    "gemma3": "gemma3_text",
}
_STAY_FUSED = ("phi3",)  # as in Hugging Face's checkpoints
_NORMS_INCLUDE_ONE = ("gemma", "gemma2", "gemma3_text")  # whose norms count from one in Hugging Face's checkpoints
# (dtype, how it is stored) -> type, bytes of a number. MLC writes "f32-to-bf16" to records of any dtype.
_DENSE = {
    **{("float16", how): ("F16", 2) for how in ("raw", "f32-to-bf16")},
    **{("bfloat16", how): ("BF16", 2) for how in ("raw", "f32-to-bf16")},
    **{("float32", "raw"): ("F32", 4), ("float32", "f32-to-bf16"): ("BF16", 2)},
    **{("uint32", how): ("U32", 4) for how in ("raw", "f32-to-bf16")},
}

_MAX_MANIFEST = 64 << 20
_MAX_SHARDS = 4096
_MAX_DIMS = 4
_MAX_NUMBER = 1 << 48
_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.bin", re.ASCII)
_MD5 = re.compile(r"[0-9a-fA-F]{32}")

# MLC's Phi-3 has names of its own.
_RENAMED = (
    (re.compile(r"transformer\.h\.(\d+)\.ln\."), r"model.layers.\1.input_layernorm."),
    (re.compile(r"transformer\.h\.(\d+)\.mixer\.out_proj\."), r"model.layers.\1.self_attn.o_proj."),
    (re.compile(r"transformer\.h\.(\d+)\.mixer\."), r"model.layers.\1.self_attn."),
    (re.compile(r"transformer\.h\."), "model.layers."),
    (re.compile(r"transformer\.embd\."), "model.embed_tokens."),
    (re.compile(r"transformer\.norm\."), "model.norm."),
)
# matrices of several -> those, with their rows in the words of `_sizes`
_QKV = (("q_proj", "q"), ("k_proj", "kv"), ("v_proj", "kv"))
_FUSED = {
    "self_attn.qkv_proj": _QKV,
    "self_attn.c_attn": _QKV,
    "mlp.gate_up_proj": (("gate_proj", "ffn"), ("up_proj", "ffn")),
}
_COLUMNS = {"self_attn.o_proj": "q", "mlp.down_proj": "ffn"}  # of all others: "hidden"


async def checkpoint_from_mlc(folder: Folder) -> Checkpoint | None:
    """Describe the model in a folder of MLC's; None if there is no mlc-chat-config.json. No weight is read.

    Raises `ModelNotFound` where the list of tensors or a shard is missing, `BadModel` where files contradict each
    other, `Unsupported` for quantisations and architectures that webllm does not have. Then no file stays open.
    Reading the last bytes of a shard raises `ChecksumMismatch` if its MD5 is not the one in the list.

        checkpoint = await checkpoint_from_mlc(LocalFolder("Llama-3.2-1B-Instruct-q4f16_1-MLC"))
    """
    data = await folder.read(CONFIG, MAX_SMALL)
    if data is None:
        return None
    name = f"{folder.name}/{CONFIG}"
    chat = json_object(data, name)
    quant, config = _quant(chat, name), _config(chat, name)
    conversation = chat["conv_template"] if isinstance(chat.get("conv_template"), Mapping) else {}
    vocabulary, settings = await vocabulary_of_folder(folder, config)
    config["vocab_size"] = _real_rows(chat, config, vocabulary, name)
    stops = _stop_ids(chat, conversation, config, vocabulary, name)
    template = await template_of(folder, settings)
    if template is None and vocabulary is not None:
        template = jinja_of(conversation, vocabulary, name)
    sources: list[Source] = []
    try:
        tensors = await _tensors(folder, sources, quant, config)
    except BaseException:
        for source in sources:
            await source.aclose()
        raise
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return Checkpoint(folder.name, config, tensors, sources, vocabulary, template, stops, sampling_of(chat))


def _quant(chat: Mapping[str, Any], name: str) -> str:
    quant = chat.get("quantization")
    if not isinstance(quant, str) or quant not in QUANTS:
        raise Unsupported(f"{name}: quantization {str(quant)[:40]!r}; supported are {', '.join(QUANTS)}")
    return quant


def _config(chat: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Hugging Face's config.json, of MLC's."""
    kind, model = chat.get("model_type"), chat.get("model_config")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise Unsupported(f"{name}: model_type {str(kind)[:40]!r}; supported are {', '.join(MODEL_TYPES)}")
    if not isinstance(model, Mapping):
        raise BadModel(f"{name}: model_config must be an object, got {str(model)[:40]}")
    config = {key: value for key, value in model.items() if (value is not None and value != 0) or value is False}
    config["model_type"] = MODEL_TYPES[kind]
    if config["model_type"] in _NORMS_INCLUDE_ONE:
        config["norms_include_one"] = True
    if "position_embedding_base" in config:
        config.setdefault("rope_theta", config.pop("position_embedding_base"))
    # The outer ones count; of a model with a sliding window the window, within which it sees everything.
    for key in ("context_window_size", "sliding_window_size"):
        sizes = (chat.get(key), model.get(key))
        size = next((size for size in sizes if type(size) is int and size > 0), None)
        if size is not None:
            config["max_position_embeddings"] = size
            break
    for key in ("bos_token_id", "eos_token_id"):
        if chat.get(key) is not None:
            config[key] = chat[key]
    config = checked_config(config, name)
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config.setdefault("head_dim", max(1, config["hidden_size"] // config["num_attention_heads"]))
    return config


def _real_rows(chat: Mapping[str, Any], config: Mapping[str, Any], vocabulary: Vocabulary | None, name: str) -> int:
    """Rows of the embedding that stand for tokens; the rest fill it up, and have logits that mean nothing."""
    rows, tokens = int(config["vocab_size"]), len(vocabulary.tokens) if vocabulary else 0
    active = chat.get("active_vocab_size") or rows
    if type(active) is not int or not 0 < active <= rows:
        raise BadModel(f"{name}: active_vocab_size must be 1 to {rows}, the rows of the model, got {str(active)[:40]}")
    if tokens > rows:
        raise BadModel(f"{name}: the vocabulary has {tokens} tokens, the model {rows} rows for them")
    return max(active, tokens)


def _stop_ids(
    chat: Mapping[str, Any],
    conversation: Mapping[str, Any],
    config: Mapping[str, Any],
    vocabulary: Vocabulary | None,
    name: str,
) -> frozenset[int]:
    """All that the file names: ids in two places, which are wrong in some real files, and texts that are one token."""
    found = ids_of(chat.get("eos_token_id"), _MAX_NUMBER, f"{name}: eos_token_id")
    found |= ids_of(conversation.get("stop_token_ids"), _MAX_NUMBER, f"{name}: stop_token_ids")
    found = {number for number in found if number < config["vocab_size"]}
    texts = conversation.get("stop_str")
    texts = {text for text in (texts if isinstance(texts, list) else [texts]) if isinstance(text, str)}
    if vocabulary:
        found |= {number for number, text in enumerate(vocabulary.tokens) if text in texts}
        found |= {vocabulary.eos_id} if vocabulary.eos_id is not None else set()
    return frozenset(found)


@dataclass(frozen=True)
class _Record:
    """A tensor as the list has it: what lies at a place."""

    shape: tuple[int, ...]
    dtype: str  # "F16", "BF16", "F32", or "U32" for packed integers
    offset: int
    nbytes: int
    source: int

    def tensor(self, name: str) -> TensorInfo:
        return TensorInfo(name, self.shape, self.dtype, self.offset, self.nbytes, self.source)


async def _tensors(
    folder: Folder, sources: list[Source], quant: str, config: Mapping[str, Any]
) -> dict[str, TensorInfo]:
    """All tensors by Hugging Face's names. Files are added to `sources` as they are opened."""
    shards, name = await _manifest(folder)
    records: dict[str, _Record] = {}
    for number, shard in enumerate(shards):
        path, nbytes, md5 = _shard(shard, name)
        source = await folder.open(path, md5)
        if source is None:
            raise ModelNotFound(
                f"{folder.name}: {path} is missing, the shard {number + 1} of {len(shards)}; fetch it too"
            )
        sources.append(source)
        if source.size != nbytes:
            raise Truncated(f"{source.name}: {name} says {nbytes} bytes, but it has {source.size}; fetch it anew")
        for key, record in _records(shard, number, nbytes, f"{name}: {path}"):
            if key in records:
                raise BadModel(f"{name}: {key[:200]!r} occurs twice")
            records[key] = record
        await source.pause()
    whole = (_joined(key, records, quant, config, name) for key in records if not key.endswith(".q_scale"))
    return {tensor.name: tensor for one in whole for tensor in _separate(one, config, name)}


async def _manifest(folder: Folder) -> tuple[list[Any], str]:
    """The shards as the list of tensors has them, and its name."""
    for file in MANIFESTS:
        data = await folder.read(file, _MAX_MANIFEST)
        if data is not None:
            name = f"{folder.name}/{file}"
            shards = json_object(data, name).get("records")
            if not isinstance(shards, list) or not 0 < len(shards) <= _MAX_SHARDS:
                raise BadModel(f"{name}: records must be a list of 1 to {_MAX_SHARDS} shards")
            return shards, name
    raise ModelNotFound(f"{folder.name}: no list of tensors there; wanted {' or '.join(MANIFESTS)}")


def _shard(shard: Any, name: str) -> tuple[str, int, str | None]:
    """File, bytes and MD5 of a shard."""
    path, nbytes, md5 = (_field(shard, key) for key in ("dataPath", "nbytes", "md5sum"))
    if not isinstance(path, str) or not _SHARD.fullmatch(path):
        raise BadModel(f"{name}: dataPath must be the name of a .bin file in the same folder, got {str(path)[:80]!r}")
    if _field(shard, "format") != "raw-shard":
        raise Unsupported(
            f"{name}: {path} has the format {str(_field(shard, 'format'))[:40]!r}; supported is raw-shard"
        )
    if not _is_number(nbytes) or not nbytes:
        raise BadModel(f"{name}: nbytes of {path} must be a number of bytes, got {str(nbytes)[:40]}")
    if md5 is not None and not (isinstance(md5, str) and _MD5.fullmatch(md5)):
        raise BadModel(f"{name}: md5sum of {path} must be 32 hexadecimal digits, got {str(md5)[:40]!r}")
    return path, nbytes, md5


def _records(shard: Any, source: int, nbytes: int, name: str) -> Iterator[tuple[str, _Record]]:
    """The tensors of a shard, which follow each other without gaps from its beginning to its end."""
    records, end = _field(shard, "records"), 0
    for one in records if isinstance(records, list) else ():
        key, record = _field(one, "name"), _record(one, source, name)
        if not isinstance(key, str):
            raise BadModel(f"{name}: a tensor's name must be text, got {str(key)[:80]}")
        if record.offset != end:
            what = "overlaps" if record.offset < end else "leaves a gap after"
            raise BadModel(f"{name}: {key[:200]!r} at byte {record.offset} {what} the tensor before it")
        end += record.nbytes
        yield key, record
    if end != nbytes:
        raise BadModel(f"{name}: its tensors take {end} bytes, the shard is said to have {nbytes}")


def _record(one: Any, source: int, name: str) -> _Record:
    who = f"{name}: {str(_field(one, 'name'))[:200]!r}"
    shape, kind, how, nbytes, offset = (
        _field(one, key) for key in ("shape", "dtype", "format", "nbytes", "byteOffset")
    )
    if (kind, how) not in [*_DENSE]:
        wanted = ", ".join(dict.fromkeys(dtype for dtype, _ in _DENSE))
        raise Unsupported(f"{who} is {str(kind)[:40]} in the format {str(how)[:40]}; supported are {wanted}")
    if not isinstance(shape, list) or len(shape) not in range(1, _MAX_DIMS + 1) or not all(map(_is_number, shape)):
        raise BadModel(f"{who}: a shape is a list of 1 to {_MAX_DIMS} sizes, got {str(shape)[:80]}")
    dtype, size = _DENSE[kind, how]
    if nbytes != math.prod(shape) * size or not nbytes:
        raise BadModel(
            f"{who} of shape {shape} in {dtype} takes {math.prod(shape) * size} bytes, not {str(nbytes)[:40]}"
        )
    if not _is_number(offset):
        raise BadModel(f"{who}: byteOffset must be a number of bytes, got {str(offset)[:40]}")
    return _Record(tuple(shape), dtype, offset, nbytes, source)


def _field(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_NUMBER


def _joined(key: str, records: Mapping[str, _Record], quant: str, config: Mapping[str, Any], name: str) -> TensorInfo:
    """A record, with that of its scales if it has some, under Hugging Face's name. Its rows may be those of several."""
    record, bare = records[key], key.removesuffix(".q_weight")
    tensor = record.tensor(_renamed(key))
    if bare == key:
        if record.dtype == "U32":
            raise Unsupported(f"{name}: {key[:200]!r} is of packed integers and is no q_weight")
        return tensor
    kind, scales = QUANTS[quant], records.get(f"{bare}.q_scale")
    if not kind or scales is None or record.dtype != "U32" or scales.dtype == "U32":
        raise BadModel(f"{name}: {key[:200]!r} must be words, with a q_scale of floats beside it, as {quant} has them")
    cols = _columns(tensor.name, config)
    groups = -(-cols // _GROUPS[kind])
    if record.shape[1:] != (4 * groups,) or scales.shape != (record.shape[0], groups):
        raise BadModel(
            f"{name}: {bare[:200]!r} with {cols} columns in {quant} has {4 * groups} words and {groups} scales a row, "
            f"got {[*record.shape]} and {[*scales.shape]}"
        )
    whole = _renamed(f"{bare}.weight")
    return replace(
        tensor, name=whole, shape=(record.shape[0], cols), dtype=kind, scales=scales.tensor(f"{whole}.scales")
    )


def _renamed(key: str) -> str:
    for pattern, name in _RENAMED:
        key, changed = pattern.subn(name, key)
        if changed:
            break
    return key


def _columns(name: str, config: Mapping[str, Any]) -> int:
    return next((_sizes(config)[word] for part, word in _COLUMNS.items() if part in name), int(config["hidden_size"]))


def _separate(tensor: TensorInfo, config: Mapping[str, Any], name: str) -> Iterator[TensorInfo]:
    """What a record has one below the other. Embedding and LM head lose rows that stand for no token."""
    fused = next(((part, into) for part, into in _FUSED.items() if f".{part}." in tensor.name), None)
    if fused is None or config["model_type"] in _STAY_FUSED:
        outer = tensor.name in ("model.embed_tokens.weight", "lm_head.weight")
        yield rows_of(tensor, 0, min(tensor.shape[0], config["vocab_size"])) if outer else tensor
        return
    part, into = fused
    rows = [_sizes(config)[word] for _, word in into]
    if sum(rows) != tensor.shape[0]:
        raise BadModel(f"{name}: {tensor.name[:200]!r} must have {sum(rows)} rows by {CONFIG}, got {[*tensor.shape]}")
    start = 0
    for (one, _), count in zip(into, rows, strict=True):
        key = tensor.name.replace(part, f"{part.partition('.')[0]}.{one}")
        yield replace(rows_of(tensor, start, start + count), name=key)
        start += count


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    head = config["head_dim"]
    return {
        "q": config["num_attention_heads"] * head,
        "kv": config["num_key_value_heads"] * head,
        "ffn": config["intermediate_size"],
    }

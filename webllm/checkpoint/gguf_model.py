"""From a GGUF header to a `Checkpoint`: Hugging Face's names for the configuration and the tensors.

An architecture is a row of `_ARCHITECTURES`; what it shares with the others is in the tables above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webllm.checkpoint import Checkpoint, Source, TensorInfo, Vocabulary
from webllm.checkpoint.gguf import Gguf
from webllm.errors import BadModel, Unsupported

# GGUF metadata key, after "ARCHITECTURE." -> key of Hugging Face's config.json
_REQUIRED_INTS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
_MAX_INT = 1 << 31

# GGUF tensor name -> (Hugging Face name, shape in the words of `_sizes`); "optional" tensors follow.
_Rows = dict[str, tuple[str, tuple[str, ...]]]
_OUTER: _Rows = {
    "token_embd.weight": ("model.embed_tokens.weight", ("vocab", "hidden")),
    "output_norm.weight": ("model.norm.weight", ("hidden",)),
}
_OUTER_OPTIONAL: _Rows = {
    "output.weight": ("lm_head.weight", ("vocab", "hidden")),
    "rope_freqs.weight": ("rope_freqs.weight", ("half",)),  # Llama 3's factors; Hugging Face computes them
}
_LAYER: _Rows = {
    "attn_norm.weight": ("input_layernorm.weight", ("hidden",)),
    "attn_q.weight": ("self_attn.q_proj.weight", ("q", "hidden")),
    "attn_k.weight": ("self_attn.k_proj.weight", ("kv", "hidden")),
    "attn_v.weight": ("self_attn.v_proj.weight", ("kv", "hidden")),
    "attn_output.weight": ("self_attn.o_proj.weight", ("hidden", "q")),
    "ffn_norm.weight": ("post_attention_layernorm.weight", ("hidden",)),
    "ffn_gate.weight": ("mlp.gate_proj.weight", ("ffn", "hidden")),
    "ffn_up.weight": ("mlp.up_proj.weight", ("ffn", "hidden")),
    "ffn_down.weight": ("mlp.down_proj.weight", ("hidden", "ffn")),
}
_QKV_BIAS: _Rows = {
    "attn_q.bias": ("self_attn.q_proj.bias", ("q",)),
    "attn_k.bias": ("self_attn.k_proj.bias", ("kv",)),
    "attn_v.bias": ("self_attn.v_proj.bias", ("kv",)),
}
_OTHER_BIAS: _Rows = {
    "attn_output.bias": ("self_attn.o_proj.bias", ("hidden",)),
    "ffn_gate.bias": ("mlp.gate_proj.bias", ("ffn",)),
    "ffn_up.bias": ("mlp.up_proj.bias", ("ffn",)),
    "ffn_down.bias": ("mlp.down_proj.bias", ("hidden",)),
}


@dataclass(frozen=True)
class _Architecture:
    layer: _Rows
    layer_optional: _Rows
    pair_rows: bool  # whether the file keeps rotary pairs of q and k in adjacent rows


_ARCHITECTURES = {
    "llama": _Architecture(_LAYER, {**_QKV_BIAS, **_OTHER_BIAS}, pair_rows=True),
    "qwen2": _Architecture({**_LAYER, **_QKV_BIAS}, {}, pair_rows=False),
}

_KINDS = {"gpt2": "bpe", "llama": "spm"}
_CONTROL = 3
_END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<end_of_turn>")
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
# Llama 3's BPE takes whole words from the vocabulary and begins every text with its bos token.
_LLAMA3_PRE = ("llama-bpe", "llama3", "llama-v3")


def checkpoint_from_gguf(gguf: Gguf, *sources: Source) -> Checkpoint:
    """Describe the model in a GGUF file, or in the parts of one, in Hugging Face's words.

    Raises `Unsupported` for an architecture or a feature that webllm does not have, `BadModel` where a key or a
    tensor is missing or contradicts the configuration.
    """
    vocabulary = vocabulary_from_gguf(gguf)
    config = _config(gguf, vocabulary)
    tensors = _tensors(gguf, config)
    template = gguf.metadata.get("tokenizer.chat_template")
    name = gguf.metadata.get("general.name")
    return Checkpoint(
        name=name if isinstance(name, str) and name else gguf.name,
        config=config,
        tensors=tensors,
        sources=sources,
        vocabulary=vocabulary,
        chat_template=template if isinstance(template, str) else None,
        stop_ids=stop_ids(gguf, vocabulary) if vocabulary else frozenset(),
        generation=_generation(gguf.metadata),
    )


def vocabulary_from_gguf(gguf: Gguf) -> Vocabulary | None:
    """The file's vocabulary, or None if it has none. Works on files with a vocabulary and nothing else."""
    fields = _Fields(gguf, "tokenizer.ggml.")
    model = fields.text("model", "none")
    tokens = fields.strings("tokens")
    if model in ("none", "no_vocab") or not len(tokens):
        return None
    if model not in _KINDS:
        raise Unsupported(f"{gguf.name}: tokenizer {model!r}; supported are {', '.join(_KINDS)}")
    spm = _KINDS[model] == "spm"
    pre = fields.text("pre", "default")
    vocabulary = Vocabulary(
        kind=_KINDS[model],
        tokens=tokens,
        merges=fields.strings("merges"),
        scores=fields.numbers("scores", len(tokens)),
        token_types=fields.numbers("token_type", len(tokens)),
        pre=pre,
        bos_id=fields.token_id("bos_token_id", len(tokens), 1 if spm else None),
        eos_id=fields.token_id("eos_token_id", len(tokens), 2 if spm else None),
        unk_id=fields.token_id("unknown_token_id", len(tokens), 0 if spm else None),
        add_bos=fields.flag("add_bos_token", spm or pre in _LLAMA3_PRE),
        add_eos=fields.flag("add_eos_token", False),
        add_space_prefix=fields.flag("add_space_prefix", spm),
    )
    needs, has = ("scores", vocabulary.scores) if spm else ("merges", vocabulary.merges)
    if not len(has):
        raise BadModel(f"{gguf.name}: a {model!r} tokenizer needs tokenizer.ggml.{needs}, and it is missing")
    return vocabulary


def stop_ids(gguf: Gguf, vocabulary: Vocabulary) -> frozenset[int]:
    """Tokens that end an answer: those the file names, and well-known end tokens that are control tokens here."""
    fields = _Fields(gguf, "tokenizer.ggml.")
    named = {fields.token_id(key, len(vocabulary.tokens), None) for key in _STOP_KEYS} | {vocabulary.eos_id}
    control = (i for i, kind in enumerate(vocabulary.token_types) if kind == _CONTROL)
    known = {i for i in control if vocabulary.tokens[i] in _END_TOKENS}
    return frozenset(known | {i for i in named if i is not None})


class _Fields:
    """Metadata values under one prefix, checked for type and range when they are taken."""

    def __init__(self, gguf: Gguf, prefix: str) -> None:
        self.gguf, self.prefix = gguf, prefix

    def _take(self, key: str, default: Any) -> Any:
        value = self.gguf.metadata.get(self.prefix + key, default)
        if value is None:
            raise BadModel(f"{self.gguf.name}: the metadata has no {self.prefix}{key}, and the model needs it")
        return value

    def _wrong(self, key: str, wanted: str, value: object) -> BadModel:
        return BadModel(f"{self.gguf.name}: {self.prefix}{key} must be {wanted}, got {str(value)[:80]}")

    def text(self, key: str, default: str) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "text", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._take(key, default)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
            value = value[0]  # one entry a layer, all alike
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
            raise Unsupported(f"{self.gguf.name}: {self.prefix}{key} differs from layer to layer")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MAX_INT:
            raise self._wrong(key, f"a whole number from 1 to {_MAX_INT - 1}", value)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._take(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self._wrong(key, "a positive number", value)
        return float(value)

    def token_id(self, key: str, n_tokens: int, default: int | None) -> int | None:
        value = self.gguf.metadata.get(self.prefix + key, default)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < n_tokens:
            raise self._wrong(key, f"a token id below {n_tokens}", value)
        return value

    def strings(self, key: str) -> Sequence[str]:
        values = self.gguf.metadata.get(self.prefix + key, ())
        if not isinstance(values, Sequence) or isinstance(values, str) or (len(values) and type(values[0]) is not str):
            raise self._wrong(key, "an array of strings", values)
        return values

    def numbers(self, key: str, count: int) -> Sequence[Any]:
        values = self.gguf.metadata.get(self.prefix + key, ())
        if not isinstance(values, Sequence) or isinstance(values, str) or (len(values) and type(values[0]) is str):
            raise self._wrong(key, "an array of numbers", values)
        if len(values) not in (0, count):
            raise self._wrong(key, f"as long as the vocabulary, {count}", f"{len(values)} values")
        return values


def _config(gguf: Gguf, vocabulary: Vocabulary | None) -> dict[str, Any]:
    architecture = _Fields(gguf, "general.").text("architecture", "none")
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise Unsupported(f"{gguf.name}: architecture {architecture[:80]!r}; supported are {known}")
    fields = _Fields(gguf, f"{architecture}.")
    config: dict[str, Any] = {"model_type": architecture, "hidden_act": "silu"}
    config |= {theirs: fields.integer(ours) for ours, theirs in _REQUIRED_INTS.items()}
    heads = config["num_attention_heads"]
    names = {tensor.name for tensor in gguf.tensors}
    config |= {
        "num_key_value_heads": fields.integer("attention.head_count_kv", heads),
        "head_dim": fields.integer("attention.key_length", max(1, config["hidden_size"] // heads)),
        "rms_norm_eps": fields.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.real("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(fields, "rope_freqs.weight" in names),
        "vocab_size": fields.integer("vocab_size", len(vocabulary.tokens) if vocabulary else None),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "bos_token_id": vocabulary.bos_id if vocabulary else None,
        "eos_token_id": vocabulary.eos_id if vocabulary else None,
    }
    _check_heads(fields, config)
    if vocabulary and len(vocabulary.tokens) > config["vocab_size"]:
        tokens, rows = len(vocabulary.tokens), config["vocab_size"]
        raise BadModel(f"{gguf.name}: the vocabulary has {tokens} tokens, but the model only {rows} rows for them")
    return config


def _check_heads(fields: _Fields, config: Mapping[str, Any]) -> None:
    name, head = fields.gguf.name, config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % kv_heads:
        raise BadModel(f"{name}: {heads} attention heads cannot share {kv_heads} key-value heads evenly")
    for key in ("attention.value_length", "rope.dimension_count"):
        if (length := fields.integer(key, head)) != head:
            raise Unsupported(f"{name}: {fields.prefix}{key} is {length}; only the head's size, {head}, is supported")
    if head % 2:
        raise BadModel(f"{name}: heads of {head} values cannot be rotated in pairs")
    if fields.gguf.metadata.get(fields.prefix + "expert_count"):
        raise Unsupported(f"{name}: this is a mixture of experts; only dense models are supported")


def _rope_scaling(fields: _Fields, has_factors: bool) -> dict[str, Any] | None:
    """Hugging Face's `rope_scaling`, or None. Llama 3's is a tensor of factors, named under "factors"."""
    if has_factors:
        return {"rope_type": "llama3", "factors": "rope_freqs.weight"}
    old = fields.gguf.metadata.get(fields.prefix + "rope.scale_linear")
    kind = fields.text("rope.scaling.type", "none" if old is None else "linear")
    if kind == "none":
        return None
    if kind != "linear":
        raise Unsupported(f"{fields.gguf.name}: rope scaling {kind!r}; supported are linear and Llama 3's factors")
    return {"rope_type": kind, "factor": fields.real("rope.scaling.factor", fields.real("rope.scale_linear", 1.0))}


def _generation(metadata: Mapping[str, Any]) -> dict[str, float]:
    """The file's own sampling settings, by Hugging Face's names."""
    found = {theirs: metadata.get(f"general.sampling.{ours}") for ours, theirs in _SAMPLING.items()}
    return {key: value for key, value in found.items() if isinstance(value, int | float) and math.isfinite(value)}


def _tensors(gguf: Gguf, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Rename the tensors; refuse missing ones, unknown ones and shapes that contradict the configuration."""
    architecture = _ARCHITECTURES[config["model_type"]]
    sizes, layers = _sizes(config), config["num_hidden_layers"]
    outer, layer = _OUTER | _OUTER_OPTIONAL, architecture.layer | architecture.layer_optional
    tensors = {}
    for tensor in gguf.tensors:
        prefix, number, short = _split_name(tensor.name)
        if short not in (outer if number is None else layer) or (number is not None and number >= layers):
            raise Unsupported(f"{gguf.name}: {config['model_type']} with {layers} layers has no tensor {tensor.name!r}")
        name, shape = outer[short] if number is None else layer[short]
        wanted = tuple(sizes[word] for word in shape)
        if tensor.shape != wanted:
            raise BadModel(f"{gguf.name}: {tensor.name} must be {[*wanted]} by the metadata, got {[*tensor.shape]}")
        pair_rows = architecture.pair_rows and short.startswith(("attn_q.", "attn_k."))
        tensors[prefix + name] = replace(tensor, name=prefix + name, pair_rows=pair_rows)
    _check_complete(gguf.name, tensors, architecture, layers)
    return tensors


def _check_complete(name: str, tensors: Mapping[str, TensorInfo], architecture: _Architecture, layers: int) -> None:
    """Every layer is there; stops at the first gap, so a claimed number of layers costs nothing."""
    missing = next((theirs for theirs, _ in _OUTER.values() if theirs not in tensors), None)
    for n in range(layers):
        if missing is None:
            needed = (f"model.layers.{n}.{theirs}" for theirs, _ in architecture.layer.values())
            missing = next((tensor for tensor in needed if tensor not in tensors), None)
        if missing is not None:
            raise BadModel(f"{name}: the tensor for {missing} is missing ({layers} layers are claimed)")


def _split_name(name: str) -> tuple[str, int | None, str]:
    """("model.layers.3.", 3, "attn_q.weight") for "blk.3.attn_q.weight"; ("", None, name) for the others."""
    block, _, rest = name.partition(".")
    number, _, short = rest.partition(".")
    if block != "blk" or not (number.isascii() and number.isdecimal()) or len(number) > 6 or number != str(int(number)):
        return "", None, name
    return f"model.layers.{int(number)}.", int(number), short


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    head = config["head_dim"]
    return {
        "vocab": config["vocab_size"],
        "hidden": config["hidden_size"],
        "ffn": config["intermediate_size"],
        "q": config["num_attention_heads"] * head,
        "kv": config["num_key_value_heads"] * head,
        "half": head // 2,
    }

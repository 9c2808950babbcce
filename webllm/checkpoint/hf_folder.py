"""From a folder in Hugging Face's layout to a `Checkpoint`: a few JSON files, and safetensors in one file or in shards.

    config.json                   the architecture's numbers; all else may be missing
    tokenizer.json                the vocabulary; without it there are token ids only
    tokenizer_config.json         special tokens, and the chat template, which may lie in chat_template.jinja instead
    generation_config.json        stop tokens and sampling
    model.safetensors             or model.safetensors.index.json, which names the shards

The files may come from anywhere: each is bounded, and what is taken from it is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from webllm.checkpoint import Checkpoint, Folder, Source, TensorInfo, Vocabulary
from webllm.checkpoint.bounded_json import json_object
from webllm.checkpoint.hf_config import in_common_words
from webllm.checkpoint.hf_tokenizer import vocabulary_of, well_formed
from webllm.checkpoint.safetensors import read_safetensors
from webllm.errors import BadModel, ModelNotFound, Unsupported

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MLC = "mlc-chat-config.json"  # of folders in another layout: see `webllm.checkpoint.mlc`
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")

_MAX_TOKENIZER = 64 << 20  # the largest vocabularies need 33 MB
_MAX_INDEX = 16 << 20
MAX_SMALL = 4 << 20
_MAX_SHARDS = 1024
_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.safetensors", re.ASCII)

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_OTHER_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings")
_REALS = ("rms_norm_eps", "rope_theta")
_FLAGS = ("tie_word_embeddings", "attention_bias")
_OBJECTS = ("rope_scaling", "rope_parameters")
_MAX_INT = 1 << 31
_MAX_LAYERS = 4096
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


async def checkpoint_from_folder(folder: Folder) -> Checkpoint:
    """Describe the model in a folder; no weight is read.

    Raises `ModelNotFound` where config.json or the weights are missing, `BadModel` where files contradict themselves or
    each other, `Unsupported` for what webllm does not have, weights in pickle files among it. Then no file stays open.

        checkpoint = await checkpoint_from_folder(LocalFolder("SmolLM2-135M-Instruct"))
    """
    config = checked_config(await _needed(folder, "config.json"), f"{folder.name}/config.json")
    generation = await _object(folder, "generation_config.json")
    vocabulary, settings = await vocabulary_of_folder(folder, config)
    if vocabulary and len(vocabulary.tokens) > config["vocab_size"]:
        rows = config["vocab_size"]
        raise BadModel(
            f"{folder.name}: the vocabulary has {len(vocabulary.tokens)} tokens, the model {rows} rows for them"
        )
    template = await template_of(folder, settings)
    stops = _stop_ids(folder.name, config, generation, vocabulary)
    sources: list[Source] = []
    try:
        tensors = await _tensors(folder, sources)
    except BaseException:
        for source in sources:
            await source.aclose()
        raise
    return Checkpoint(folder.name, config, tensors, sources, vocabulary, template, stops, sampling_of(generation))


async def vocabulary_from_folder(folder: Folder) -> Vocabulary | None:
    """The vocabulary alone, or None if the folder has none; neither weights nor a configuration need be there."""
    return (await vocabulary_of_folder(folder, await _object(folder, "config.json")))[0]


def folder_of(location: str) -> str | None:
    """The address of the folder that `location` names: itself, if it ends with a slash, or that of a file.

    folder_of("https://example.org/tiny/model.safetensors")  # "https://example.org/tiny/"
    """
    folder, slash, file = location.rpartition("/")
    return folder + slash if file.endswith((".safetensors", INDEX, MLC)) or (slash and not file) else None


def refuse_pickle(name: str) -> None:
    """Raise `Unsupported` if a file of this name is a pickle, which could run any code once it is read."""
    if name.lower().endswith(PICKLES):
        raise Unsupported(
            f"{name}: this is a Python pickle, which runs whatever code it holds when it is read, so it is not. Take "
            "the model's safetensors files (most repositories have them), or convert it where you trust it: "
            "transformers' model.save_pretrained(folder) writes safetensors"
        )


async def _needed(folder: Folder, name: str) -> dict[str, Any]:
    data = await folder.read(name, MAX_SMALL)
    if data is None:
        raise ModelNotFound(f"{folder.name}: no {name} there; wanted a folder in Hugging Face's layout")
    return json_object(data, f"{folder.name}/{name}")


async def _object(folder: Folder, name: str) -> dict[str, Any]:
    data = await folder.read(name, MAX_SMALL)
    return {} if data is None else json_object(data, f"{folder.name}/{name}")


def checked_config(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A config.json, once the values that are used later are of the types they should be."""
    if config.get("quantization_config"):
        method = config["quantization_config"]
        method = method.get("quant_method", "") if isinstance(method, Mapping) else method
        raise Unsupported(
            f"{name}: the weights are quantised already ({str(method)[:40]}); take the repository with weights in BF16 "
            "or F16, which webllm.load(..., quant='q4') quantises, or a GGUF file"
        )
    config = in_common_words(config)
    for key in (*_SIZES, *_OTHER_SIZES):
        value = config.get(key)
        if (value is not None or key in _SIZES) and not (type(value) is int and 0 < value < _MAX_INT):
            raise BadModel(f"{name}: {key} must be a whole number from 1 to {_MAX_INT - 1}, got {str(value)[:40]}")
    kinds = {**dict.fromkeys(_REALS, int | float), **dict.fromkeys(_FLAGS, bool), **dict.fromkeys(_OBJECTS, dict)}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind | None):
            raise BadModel(f"{name}: {key} must be {_KIND_NAMES[kind]} or null, got {str(config[key])[:40]}")
    if config["num_hidden_layers"] > _MAX_LAYERS:
        raise BadModel(f"{name}: {config['num_hidden_layers']} layers are claimed; at most {_MAX_LAYERS} are allowed")
    return {key: value for key, value in config.items() if value is not None}


_KIND_NAMES = {int | float: "a number", bool: "true or false", dict: "an object"}


async def vocabulary_of_folder(
    folder: Folder, config: Mapping[str, Any]
) -> tuple[Vocabulary | None, Mapping[str, Any]]:
    """The vocabulary, or None, and the tokenizer_config.json, {} where there is none."""
    settings, data = await _object(folder, "tokenizer_config.json"), await folder.read("tokenizer.json", _MAX_TOKENIZER)
    if data is None:
        return None, settings
    name = f"{folder.name}/tokenizer.json"
    return vocabulary_of(json_object(data, name), settings, config, name), settings


async def template_of(folder: Folder, settings: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own goes before tokenizer_config.json; of several there, it is the default."""
    data = await folder.read("chat_template.jinja", MAX_SMALL)
    if data is not None:
        return data.decode("utf-8", "replace")
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping) and _is_text(one)}
        found = named.get("default", next(iter(named.values()), None))
    return well_formed(found) if isinstance(found, str) else None


def _is_text(one: Mapping[str, Any]) -> bool:
    return isinstance(one.get("name"), str) and isinstance(one.get("template"), str)


def _stop_ids(
    name: str, config: Mapping[str, Any], generation: Mapping[str, Any], vocabulary: Vocabulary | None
) -> frozenset[int]:
    """Every end token that any of the files names."""
    rows, key = config["vocab_size"], "eos_token_id"
    found = ids_of(config.get(key), rows, f"{name}/config.json: {key}")
    found |= ids_of(generation.get(key), rows, f"{name}/generation_config.json: {key}")
    return frozenset(found | ({vocabulary.eos_id} if vocabulary and vocabulary.eos_id is not None else set()))


def ids_of(ids: Any, rows: int, what: str) -> set[int]:
    """The token ids that a file gives as one number, a list, or null. what: file and key, for messages."""
    found = set()
    for number in ids if isinstance(ids, list) else [ids] if ids is not None else []:
        if type(number) is not int or not 0 <= number < rows:
            raise BadModel(f"{what} must be ids from 0 to {rows - 1}, got {str(number)[:40]}")
        found.add(number)
    return found


def sampling_of(settings: Mapping[str, Any]) -> dict[str, float]:
    """What a file recommends for sampling."""
    return {key: settings[key] for key in _SAMPLING if _is_number(settings.get(key))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


async def _tensors(folder: Folder, sources: list[Source]) -> dict[str, TensorInfo]:
    """The tensors of all files by name. Files are added to `sources` as they are opened."""
    source = await folder.open(WEIGHTS)
    if source is not None:
        sources.append(source)
        return await read_safetensors(source)
    index = await folder.read(INDEX, _MAX_INDEX)
    if index is None:
        await _refuse_without_weights(folder)
        raise ModelNotFound(f"{folder.name}: no weights there; wanted {WEIGHTS} or {INDEX}")
    places = json_object(index, f"{folder.name}/{INDEX}").get("weight_map")
    return await _sharded(folder, places, sources)


async def _refuse_without_weights(folder: Folder) -> None:
    for name in _PICKLED:
        if await _is_there(folder, name):
            refuse_pickle(f"{folder.name}/{name}".removesuffix(".index.json"))


async def _is_there(folder: Folder, name: str) -> bool:
    source = await folder.open(name)
    if source is not None:
        await source.aclose()
    return source is not None


async def _sharded(folder: Folder, places: Any, sources: list[Source]) -> dict[str, TensorInfo]:
    """places: tensor's name -> file, as the index has them; the files must hold these tensors, and no others."""
    name = f"{folder.name}/{INDEX}"
    if not isinstance(places, dict) or not places:
        raise BadModel(f"{name}: weight_map must be an object of tensors and files")
    shards = _shards(places.values(), name)
    tensors: dict[str, TensorInfo] = {}
    for number, shard in enumerate(shards):
        source = await folder.open(shard)
        if source is None:
            raise ModelNotFound(
                f"{folder.name}: {shard} is missing, the shard {number + 1} of {len(shards)}; fetch it too"
            )
        sources.append(source)
        for key, tensor in (await read_safetensors(source, number)).items():
            if places.get(key) != shard:
                raise BadModel(f"{name}: {key[:200]!r} is in {shard}, the index says {str(places.get(key))[:200]!r}")
            tensors[key] = tensor
        await source.pause()
    if missing := next((key for key in places if key not in tensors), None):
        raise BadModel(f"{folder.name}: {places[missing]} has no {missing[:200]!r}, which the index says it holds")
    return tensors


def _shards(files: Iterable[Any], name: str) -> Sequence[str]:
    """The files that an index names, in order; plain names in the same folder."""
    found = list(dict.fromkeys(file if isinstance(file, str) else str(file)[:200] for file in files))
    if wrong := next((file for file in found if not _SHARD.fullmatch(file)), None):
        raise BadModel(f"{name}: wanted names of safetensors files in the same folder, got {wrong[:200]!r}")
    if len(found) > _MAX_SHARDS:
        raise BadModel(f"{name}: {len(found)} shards; at most {_MAX_SHARDS} are allowed")
    return sorted(found)

"""Folders in Hugging Face's layout, read from memory: what is taken from which file, and files that lie or lack."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import webllm
from tests.unit.test_gguf import Bytes
from webllm.chat_template import ChatTemplate, encode_chat
from webllm.checkpoint import Checkpoint
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import vocabulary_from_gguf
from webllm.checkpoint.hf_folder import checkpoint_from_folder, folder_of, vocabulary_from_folder
from webllm.errors import BadModel, ModelNotFound, RequestError, Unsupported, WebLLMError
from webllm.host.encoder import rust_encoder
from webllm.host.files import FileSource
from webllm.host.folders import LocalFolder
from webllm.limits import Limits
from webllm.link import link
from webllm.program import Settings, build, context_size
from webllm.pull import cached
from webllm.quantize import quantised
from webllm.tokenizer import Tokenizer
from webllm.tokenizer_json import tokenizer_json

DATA = Path(__file__).parents[1] / "data"
INDEX = "model.safetensors.index.json"
GPT2_BYTES = [chr(c) for c in (*range(0x21, 0x7F), 0x120, 0x10A)]
CONFIG: dict[str, Any] = json.loads((DATA / "tiny-llama" / "config.json").read_text(encoding="utf-8"))
WEIGHTS = (DATA / "tiny-llama" / "model.safetensors").read_bytes()
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}{{ eos_token }}{% endfor %}"
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {"id": 0, "content": "<|user|>", "special": True},
        {"id": 1, "content": "<s>", "special": True},
        {"id": 2, "content": "</s>", "special": True},
        {"id": 3, "content": "<tool>", "special": False},
    ],
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
    "post_processor": {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel"},
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]},
        ],
    },
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "vocab": {text: i for i, text in enumerate(["<|user|>", "<s>", "</s>", "<tool>", *GPT2_BYTES, "ab", "Ġab"])},
        "merges": ["a b", "Ġ ab"],
    },
}
SETTINGS: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": TEMPLATE}
FILES: dict[str, Any] = {
    "config.json": CONFIG,
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": SETTINGS,
    "generation_config.json": {"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20, "do_sample": True},
    "model.safetensors": WEIGHTS,
}


class Memory:
    """A folder of files at hand: bytes, or what is written as JSON. `opened` are its sources."""

    name = "memory"

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.files = {name: v if isinstance(v, bytes) else json.dumps(v).encode() for name, v in files.items()}
        self.opened: list[Closing] = []

    async def read(self, name: str, limit: int) -> bytes | None:
        return self.files.get(name)

    async def open(self, name: str) -> Any:
        if name not in self.files:
            return None
        self.opened.append(Closing(self.files[name]))
        return self.opened[-1]


class Closing(Bytes):
    """A source that knows whether it was closed, and how often it was paused."""

    closed = False
    paused = 0

    async def pause(self) -> None:
        self.paused += 1

    async def aclose(self) -> None:
        self.closed = True


async def checkpoint(**changes: Any) -> Checkpoint:
    """Of FILES with changes, by names with "_" for "."; None: the file is missing."""
    return await checkpoint_from_folder(Memory(changed(**changes)))


def changed(**changes: Any) -> dict[str, Any]:
    named = {name.replace("_json", ".json").replace("_safetensors", ".safetensors"): v for name, v in changes.items()}
    return {name: value for name, value in (FILES | named).items() if value is not None}


def shards(count: int = 3) -> dict[str, Any]:
    """The weights dealt out in turn to several files, and their index."""
    (length,) = struct.unpack("<Q", WEIGHTS[:8])
    header = json.loads(WEIGHTS[8 : 8 + length])
    header.pop("__metadata__")
    files, places = {}, {}
    for number in range(count):
        part, data, name = {}, b"", f"model-{number + 1}-of-{count}.safetensors"
        for key in list(header)[number::count]:
            begin, end = header[key]["data_offsets"]
            part[key] = {**header[key], "data_offsets": [len(data), len(data) + end - begin]}
            data += WEIGHTS[8 + length + begin : 8 + length + end]
            places[key] = name
        text = json.dumps(part).encode()
        files[name] = struct.pack("<Q", len(text)) + text + data
    return files | {INDEX: {"weight_map": places}}


def tokenizer_of(found: Checkpoint) -> Tokenizer:
    return Tokenizer(found.vocabulary, rust_encoder)


async def test_what_a_folder_holds_is_taken_from_all_its_files() -> None:
    found = await checkpoint()
    assert found.config["hidden_size"] == 44 and len(found.tensors) == 21
    assert found.stop_ids == {2, 7}
    assert found.generation == {"temperature": 0.6, "top_k": 20}
    assert found.chat_template == TEMPLATE
    assert found.vocabulary and (found.vocabulary.bos_id, found.vocabulary.eos_id) == (1, 2)
    assert found.vocabulary.add_bos and not found.vocabulary.add_eos


async def test_shards_are_one_checkpoint_and_only_the_last_keeps_its_connection_no_longer() -> None:
    folder = Memory(changed(model_safetensors=None) | shards())
    found = await checkpoint_from_folder(folder)
    assert found.tensors.keys() == (await checkpoint()).tensors.keys()
    assert {tensor.source for tensor in found.tensors.values()} == {0, 1, 2}
    assert [source.paused for source in folder.opened] == [1, 1, 1]
    for name, tensor in found.tensors.items():
        whole = (await checkpoint()).tensors[name]
        data = folder.opened[tensor.source].data[tensor.offset : tensor.offset + tensor.nbytes]
        assert data == WEIGHTS[whole.offset : whole.offset + whole.nbytes]


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"config_json": None}, ModelNotFound, "no config.json there"),
        ({"config_json": b"<!doctype html>"}, BadModel, "config.json: no JSON"),
        ({"config_json": CONFIG | {"hidden_size": "44"}}, BadModel, "hidden_size must be a whole number .* got 44"),
        ({"config_json": CONFIG | {"num_hidden_layers": 1 << 20}}, BadModel, "at most 4096"),
        ({"config_json": CONFIG | {"rope_scaling": [1]}}, BadModel, "rope_scaling must be an object or null"),
        (
            {"config_json": CONFIG | {"quantization_config": {"quant_method": "awq"}}},
            Unsupported,
            r"quantised already \(awq\); take the repository with weights in BF16",
        ),
        ({"config_json": CONFIG | {"eos_token_id": 131}}, BadModel, "eos_token_id must be ids from 0 to 130, got 131"),
        ({"config_json": CONFIG | {"vocab_size": 90}}, BadModel, "the vocabulary has 102 tokens, the model 90"),
        ({"model_safetensors": None}, ModelNotFound, f"wanted model.safetensors or {INDEX}"),
        ({"model_safetensors": WEIGHTS[:-1]}, webllm.errors.Truncated, "cut off"),
        (
            {"tokenizer_json": TOKENIZER | {"model": {"type": "WordPiece"}}},
            Unsupported,
            "'WordPiece'; supported is BPE",
        ),
        ({"tokenizer_json": TOKENIZER | {"model": {"vocab": {"a": -1}, "merges": []}}}, BadModel, "id is a number"),
        ({"tokenizer_json": TOKENIZER | {"model": {"vocab": {"a": 1, "b": 1}, "merges": []}}}, BadModel, "one id"),
        ({"tokenizer_config_json": {"eos_token": "<end>"}}, BadModel, "no '<end>', which .* calls eos_token"),
    ],
)
async def test_a_folder_that_lies_is_refused_by_name(files: dict[str, Any], kind: type[Exception], words: str) -> None:
    folder = Memory(changed(**files))
    with pytest.raises(kind, match=f"(?s)^(memory|test.gguf).*{words}"):
        await checkpoint_from_folder(folder)
    assert all(source.closed for source in folder.opened)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model-2-of-3.safetensors": None}, ModelNotFound, "model-2-of-3.safetensors is missing, the shard 2 of 3"),
        ({INDEX: {"weight_map": {"a": "../secret.safetensors"}}}, BadModel, "in the same folder, got '../secret"),
        ({INDEX: {"weight_map": {"a": "pytorch_model.bin"}}}, BadModel, "names of safetensors files"),
        ({INDEX: {"weight_map": {"a": 7}}}, BadModel, "names of safetensors files"),
        ({INDEX: {"weight_map": []}}, BadModel, "weight_map must be an object"),
        ({INDEX: {}}, BadModel, "weight_map must be an object"),
        ({INDEX: {"weight_map": {str(i): f"{i}.safetensors" for i in range(1025)}}}, BadModel, "1025 shards"),
        (
            {INDEX: {"weight_map": {"x": "model-1-of-3.safetensors"}}},
            BadModel,
            "is in model-1-of-3.safetensors, the index",
        ),
    ],
)
async def test_shards_that_do_not_fit_their_index_are_refused(
    changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    files = {**changed(model_safetensors=None), **shards(), **changes}
    folder = Memory({name: value for name, value in files.items() if value is not None})
    with pytest.raises(kind, match=words):
        await checkpoint_from_folder(folder)
    assert all(source.closed for source in folder.opened)


async def test_a_tensor_that_the_index_promises_and_no_shard_has_is_missed() -> None:
    files = shards()
    files[INDEX]["weight_map"]["lm_head.bias"] = "model-3-of-3.safetensors"
    with pytest.raises(BadModel, match=r"model-3-of-3.safetensors has no 'lm_head.bias'"):
        await checkpoint_from_folder(Memory(changed(model_safetensors=None) | files))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"])
async def test_a_folder_of_pickles_is_refused_with_the_reason_and_the_way_out(name: str) -> None:
    with pytest.raises(Unsupported, match=r"runs whatever code it holds.*safetensors.*save_pretrained"):
        await checkpoint_from_folder(Memory(changed(model_safetensors=None) | {name: b"\x80\x02"}))


@pytest.mark.parametrize("name", ["model.bin", "https://example.org/a/model.PT", "x.pth", "y.ckpt", "z.pkl"])
async def test_a_pickle_by_name_is_refused_before_anything_is_opened(name: str) -> None:
    with pytest.raises(Unsupported, match=f"^{name}: this is a Python pickle"):
        await webllm.load(name)


# Configurations and tensors that contradict each other


def built(found: Checkpoint) -> Any:
    return link(build(found, Settings(context_size(found, None)), Limits()))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"hidden_size": 48}, BadModel, r"wanted \[131, 48\] in all by the configuration, got model.embed_tokens"),
        ({"num_attention_heads": 8}, BadModel, "wanted .* by the configuration, got model.layers.0.self_attn"),
        ({"num_hidden_layers": 3}, BadModel, "no tensor model.layers.2"),
        ({"num_hidden_layers": 1}, Unsupported, "llama has no place for the tensor 'model.layers.1"),
        ({"attention_bias": True}, BadModel, "no tensor model.layers.0.self_attn.q_proj.bias"),
        ({"model_type": "mamba"}, Unsupported, "model_type 'mamba'; supported are gemma, .*llama"),
        ({"hidden_act": "mish"}, Unsupported, "hidden_act 'mish'; supported are .*silu"),
        ({"rope_parameters": {"rope_type": "ntk"}}, Unsupported, "rope_scaling of type 'ntk'"),
    ],
)
async def test_a_configuration_that_contradicts_the_tensors_is_refused(
    changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    found = await checkpoint(config_json=CONFIG | changes)
    with pytest.raises(kind, match=words):
        built(found)


async def test_a_head_that_is_tied_may_be_there_all_the_same() -> None:
    assert built(await checkpoint(config_json=CONFIG | {"tie_word_embeddings": True})).plans


async def test_a_tensor_of_integers_is_no_weight() -> None:
    """As in checkpoints of 8 bits with scales beside them."""
    header = WEIGHTS.replace(b'"dtype":"BF16"', b'"dtype":"I16" ', 1)
    with pytest.raises(Unsupported, match=r"lm_head\.weight: type I16; supported are F32, F16, BF16"):
        built(await checkpoint(model_safetensors=header))


# Quantisation as a choice


async def test_layers_get_four_bits_and_embedding_and_head_eight() -> None:
    tensors = quantised(await checkpoint(), "q4").tensors
    assert tensors["lm_head.weight"].store_as == tensors["model.embed_tokens.weight"].store_as == "q8_0"
    assert tensors["model.layers.1.mlp.up_proj.weight"].store_as == "q4_1"
    assert tensors["model.norm.weight"].store_as is None


async def test_what_has_the_format_already_stays_as_it_is() -> None:
    found = await checkpoint()
    assert quantised(found, None) is found
    f16 = quantised(found, "f16").tensors
    assert f16["lm_head.weight"].store_as == "f16"


async def test_an_unknown_quantisation_and_one_of_a_quantised_file_are_refused() -> None:
    found = await checkpoint()
    with pytest.raises(RequestError, match="quant must be one of q4, q4_sym, q8, f16, f32, got 'int3'"):
        quantised(found, "int3")
    with pytest.raises(RequestError, match="quantised in its file already; load it without quant"):
        quantised(Checkpoint("x", {}, {}, []), "q4")


# Tokenizers and templates


async def test_ordinary_text_never_becomes_a_special_token() -> None:
    tokenizer = tokenizer_of(await checkpoint())
    for text in ("</s>", "a<|user|>b", "<s>"):
        ids = tokenizer.encode(text)
        assert not set(ids) & {0, 1, 2} and tokenizer.decode(ids) == text


async def test_special_text_gets_the_bos_that_the_post_processor_adds() -> None:
    tokenizer = tokenizer_of(await checkpoint())
    assert [tokenizer.vocabulary.tokens[i] for i in tokenizer.encode("ab ab</s>", special=True)] == [
        "<s>",
        "ab",
        "Ġab",
        "</s>",
    ]


async def test_tokens_that_are_added_and_not_special_are_always_recognised() -> None:
    assert tokenizer_of(await checkpoint()).encode("<tool>") == [3]


async def test_a_chat_is_rendered_by_the_template_with_the_folder_s_own_tokens() -> None:
    found = await checkpoint()
    tokenizer = tokenizer_of(found)
    template = ChatTemplate(found.chat_template, tokenizer.special_tokens, bos_token="<s>", eos_token="</s>")
    ids = encode_chat(template, tokenizer, [{"role": "user", "content": "ab</s>"}])
    assert ids[:2] == [1, 0] and ids[-1] == 2 and ids.count(2) == 1


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"chat_template.jinja": b"from the file"}, "from the file"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "r"}]}}, "r"),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [{"name": "x", "template": "x"}, {"name": "default", "template": "d"}]
                }
            },
            "d",
        ),
        ({"tokenizer_config.json": {"chat_template": 7}}, None),
        ({"tokenizer_config.json": {}}, None),
    ],
)
async def test_the_template_may_lie_in_three_places(files: dict[str, Any], wanted: str | None) -> None:
    assert (await checkpoint_from_folder(Memory({**FILES, **files}))).chat_template == wanted


async def test_a_folder_without_a_tokenizer_has_ids_only() -> None:
    assert (await checkpoint(tokenizer_json=None)).vocabulary is None


async def test_a_vocabulary_needs_no_weights() -> None:
    found = await vocabulary_from_folder(Memory({"tokenizer.json": TOKENIZER}))
    assert found and len(found.tokens) == 102


SENTENCEPIECE: dict[str, Any] = {
    "added_tokens": [{"id": i, "content": text, "special": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    },
    "pre_tokenizer": None,
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    },
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {
            text: i
            for i, text in enumerate(
                ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"ab▁</s>", "ab", "▁ab"]
            )
        },
        "merges": ["a b", "▁ ab"],
    },
}


async def test_a_sentencepiece_tokenizer_keeps_spaces_and_falls_back_to_bytes() -> None:
    """As Llama 2's is written: a space before the text, bytes for what the vocabulary lacks."""
    vocabulary = await vocabulary_from_folder(
        Memory({"tokenizer.json": SENTENCEPIECE, "tokenizer_config.json": SETTINGS})
    )
    tokenizer = Tokenizer(vocabulary, rust_encoder)
    tokens = tokenizer.vocabulary.tokens
    assert [tokens[i] for i in tokenizer.encode("ab ab")] == ["▁ab", "▁ab"]
    assert [tokens[i] for i in tokenizer.encode("é")] == ["▁", "<0xC3>", "<0xA9>"]
    assert [tokens[i] for i in tokenizer.encode("</s>", special=True)] == ["<s>", "</s>"]
    for text in ("ab ab", "é", " a  b ", "</s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


async def test_the_default_model_s_vocabulary_as_a_tokenizer_json_gives_the_ids_of_transformers() -> None:
    """Written as SmolLM2's own file is: shorthands for digits and bytes, special tokens in the vocabulary too."""
    path = cached("smollm2-135m-instruct")
    if path is None:
        pytest.fail("the default model is not in the cache folder: run `make model`")
    own = vocabulary_from_gguf(await read_gguf(FileSource(path)))
    assert own is not None
    made = json.loads(tokenizer_json(own))
    made["added_tokens"] = [
        {"id": i, "content": text, "special": True} for i, text in enumerate(own.tokens) if own.token_types[i] == 3
    ]
    made["model"]["vocab"] |= {token["content"]: token["id"] for token in made["added_tokens"]}
    made["pre_tokenizer"] = TOKENIZER["pre_tokenizer"]
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    found = await vocabulary_from_folder(Memory({"tokenizer.json": made, "tokenizer_config.json": settings}))
    tokenizer, theirs = Tokenizer(found, rust_encoder), Tokenizer(own, rust_encoder)
    golden = json.loads((DATA / "smollm2-135m-instruct.json").read_text(encoding="utf-8"))["cases"]
    for case in golden:
        text = theirs.decode(case["prompt_ids"], special=True)
        assert tokenizer.encode(text, special=True) == case["prompt_ids"]
    for text in ("１２ ³ ½ ٣", "naïve  café\n\n\tx", "<|im_end|>"):
        assert tokenizer.encode(text) == theirs.encode(text)


# Places


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("https://example.org/tiny/", "https://example.org/tiny/"),
        ("https://example.org/tiny/model.safetensors", "https://example.org/tiny/"),
        (f"models/tiny/{INDEX}", "models/tiny/"),
        ("https://example.org/tiny.gguf", None),
        ("smollm2-135m-instruct", None),
    ],
)
def test_a_folder_is_named_by_itself_or_by_its_weights(location: str, folder: str | None) -> None:
    assert folder_of(location) == folder


async def test_a_small_file_that_is_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b" " * 101)
    with pytest.raises(BadModel, match="more than the 100 bytes"):
        await LocalFolder(tmp_path).read("config.json", 100)


# Files that make no sense, thousands of them

MEMORY = 100 << 20
some = settings(
    max_examples=500,
    deadline=timedelta(seconds=30),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(some, max_examples=15_000)


async def use(files: Mapping[str, Any]) -> bool:
    """All that loading does before the GPU, and a prompt; whether the folder was good enough."""
    try:
        found = quantised(await checkpoint_from_folder(Memory(files)), "q4")
        built(found)
        if found.vocabulary is None:
            return True
        tokenizer = tokenizer_of(found)
        tokenizer.decode(tokenizer.encode("Hello, ab </s>", special=True))
        ends = {name: found.vocabulary.tokens[i] for name, i in (("eos_token", tokenizer.eos_id),) if i is not None}
        template = ChatTemplate(found.chat_template, tokenizer.special_tokens, **ends)
        encode_chat(template, tokenizer, [{"role": "user", "content": "ab"}])
    except WebLLMError as error:
        assert str(error), "an error without a word"
        return False
    return True


async def check(files: Mapping[str, Any]) -> None:
    tracemalloc.start()
    try:
        await use(files)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


SHARDED = {**changed(model_safetensors=None), **shards(2)}
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 44, 131, -1, 1.5, 1e400, -0.0, 1 << 31, 1 << 64, float("nan")]),
    st.sampled_from(
        ["", "<s>", "</s>", "llama", "qwen2", "linear", "BPE", "a b", "{{ x", "{% for m in messages %}", "\ud800"]
    ),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.sampled_from([[1, 2], [[]], {"type": "Sequence"}, {"content": 1}, ["a", "b"]]),
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [node for key in keys for node in nodes(value[key])]


class Files(dict[str, Any]):
    """Shown by what differs from good ones: the weights are long."""

    def __repr__(self) -> str:
        return str(
            {
                name: str(value)[:2000]
                for name, value in self.items()
                if value not in (FILES.get(name), SHARDED.get(name))
            }
        )


@st.composite
def senseless(draw: st.DrawFn) -> Files:
    """A good folder with a few values changed anywhere in its JSON, files missing, or their bytes spoilt."""
    files = Files(draw(st.sampled_from([FILES, FILES, SHARDED])))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        data = files[name]
        if draw(st.integers(0, 19)) == 0 or isinstance(data, bytes):
            raw = bytearray(data if isinstance(data, bytes) else json.dumps(data).encode())
            at = draw(st.integers(0, min(3000, len(raw))))
            raw[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
            files[name] = bytes(raw)
        elif draw(st.integers(0, 19)) == 0 or not nodes(data):
            del files[name]
        else:
            files[name] = copy = json.loads(json.dumps(data))
            container, key = draw(st.sampled_from(nodes(copy)))
            if draw(st.integers(0, 4)) == 0:
                del container[key]
            else:
                container[key] = draw(leaves)
    return files


async def test_the_folders_that_are_spoilt_here_are_good_before() -> None:
    assert await use(FILES) and await use(SHARDED)


@some
@given(senseless())
async def test_a_senseless_folder_is_read_or_refused_by_name(files: dict[str, Any]) -> None:
    await check(files)


@pytest.mark.slow
@many
@given(senseless())
async def test_very_many_senseless_folders_are_read_or_refused_by_name(files: dict[str, Any]) -> None:
    await check(files)

"""Folders of MLC LLM, read from memory: the format's traps one by one, and files that lie or lack."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tempfile
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.mlc_folder import Folder
from tests.models.test_mlc import FAMILIES, PADDED, made
from tests.unit.test_gguf import Bytes
from tests.unit.test_hf_folder import MEMORY, TOKENIZER, Memory, built, leaves, nodes, some, tokenizer_of
from webllm.chat_template import ChatTemplate, encode_chat
from webllm.checkpoint import Checkpoint
from webllm.checkpoint.mlc import CONFIG, MANIFESTS, QUANTS, checkpoint_from_mlc
from webllm.errors import BadModel, ChecksumMismatch, ModelNotFound, Truncated, Unsupported, WebLLMError
from webllm.host.files import CheckedSource

MANIFEST = MANIFESTS[0]
CONVERSATION = {
    "name": "chatml",
    "system_template": "<|user|>sys\n{system_message}</s>\n",
    "system_message": "You help.",
    "system_prefix_token_ids": [1],
    "roles": {"user": "<|user|>u", "assistant": "<|user|>a", "tool": "<|user|>u"},
    "role_templates": {"user": "[{user_message}]{function_string}", "assistant": "{assistant_message}"},
    "seps": ["</s>\n", "</s>\n\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
    "stop_str": ["</s>", "no token"],
    "stop_token_ids": [9, 123456],
}


class MlcMemory(Memory):
    """See `Memory`; shards are compared with their sums."""

    async def open(self, name: str, md5: str | None = None) -> Any:
        source = await super().open(name)
        return source if source is None or md5 is None else CheckedSource(source, md5)


def files_of(family: str = "llama", quant: str = "q4f16_1", **written: Any) -> tuple[dict[str, Any], Folder]:
    """A folder as MLC writes it, JSON as values."""
    folder, chat, _ = made(FAMILIES[family], quant)
    with tempfile.TemporaryDirectory() as place:
        folder.write(Path(place), chat, **written)
        read = {path.name: path.read_bytes() for path in Path(place).iterdir()}
    files = {name: json.loads(data) if name.endswith(".json") else data for name, data in read.items()}
    return files | {
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>"},
    }, folder


FILES, FOLDER = files_of()


async def checkpoint(**chat: Any) -> Checkpoint:
    """Of FILES with changes of mlc-chat-config.json."""
    return await of(FILES | {CONFIG: FILES[CONFIG] | chat})


async def of(files: Mapping[str, Any]) -> Checkpoint:
    found = await checkpoint_from_mlc(MlcMemory(files))
    assert found is not None
    return found


async def test_every_record_says_f32_to_bf16_and_only_float32_means_it() -> None:
    for quant, matrices, norms in (
        ("q4f16_1", "MLC_Q4", "F16"),
        ("q4f32_1", "MLC_Q4", "BF16"),
        ("q0f32", "BF16", "BF16"),
    ):
        found = await of(files_of(quant=quant)[0])
        assert found.tensors["model.layers.0.mlp.down_proj.weight"].dtype == matrices
        assert found.tensors["model.norm.weight"].dtype == norms
        scales = found.tensors["lm_head.weight"].scales
        assert scales is None if quant == "q0f32" else scales.dtype == norms


async def test_float32_that_is_stored_as_such_is_read_as_such() -> None:
    files = copy.deepcopy(files_of(quant="q0f32")[0])
    (shard,) = [one for one in files[MANIFEST]["records"] if one["records"][-1]["name"] == "model.norm.weight"]
    record, data = shard["records"][-1], files[shard["dataPath"]]
    files[shard["dataPath"]] = data[: record["byteOffset"]] + bytes(2 * record["nbytes"])
    shard |= {"nbytes": shard["nbytes"] + record["nbytes"]}
    record |= {"format": "raw", "nbytes": 2 * record["nbytes"]}
    assert (await of(files)).tensors["model.norm.weight"].dtype == "F32"


async def test_layers_in_the_order_of_their_names_and_scales_in_other_files_are_found() -> None:
    found = await of(FILES)
    down = found.tensors["model.layers.0.mlp.down_proj.weight"]
    assert down.scales is not None and down.shape == (72, 172) and down.scales.shape == (72, 6)
    apart = [t for t in found.tensors.values() if t.scales and t.scales.source != t.source]
    assert apart, "the folder's files are small enough to part some"


async def test_fused_matrices_are_cut_by_rows_with_their_scales() -> None:
    found = await of(files_of("qwen2")[0])
    at = "model.layers.1.self_attn."
    q, k, v = (found.tensors[f"{at}{one}_proj.weight"] for one in "qkv")
    assert (q.shape, k.shape, v.shape) == ((144, 72), (48, 72), (48, 72))
    assert k.offset == q.offset + q.nbytes and v.offset == k.offset + k.nbytes
    assert q.scales and k.scales and k.scales.offset == q.scales.offset + q.scales.nbytes
    assert found.tensors[f"{at}v_proj.bias"].shape == (48,)
    assert found.config["tie_word_embeddings"] is True and found.config["model_type"] == "qwen2"


async def test_phi_3_has_names_of_its_own_and_stays_fused_as_its_source_is() -> None:
    files = copy.deepcopy(FILES)
    for record in (one for shard in files[MANIFEST]["records"] for one in shard["records"]):
        for ours, theirs in (
            ("model.layers", "transformer.h"),
            ("input_layernorm", "ln"),
            ("self_attn.o_proj", "mixer.out_proj"),
            ("self_attn", "mixer"),
            ("model.embed_tokens", "transformer.embd"),
            ("model.norm", "transformer.norm"),
        ):
            record["name"] = record["name"].replace(ours, theirs)
    files[CONFIG] = FILES[CONFIG] | {"model_type": "phi3"}
    found = await of(files)
    assert {name for name in found.tensors if ".1." in name or "layers" not in name} == {
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.self_attn.qkv_proj.weight",
        "model.layers.1.self_attn.o_proj.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.layers.1.mlp.gate_up_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    }


async def test_gemma_s_norms_count_from_zero_here() -> None:
    assert "norms_include_one" not in (await checkpoint()).config
    assert (await checkpoint(model_type="gemma2")).config["norms_include_one"] is True


async def test_the_outer_context_counts_and_the_window_where_there_is_none() -> None:
    for outer, inner, wanted in (({"context_window_size": 512}, {}, 512), ({"context_window_size": -1}, {}, 131072)):
        found = await checkpoint(**outer, model_config=FILES[CONFIG]["model_config"] | inner)
        assert found.config["max_position_embeddings"] == wanted
    model = FILES[CONFIG]["model_config"] | {"context_window_size": -1}
    found = await checkpoint(context_window_size=-1, sliding_window_size=4096, model_config=model)
    assert found.config["max_position_embeddings"] == 4096


async def test_rows_that_stand_for_no_token_have_no_logits() -> None:
    found = await checkpoint()
    assert found.config["vocab_size"] == 301 and FILES[CONFIG]["vocab_size"] == PADDED
    assert found.tensors["lm_head.weight"].shape == found.tensors["model.embed_tokens.weight"].shape == (301, 72)


async def test_stop_tokens_are_those_of_both_lists_and_of_texts_that_are_tokens() -> None:
    found = await checkpoint(eos_token_id=7, conv_template=CONVERSATION)
    assert found.stop_ids == {2, 7, 9}  # the id of "</s>" is 2; an id beyond the vocabulary ends nothing


async def test_sampling_is_the_file_s() -> None:
    assert (await checkpoint(temperature=0.6, top_p=None, repetition_penalty=1.1)).generation == {
        "temperature": 0.6,
        "repetition_penalty": 1.1,
    }


async def test_a_theta_is_understood_under_either_name_and_a_zero_means_nothing() -> None:
    model = FILES[CONFIG]["model_config"] | {"rope_theta": 0}
    assert (await checkpoint(model_config=model)).config["rope_theta"] == 5000.0
    assert (await checkpoint(model_config=model | {"rope_theta": 3.0})).config["rope_theta"] == 3.0


def rendered(found: Checkpoint, messages: list[dict[str, str]], **options: Any) -> str:
    tokenizer = tokenizer_of(found)
    return "".join(
        text for text, _ in ChatTemplate(found.chat_template, tokenizer.special_tokens).render(messages, **options)
    )


async def test_a_conversation_without_jinja_is_written_as_mlc_writes_it() -> None:
    found = await checkpoint(conv_template=CONVERSATION)
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    start = "<s><|user|>sys\nYou help.</s>\n"
    assert rendered(found, [user]) == start + "<|user|>u\n[Hi]</s>\n<|user|>a\n"
    told = rendered(
        found, [{"role": "system", "content": "Be brief."}, user, answer, user], add_generation_prompt=False
    )
    assert told == ("<s><|user|>sys\nBe brief.</s>\n<|user|>u\n[Hi]</s>\n<|user|>a\nHo</s>\n\n<|user|>u\n[Hi]</s>\n")


async def test_a_conversation_may_leave_out_separators_and_the_first_role() -> None:
    conversation = CONVERSATION | {
        "role_content_sep": None,
        "role_empty_sep": None,
        "add_role_after_system_message": False,
    }
    found = await checkpoint(conv_template=conversation)
    assert (
        rendered(found, [{"role": "user", "content": "Hi"}]) == "<s><|user|>sys\nYou help.</s>\n[Hi]</s>\n<|user|>a: "
    )


async def test_texts_that_look_like_jinja_stay_texts() -> None:
    odd = "{{ x }} {% if %} \" ' \\n \n é 😀 ROLES {#"
    found = await checkpoint(conv_template=CONVERSATION | {"system_message": odd, "seps": [odd]})
    assert rendered(found, [{"role": "user", "content": odd}]).count(odd) == 3


async def test_the_folder_s_own_jinja_goes_before() -> None:
    files = FILES | {"tokenizer_config.json": {"chat_template": "{{ messages[0].content }}"}}
    files[CONFIG] = FILES[CONFIG] | {"conv_template": CONVERSATION}
    assert (await of(files)).chat_template == "{{ messages[0].content }}"


async def test_a_shard_is_compared_with_its_md5_when_its_last_byte_is_read() -> None:
    for number, name in enumerate(one["dataPath"] for one in FILES[MANIFEST]["records"][:2]):
        damaged = bytearray(FILES[name])
        damaged[0] ^= 1
        source = (await of(FILES | {name: bytes(damaged)})).sources[number]
        await source.read(0, 8)
        await source.read(source.size // 2, 4)  # what lies between is read too
        with pytest.raises(ChecksumMismatch, match=r"MD5 is [0-9a-f]{32}, wanted [0-9a-f]{32}: it is damaged"):
            await source.read(source.size - 4, 4)


async def test_a_right_sum_is_found_whatever_the_order_and_reading_again_is_no_harm() -> None:
    data = bytes(range(256)) * 8
    source = CheckedSource(Bytes(data), hashlib.md5(data).hexdigest().upper())
    for offset, size in ((1024, 16), (0, 8), (2040, 8), (0, 2048), (100, 0)):
        assert bytes(await source.read(offset, size)) == data[offset : offset + size]


def with_record(key: str, value: Any, name: str = "model.norm.weight") -> dict[str, Any]:
    files = copy.deepcopy(FILES)
    records = [one for shard in files[MANIFEST]["records"] for one in shard["records"] if one["name"] == name]
    records[0][key] = value
    return files


def with_shard(key: str, value: Any) -> dict[str, Any]:
    files = copy.deepcopy(FILES)
    files[MANIFEST]["records"][1][key] = value
    return files


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in FILES.items() if key != name}


EMBED = "model.embed_tokens.q_weight"
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no list": (without(MANIFEST), ModelNotFound, "tensor-cache.json or ndarray-cache.json"),
    "a shard is missing": (
        without("params_shard_1.bin"),
        ModelNotFound,
        r"params_shard_1.bin is missing, the shard 2 of",
    ),
    "a shard is cut off": (FILES | {"params_shard_1.bin": b"abc"}, Truncated, "but it has 3; fetch it anew"),
    "a path": (with_shard("dataPath", "../params_shard_1.bin"), BadModel, "name of a .bin file in the same folder"),
    "another format": (with_shard("format", "zip"), Unsupported, "'zip'; supported is raw-shard"),
    "no size": (with_shard("nbytes", "12"), BadModel, "nbytes of params_shard_1.bin"),
    "no sum": (with_shard("md5sum", "abc"), BadModel, "32 hexadecimal digits, got 'abc'"),
    "records are no list": (FILES | {MANIFEST: {"records": {}}}, BadModel, "list of 1 to 4096 shards"),
    "a gap": (with_record("byteOffset", 1 << 40), BadModel, "leaves a gap after the tensor before it"),
    "an overlap": (with_record("byteOffset", 0), BadModel, "overlaps the tensor before it"),
    "an unknown dtype": (with_record("dtype", "e4m3"), Unsupported, "e4m3 in the format f32-to-bf16"),
    "a negative shape": (with_record("shape", [-72]), BadModel, "a shape is a list"),
    "bytes that do not fit": (with_record("nbytes", 143), BadModel, "takes 144 bytes, not 143"),
    "a name twice": (with_record("name", "lm_head.q_weight"), BadModel, "'lm_head.q_weight' occurs twice"),
    "no scales": (with_record("name", "x", name="model.embed_tokens.q_scale"), BadModel, "with a q_scale of floats"),
    "words of another width": (
        with_record("shape", [12, 320], name=EMBED),
        BadModel,
        "72 columns in q4f16_1 has 12 words",
    ),
    "integers that are no q_weight": (with_record("name", "x", name=EMBED), Unsupported, "packed integers"),
    "integers in a folder of floats": (
        FILES | {CONFIG: FILES[CONFIG] | {"quantization": "q0f16"}},
        BadModel,
        "as q0f16 has them",
    ),
    "the transposed layout": (
        FILES | {CONFIG: FILES[CONFIG] | {"quantization": "q4f16_0"}},
        Unsupported,
        "'q4f16_0'; supported are q4f16_1, q4f32_1",
    ),
    "an unknown architecture": (
        FILES | {CONFIG: FILES[CONFIG] | {"model_type": "rwkv6"}},
        Unsupported,
        "'rwkv6'; supported are llama",
    ),
    "no model_config": (FILES | {CONFIG: FILES[CONFIG] | {"model_config": 3}}, BadModel, "must be an object, got 3"),
    "rows of q, k and v that do not fit": (
        FILES | {CONFIG: FILES[CONFIG] | {"model_config": FILES[CONFIG]["model_config"] | {"num_key_value_heads": 3}}},
        BadModel,
        r"must have 288 rows by mlc-chat-config.json, got \[240, 72\]",
    ),
    "more active tokens than rows": (
        FILES | {CONFIG: FILES[CONFIG] | {"active_vocab_size": 999}},
        BadModel,
        "1 to 320, the rows of the model, got 999",
    ),
    "a conversation that is none": (
        FILES | {CONFIG: FILES[CONFIG] | {"conv_template": CONVERSATION | {"seps": "x"}}},
        BadModel,
        "seps must be a list of texts",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_folder_that_lies_is_refused_by_name(name: str) -> None:
    files, kind, words = REFUSED[name]
    memory = MlcMemory(files)
    with pytest.raises(kind, match=words) as caught:
        await checkpoint_from_mlc(memory)
    assert type(caught.value) is kind and re.search("memory", str(caught.value))
    assert all(source.closed for source in memory.opened)


async def test_a_folder_without_mlc_s_file_is_none_of_these() -> None:
    assert await checkpoint_from_mlc(MlcMemory(without(CONFIG))) is None


async def test_shards_let_go_of_their_connections() -> None:
    memory = MlcMemory(FILES)
    await checkpoint_from_mlc(memory)
    assert len(memory.opened) == len(FILES[MANIFEST]["records"]) > 10 and all(s.paused for s in memory.opened)


@pytest.mark.parametrize("quant", [*QUANTS])
async def test_every_quantisation_that_is_named_is_read(quant: str) -> None:
    built(await of(files_of(quant=quant)[0]))


CHAT = FILES | {CONFIG: FILES[CONFIG] | {"conv_template": CONVERSATION}}
BIASED = files_of("qwen2", "q4f32_1")[0]
BIASED[CONFIG]["conv_template"] = CONVERSATION


async def use(files: Mapping[str, Any]) -> bool:
    """All that loading does before the GPU, and a prompt; whether the folder was good enough."""
    try:
        found = await checkpoint_from_mlc(MlcMemory(files))
        if found is None:
            return False
        built(found)
        for source in found.sources:
            await source.read(0, source.size)
        if found.vocabulary is not None:
            template = ChatTemplate(found.chat_template, tokenizer_of(found).special_tokens)
            encode_chat(template, tokenizer_of(found), [{"role": "user", "content": "ab"}])
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


class Files(dict[str, Any]):
    """Shown by what differs from good ones."""

    def __repr__(self) -> str:
        return str({name: str(v)[:2000] for name, v in self.items() if v not in (CHAT.get(name), BIASED.get(name))})


@st.composite
def senseless(draw: st.DrawFn) -> Files:
    """A good folder with a few values changed anywhere in its JSON, files missing, or their bytes spoilt."""
    files = Files(draw(st.sampled_from([CHAT, BIASED])))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([CONFIG, CONFIG, MANIFEST, MANIFEST, "params_shard_1.bin"]))
        data = files.get(name, b"")
        if isinstance(data, bytes) or draw(st.integers(0, 19)) == 0:
            raw = bytearray(data if isinstance(data, bytes) else json.dumps(data).encode())
            at = draw(st.integers(0, min(3000, len(raw))))
            raw[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
            files[name] = bytes(raw)
        else:
            files[name] = changed = json.loads(json.dumps(data))
            container, key = draw(st.sampled_from(nodes(changed) or [({"": 0}, "")]))
            if draw(st.integers(0, 4)) == 0:
                del container[key]
            else:
                container[key] = draw(leaves)
    return files


async def test_the_folders_that_are_spoilt_here_are_good_before() -> None:
    assert await use(CHAT) and await use(BIASED)


@settings(some, max_examples=120)
@given(senseless())
async def test_a_senseless_folder_is_read_or_refused_by_name(files: dict[str, Any]) -> None:
    await check(files)


@pytest.mark.slow
@settings(some, max_examples=4000)
@given(senseless())
async def test_very_many_senseless_folders_are_read_or_refused_by_name(files: dict[str, Any]) -> None:
    await check(files)

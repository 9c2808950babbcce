"""Files that lie, thousands of them: each is read to a program or refused by name, in little time and memory."""

from __future__ import annotations

import struct
import tempfile
import tracemalloc
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_gguf import ARRAY, STRING, Bytes, file, row, string, write_model
from webllm.chat_template import ChatTemplate
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.errors import WebLLMError
from webllm.host.encoder import rust_encoder
from webllm.limits import Limits
from webllm.link import link
from webllm.program import Settings, build, context_size, read_rope_factors
from webllm.pull import cached
from webllm.tokenizer import Tokenizer

T = TypeVar("T")

MEMORY = 100 << 20  # bytes of Python's memory that a small file may cost, at the most
some = settings(
    max_examples=600,
    deadline=timedelta(seconds=30),  # against hangs
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(some, max_examples=20_000)


def now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits for something")


def use(data: bytes, size: int | None = None) -> bool:
    """All that loading does before the GPU, and a prompt; whether the file was good enough."""
    source = Bytes(data, size)
    try:
        checkpoint = checkpoint_from_gguf(now(read_gguf(source)), source)
        context = context_size(checkpoint, None)
        factors = now(read_rope_factors(checkpoint))
        link(build(checkpoint, Settings(context), Limits(), rope_factors=factors))
        if checkpoint.vocabulary is None:
            return True
        tokenizer = Tokenizer(checkpoint.vocabulary, rust_encoder)
        tokenizer.decode(tokenizer.encode("Hello, ab </s>", special=True))
        ChatTemplate(checkpoint.chat_template, tokenizer.special_tokens).render([{"role": "user", "content": "ab"}])
    except WebLLMError as error:
        assert str(error), "an error without a word"
        return False
    return True


def check(data: bytes, size: int | None = None) -> None:
    tracemalloc.start()
    try:
        use(data, size)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@cache
def written(name: str) -> bytes:
    """Small files as the gguf package writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        BASES[name](path)
        return path.read_bytes()


def template(writer: GGUFWriter) -> None:
    writer.add_chat_template("{% for m in messages %}{{ '<|im_end|>' + m.content }}{% endfor %}")


def spm(path: Any) -> None:
    """A SentencePiece vocabulary with rope factors."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", "<0x41>", "a", "b", "ab", "\u2581ab"]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0])
    writer.add_token_types([2, 3, 3, 6, 1, 1, 1, 1])
    template(writer)
    for name, shape in LLAMA_SHAPES.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    finish(writer)


LLAMA_SHAPES: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (8, 32),
    "output.weight": (8, 32),
    "output_norm.weight": (32,),
    "rope_freqs.weight": (8,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (32, 32),
    "blk.0.attn_v.weight": (32, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}


def k_quants(path: Any) -> None:
    """One layer, 256 wide, its matrices in K-quants."""
    writer = GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(8)
    kinds = {"token_embd": (GGMLQuantizationType.Q6_K, 210, 8), "attn_v": (GGMLQuantizationType.Q6_K, 210, 256)}
    for name in ("token_embd", *(f"blk.0.{part}" for part in MATRICES)):
        kind, block, rows = kinds.get(name.split(".")[-1], (GGMLQuantizationType.Q4_K, 144, 256))
        writer.add_tensor(f"{name}.weight", np.zeros((rows, block), np.uint8), raw_dtype=kind)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", *QKV_BIASES):
        writer.add_tensor(name, np.ones(256, np.float32))
    finish(writer)


MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
QKV_BIASES = [f"blk.0.attn_{part}.bias" for part in "qkv"]


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


BASES = {
    "byte level": lambda path: write_model(path, metadata=template),
    "SentencePiece": spm,
    "K-quants": k_quants,
}
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    255,
    256,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
]


@pytest.mark.parametrize("name", BASES)
def test_the_files_that_are_spoilt_here_are_good_before(name: str) -> None:
    assert use(written(name))


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """A good file with a few changes, most of them in its header; and the size that it claims to have."""
    data = bytearray(written(draw(st.sampled_from([*BASES]))))
    header = min(len(data), 2000)
    for _ in range(draw(st.integers(1, 3))):
        at = min(draw(st.integers(24, header) | st.integers(0, 24)), max(0, len(data) - 1))
        match draw(st.sampled_from(["byte", "bit", "u32", "u64", "cut", "drop", "repeat", "splice"])):
            case "byte":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "bit":
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ (1 << draw(st.integers(0, 7)))])
            case "u32":
                data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(NUMBERS)) & 0xFFFFFFFF)
            case "u64":
                data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(NUMBERS)))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "repeat":
                size = draw(st.integers(1, 200))
                data[at:at] = data[at : at + size]
            case "splice":
                other, size = draw(st.integers(0, header)), draw(st.integers(1, 100))
                data[at : at + size] = data[other : other + size]
    return bytes(data), draw(st.none() | st.sampled_from([len(data), 2 * len(data), 1 << 40, 3]))


@some
@given(spoilt())
def test_a_spoilt_file_is_read_or_refused_by_name(case: tuple[bytes, int | None]) -> None:
    check(*case)


@pytest.mark.slow
@many
@given(spoilt())
def test_very_many_spoilt_files_are_read_or_refused_by_name(case: tuple[bytes, int | None]) -> None:
    check(*case)


# Files of the right form whose contents make no sense: any value under any key, any tensor anywhere.
KEYS = [
    *("general.architecture", "general.alignment", "general.name", "llama.block_count", "llama.context_length"),
    *("llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count", "llama.vocab_size"),
    *("llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.layer_norm_rms_epsilon"),
    *("llama.rope.freq_base", "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.dimension_count"),
    *("llama.expert_count", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens"),
    *("tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id"),
    *("tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.add_bos_token"),
    *("tokenizer.ggml.add_space_prefix", "tokenizer.chat_template", "general.sampling.temp"),
]
GOOD: dict[str, bytes] = {
    key: struct.pack("<I", 4) + struct.pack("<I", value)
    for key, value in {
        **{"llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 32},
        **{"llama.feed_forward_length": 64, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2},
    }.items()
} | {
    "general.architecture": struct.pack("<I", STRING) + string("llama"),
    "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5),
    "tokenizer.ggml.model": struct.pack("<I", STRING) + string("gpt2"),
    "tokenizer.ggml.tokens": struct.pack("<IIQ", ARRAY, STRING, 8) + b"".join(map(string, "abcdefg")) + string("ab"),
    "tokenizer.ggml.merges": struct.pack("<IIQ", ARRAY, STRING, 1) + string("a b"),
}
texts = st.sampled_from(["", "llama", "qwen2", "gpt2", "none", "linear", "yarn", "smollm", "a b", "{{ x", "<|im_end|>"])
words = texts | st.text(max_size=6)
SCALARS = "BbHhIif?"


@st.composite
def any_value(draw: st.DrawFn) -> bytes:
    """A metadata value of any type, as the file has it: its type, then its bytes."""
    kind = draw(st.integers(0, 13))
    if kind == STRING:
        return struct.pack("<I", kind) + string(draw(words))
    if kind == ARRAY:
        inner = draw(st.sampled_from([STRING, *range(13)]))
        count = draw(st.integers(0, 9))
        claimed = draw(st.just(count) | st.sampled_from(NUMBERS))
        body = b"".join(string(draw(words)) if inner == STRING else scalar(draw, inner) for _ in range(count))
        return struct.pack("<IIQ", kind, inner, claimed) + body
    return struct.pack("<I", kind) + scalar(draw, kind)


def scalar(draw: st.DrawFn, kind: int) -> bytes:
    letters = {0: "B", 1: "B", 2: "H", 3: "H", 4: "I", 5: "I", 6: "f", 7: "B", 10: "Q", 11: "Q", 12: "d"}
    letter = letters.get(kind, "I")
    if letter in "fd":
        return struct.pack(f"<{letter}", draw(st.floats(width=32)))
    return struct.pack(f"<{letter}", draw(st.sampled_from(NUMBERS)) % (1 << (8 * struct.calcsize(letter))))


@st.composite
def any_row(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from([*LLAMA_SHAPES, "blk.1.attn_q.weight", "blk.999999.attn_q.weight", "x", "blk.0."]))
    dims = draw(st.lists(st.sampled_from([1, 8, 16, 32, 64, *NUMBERS]), max_size=5))
    return row(name, dims, draw(st.integers(0, 45)), draw(st.sampled_from([0, 32, 64, 4096, *NUMBERS])))


@st.composite
def senseless(draw: st.DrawFn) -> bytes:
    """The entries and tensors of a good file, some with other values, some twice, some missing."""
    entries = dict(GOOD) | draw(st.dictionaries(st.sampled_from(KEYS), any_value(), min_size=1, max_size=3))
    keys = [key for key in entries if draw(st.integers(0, 30)) != 0]
    keys += draw(st.lists(st.sampled_from([*entries]), max_size=1)) if draw(st.integers(0, 9)) == 0 else []
    rows, offset = [], 0
    for name, shape in LLAMA_SHAPES.items():
        if (kept := draw(st.integers(0, 30))) > 1:
            rows.append(row(name, shape[::-1], 0, offset))
        if kept != 0:
            offset += 4 * int(np.prod(shape))
    rows += draw(st.lists(any_row(), max_size=1))
    return file([string(key) + entries[key] for key in keys], rows, data=offset)


@st.composite
def consistent(draw: st.DrawFn) -> tuple[bytes, int]:
    """A file whose tensors have the shapes that its entries say, whatever these are; and its size, mostly zeros."""
    small = st.sampled_from([8, 16, 24, 32, 64, 256, 264, 1, 3, 4, 12, 1 << 16])
    heads, per_kv, head = draw(st.sampled_from([1, 2, 3, 8])), draw(st.sampled_from([1, 2, 3])), draw(small)
    hidden, ffn, tokens = draw(small), draw(small), draw(st.lists(words, min_size=1, max_size=8))
    sizes = {"hidden": hidden, "ffn": ffn, "q": heads * per_kv * head, "kv": heads * head, "vocab": len(tokens)}
    numbers = {
        **{"block_count": 1, "context_length": draw(small), "embedding_length": hidden, "feed_forward_length": ffn},
        **{"attention.head_count": heads * per_kv, "attention.head_count_kv": heads, "attention.key_length": head},
    }
    entries = dict(GOOD) | {f"llama.{key}": struct.pack("<II", 4, value) for key, value in numbers.items()}
    spm = draw(st.booleans())
    entries["tokenizer.ggml.model"] = struct.pack("<I", STRING) + string("llama" if spm else "gpt2")
    entries["tokenizer.ggml.tokens"] = strings(tokens)
    entries["tokenizer.ggml.merges"] = strings(draw(st.lists(words | st.just("a b"), min_size=1, max_size=4)))
    for key, letter, kind in (("scores", "f", 6), ("token_type", "i", 5)):
        values = [draw(st.integers(-2, 9)) for _ in tokens]
        entries[f"tokenizer.ggml.{key}"] = struct.pack(f"<IIQ{len(tokens)}{letter}", ARRAY, kind, len(tokens), *values)
    if draw(st.booleans()):
        entries["tokenizer.chat_template"] = struct.pack("<I", STRING) + string(draw(words | TEMPLATES))
    if draw(st.integers(0, 3)) == 3:
        entries |= {draw(st.sampled_from(KEYS)): draw(any_value())}
    rows, offset, common = [], 0, draw(st.sampled_from([0, 0, 0, 1, 30, 2, 3, 8, 12, 14]))
    for name, shape in SHAPES.items():
        kind = common if len(shape) == 2 and draw(st.integers(0, 19)) else 0
        rows.append(row(name, [sizes[word] for word in shape[::-1]], kind, offset))
        offset += -(-4 * int(np.prod([sizes[word] for word in shape])) // 32) * 32
    data = file([string(key) + value for key, value in entries.items()], rows)
    return data, len(data) + offset


def strings(texts: Sequence[str]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(map(string, texts))


TEMPLATES = st.lists(
    st.sampled_from(
        ["{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ messages }}", "{% if x", "%}", "x"]
    ),
    max_size=5,
).map("".join)
SHAPES = {
    "token_embd.weight": ("vocab", "hidden"),
    "output_norm.weight": ("hidden",),
    "blk.0.attn_norm.weight": ("hidden",),
    "blk.0.attn_q.weight": ("q", "hidden"),
    "blk.0.attn_k.weight": ("kv", "hidden"),
    "blk.0.attn_v.weight": ("kv", "hidden"),
    "blk.0.attn_output.weight": ("hidden", "q"),
    "blk.0.ffn_norm.weight": ("hidden",),
    "blk.0.ffn_gate.weight": ("ffn", "hidden"),
    "blk.0.ffn_up.weight": ("ffn", "hidden"),
    "blk.0.ffn_down.weight": ("hidden", "ffn"),
}


@some
@given(senseless().map(lambda data: (data, None)) | consistent())
def test_a_senseless_file_is_read_or_refused_by_name(case: tuple[bytes, int | None]) -> None:
    check(*case)


@pytest.mark.slow
@many
@given(senseless().map(lambda data: (data, None)) | consistent())
def test_very_many_senseless_files_are_read_or_refused_by_name(case: tuple[bytes, int | None]) -> None:
    check(*case)


def test_the_entries_that_are_made_senseless_are_good_before() -> None:
    rows: list[bytes] = []
    offset = 0
    for name, shape in LLAMA_SHAPES.items():
        rows.append(row(name, shape[::-1], 0, offset))
        offset += 4 * int(np.prod(shape))
    data = file([string(key) + value for key, value in GOOD.items()], rows, data=offset)
    source = Bytes(data[:-offset] + struct.pack("<f", 1.0) * (offset // 4))
    checkpoint = checkpoint_from_gguf(now(read_gguf(source)), source)
    assert link(build(checkpoint, Settings(64), Limits(), rope_factors=now(read_rope_factors(checkpoint)))).plans


@pytest.mark.slow
@settings(some, max_examples=300)
@given(st.data())
def test_the_default_model_s_header_spoilt_is_read_or_refused_by_name(data: st.DataObject) -> None:
    """Most of its two megabytes is the vocabulary."""
    path = cached("smollm2-135m-instruct")
    if path is None:
        pytest.skip("the default model is not in the cache folder: run `make model`")
    with path.open("rb") as read:
        header = bytearray(read.read(3 << 20))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 2000) | st.integers(0, 2 << 20))
        header[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from(NUMBERS)))
    check(bytes(header), path.stat().st_size)

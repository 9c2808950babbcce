"""The GGUF reader, above all with files that lie."""

import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webllm.checkpoint import TensorInfo
from webllm.checkpoint.gguf import Gguf, read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf, vocabulary_from_gguf
from webllm.errors import BadModel, ModelError, NotAModel, Truncated, Unsupported

U32, F32, STRING, ARRAY = 4, 6, 8, 9


class Bytes:
    """A source in memory that counts what is read of it."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self.name, self.data, self.was_read = "test.gguf", data, 0
        self.size = len(data) if size is None else size

    async def read(self, offset: int, size: int) -> bytes:
        if offset + size > self.size:
            raise Truncated("past the end")
        self.was_read += size
        return self.data[offset : offset + size].ljust(size, b"\0")

    def close(self) -> None: ...


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def row(name: str, dims: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file(
    entries: Sequence[bytes] = (),
    rows: Sequence[bytes] = (),
    data: int = 0,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    n_rows, n_entries = counts or (len(rows), len(entries))
    header = b"GGUF" + struct.pack("<IQQ", version, n_rows, n_entries) + b"".join(entries) + b"".join(rows)
    return header + bytes(-len(header) % 32) + bytes(data)


async def read(data: bytes) -> Gguf:
    return await read_gguf(Bytes(data))


def write_model(path: Path, arch: str = "llama", **changes: object) -> None:
    """A model of one layer: hidden 32, two heads of 16 (one for keys and values), ffn 64, 8 tokens."""
    writer = GGUFWriter(path, arch)
    writer.add_block_count(1)
    writer.add_context_length(128)
    if changes.get("embedding_length", True):
        writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", "a", "b", "ab", "</s>", "<|im_end|>", "c", "d"])
    writer.add_token_types([3, 1, 1, 1, 1, 3, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(7)
    if extra := changes.get("metadata"):
        extra(writer)
    shapes = {
        "token_embd.weight": (8, 32),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.ffn_gate.weight": (64, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
        **changes.get("tensors", {}),
    }
    for name, shape in shapes.items():
        if shape:
            writer.add_tensor(name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def open_model(tmp_path: Path, arch: str = "llama", **changes: object):
    write_model(tmp_path / "m.gguf", arch, **changes)
    source = Bytes((tmp_path / "m.gguf").read_bytes())
    return checkpoint_from_gguf(await read_gguf(source), source)


async def test_offsets_lead_to_the_bytes_that_the_gguf_package_wrote(tmp_path):
    write_model(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    gguf = await read(data)
    down = next(t for t in gguf.tensors if t.name == "blk.0.ffn_down.weight")
    assert (down.shape, down.dtype, down.nbytes) == ((32, 64), "F32", 32 * 64 * 4)
    assert np.array_equal(np.frombuffer(data, np.float32, 32 * 64, down.offset), np.arange(32 * 64))
    assert gguf.metadata["general.architecture"] == "llama"
    assert [*gguf.metadata["tokenizer.ggml.tokens"]][2:4] == ["b", "ab"]


@pytest.mark.parametrize(
    ("kind", "name", "nbytes"), [(1, "F16", 128), (2, "Q4_0", 36), (3, "Q4_1", 40), (8, "Q8_0", 68)]
)
async def test_a_tensor_of_64_values_takes_the_bytes_of_its_blocks(kind, name, nbytes):
    gguf = await read(file(rows=[row("w", [64], kind)], data=nbytes))
    assert gguf.tensors == (TensorInfo("w", (64,), name, 64, nbytes),)


async def test_only_the_beginning_of_a_large_file_is_read():
    source = Bytes(file(rows=[row("w", [1 << 28])]), size=(1 << 30) + 64)
    await read_gguf(source)
    assert source.was_read == 256 << 10  # one piece, of a file of 1 GiB


async def test_a_header_longer_than_one_piece_is_read_in_growing_pieces():
    tokens = [f"token {i}" for i in range(50_000)]
    array = struct.pack("<IQ", STRING, len(tokens)) + b"".join(map(string, tokens))
    source = Bytes(file([entry("tokens", ARRAY, array), entry("after", U32, struct.pack("<I", 7))]))
    gguf = await read_gguf(source)
    strings = gguf.metadata["tokens"]
    assert (len(strings), strings[0], strings[-1], strings[3:5]) == (50_000, tokens[0], tokens[-1], tokens[3:5])
    assert [*strings] == tokens
    assert gguf.metadata["after"] == 7
    assert source.was_read == source.size  # nothing twice


async def test_version_2_is_read_like_version_3():
    assert (await read(file(version=2))).version == 2


HOSTILE = {
    "empty": (b"", NotAModel, "0 bytes"),
    "another format": (b"PK\x03\x04" + bytes(60), NotAModel, "PK"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", NotAModel, "LFS pointer"),
    "version 1": (file(version=1), Unsupported, "version 1"),
    "version 4": (file(version=4), Unsupported, "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), Unsupported, "big-endian"),
    "cut in the preamble": (file()[:10], Truncated, "the file has 10"),
    "cut in the metadata": (file([entry("key", STRING, string("x" * 100))])[:60], Truncated, "the file has 60"),
    "cut in the table": (file(rows=[row("w", [8])])[:50], Truncated, "the file has 50"),
    "cut in the data": (file(rows=[row("w", [8])], data=31), Truncated, "cut off"),
    "too many entries": (file(counts=(0, 1 << 40)), BadModel, "metadata entries"),
    "too many tensors": (file(counts=(1 << 63, 0)), BadModel, "tensors"),
    "entries that are not there": (file(counts=(0, 60_000))[:24], Truncated, "header"),
    "a long string": (file([entry("k", STRING, struct.pack("<Q", 1 << 62))]), BadModel, "bytes"),
    "a long key": (file([struct.pack("<Q", 1 << 40)]), BadModel, "metadata key"),
    "an empty key": (file([entry("", U32, bytes(4))]), BadModel, "empty"),
    "a key that is no text": (file([string(b"\xff\xfe") + struct.pack("<II", U32, 1)]), BadModel, "UTF-8"),
    "a long array": (file([entry("k", ARRAY, struct.pack("<IQ", U32, 1 << 60))]), BadModel, "array 'k'"),
    "an array that is not there": (file([entry("k", ARRAY, struct.pack("<IQ", U32, 1 << 22))]), Truncated, "header"),
    "strings that are not there": (file([entry("k", ARRAY, struct.pack("<IQ", STRING, 1 << 22))]), Truncated, "header"),
    "nested arrays": (file([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), BadModel, "holds arrays"),
    "an unknown value type": (file([entry("k", 13, bytes(8))]), BadModel, "type 13"),
    "an unknown element type": (file([entry("k", ARRAY, struct.pack("<IQ", 77, 1))]), BadModel, "type 77"),
    "a key twice": (file([entry("k", U32, bytes(4))] * 2), BadModel, "twice"),
    "alignment 48": (file([entry("general.alignment", U32, struct.pack("<I", 48))]), BadModel, "power of two"),
    "alignment 2^30": (file([entry("general.alignment", U32, struct.pack("<I", 1 << 30))]), BadModel, "power of two"),
    "alignment 0": (file([entry("general.alignment", U32, bytes(4))]), BadModel, "power of two"),
    "alignment as text": (file([entry("general.alignment", STRING, string("32"))]), BadModel, "'32'"),
    "five dimensions": (file(rows=[row("w", [1] * 5)]), BadModel, "5 dimensions"),
    "billions of dimensions": (file(rows=[string("w") + struct.pack("<I", 1 << 31)]), BadModel, "dimensions"),
    "a product that overflows": (file(rows=[row("w", [1 << 32, 1 << 32, 4])]), BadModel, "values"),
    "an empty tensor": (file(rows=[row("w", [0, 4])]), BadModel, "0 values"),
    "a row that is no multiple of the block": (file(rows=[row("w", [48, 2], 8)], data=136), BadModel, "blocks of 32"),
    "a name twice": (file(rows=[row("w", [8]), row("w", [8], 0, 32)], data=64), BadModel, "two tensors"),
    "an odd offset": (file(rows=[row("w", [8], 0, 4)], data=64), BadModel, "multiple of 32"),
    "an offset outside": (file(rows=[row("w", [8], 0, 1 << 40)], data=64), BadModel, "outside the file"),
    "overlapping tensors": (file(rows=[row("v", [16]), row("w", [8], 0, 32)], data=64), BadModel, "overlaps 'v'"),
    "a type that is not supported": (file(rows=[row("w", [256], 17)], data=136), Unsupported, "IQ2_XS.*F32.*Q8_0"),
    "a type that nobody knows": (file(rows=[row("w", [256], 99)], data=144), Unsupported, "99.*Q4_1"),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_file_is_refused_by_name(case):
    data, error, words = HOSTILE[case]
    with pytest.raises(error, match=words) as caught:
        await read(data)
    assert type(caught.value) is error
    assert "test.gguf" in str(caught.value)


GOOD = file(
    [
        entry("general.architecture", STRING, string("llama")),
        entry("tokenizer.ggml.model", STRING, string("llama")),
        entry("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 3) + string("a") + string("b") + string("ab")),
        entry("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ3f", F32, 3, -1, -2, -3)),
        entry("general.alignment", U32, struct.pack("<I", 32)),
    ],
    [row("token_embd.weight", [32, 3], 8), row("output_norm.weight", [32], 0, 128)],
    data=256,
)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 257), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_changed_bytes_give_a_named_error_or_a_model_and_cost_little(changes):
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    tracemalloc.start()
    try:
        source = Bytes(bytes(data))
        gguf = await read_gguf(source)
        vocabulary_from_gguf(gguf)
        checkpoint_from_gguf(gguf, source)
    except ModelError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20  # the file has under 1 KiB


async def test_configuration_and_names_become_hugging_faces(tmp_path):
    model = await open_model(tmp_path)
    wanted = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "max_position_embeddings": 128,
        "vocab_size": 8,
        "tie_word_embeddings": True,
    }
    assert wanted.items() <= model.config.items()
    assert model.tensors["model.layers.0.mlp.down_proj.weight"].shape == (32, 64)
    paired = {name for name, tensor in model.tensors.items() if tensor.pair_rows}
    assert paired == {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"}


async def test_an_end_token_stops_only_if_it_is_a_control_token(tmp_path):
    # 0 and 5 are control tokens of well-known names, 7 is the file's eos; "</s>" (4) is ordinary text here
    assert (await open_model(tmp_path)).stop_ids == {0, 5, 7}


async def test_qwen2_keeps_its_rows_and_needs_its_biases(tmp_path):
    bias = {"blk.0.attn_q.bias": (32,), "blk.0.attn_k.bias": (16,), "blk.0.attn_v.bias": (16,)}
    model = await open_model(tmp_path, "qwen2", tensors=bias)
    assert not any(tensor.pair_rows for tensor in model.tensors.values())
    assert model.config["attention_bias"]
    with pytest.raises(BadModel, match=r"q_proj\.bias is missing"):
        await open_model(tmp_path, "qwen2")


async def test_an_output_tensor_unties_the_embedding(tmp_path):
    model = await open_model(tmp_path, tensors={"output.weight": (8, 32)})
    assert not model.config["tie_word_embeddings"]
    assert "lm_head.weight" in model.tensors


async def test_llama_3_factors_stay_a_tensor_that_the_configuration_names(tmp_path):
    model = await open_model(tmp_path, tensors={"rope_freqs.weight": (8,)})
    assert model.config["rope_scaling"] == {"rope_type": "llama3", "factors": "rope_freqs.weight"}
    assert model.tensors["rope_freqs.weight"].shape == (8,)


async def test_a_rope_scaling_that_no_model_runs_is_refused_by_name(tmp_path):
    def yarn(writer: GGUFWriter) -> None:
        writer.add_string("llama.rope.scaling.type", "yarn")

    with pytest.raises(Unsupported, match="'yarn'; supported are linear"):
        await open_model(tmp_path, metadata=yarn)


async def test_an_unknown_architecture_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(Unsupported, match=r"'mamba'.*llama, qwen2"):
        await open_model(tmp_path, "mamba")


async def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(BadModel, match=r"no llama\.embedding_length"):
        await open_model(tmp_path, embedding_length=False)


async def test_a_shape_that_contradicts_the_metadata_is_refused(tmp_path):
    with pytest.raises(BadModel, match=r"attn_k\.weight must be \[16, 32\].*got \[32, 32\]"):
        await open_model(tmp_path, tensors={"blk.0.attn_k.weight": (32, 32)})


async def test_a_missing_tensor_is_named(tmp_path):
    with pytest.raises(BadModel, match=r"layers\.0\.mlp\.up_proj\.weight is missing"):
        await open_model(tmp_path, tensors={"blk.0.ffn_up.weight": None})


async def test_a_tensor_that_the_architecture_does_not_have_is_refused(tmp_path):
    with pytest.raises(Unsupported, match=r"attn_q_norm\.weight"):
        await open_model(tmp_path, tensors={"blk.0.attn_q_norm.weight": (16,)})


async def test_experts_are_refused_by_name(tmp_path):
    with pytest.raises(Unsupported, match="mixture of experts"):
        await open_model(tmp_path, metadata=lambda writer: writer.add_expert_count(8))


async def test_a_file_with_a_vocabulary_and_nothing_else_gives_it():
    entries = [
        entry("tokenizer.ggml.model", STRING, string("llama")),
        entry(
            "tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 3) + string("<unk>") + string("a") + string("b")
        ),
        entry("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ3f", F32, 3, 0, -1, -2)),
    ]
    vocabulary = vocabulary_from_gguf(await read(file(entries)))
    assert vocabulary is not None
    assert (vocabulary.kind, [*vocabulary.tokens], vocabulary.add_bos) == ("spm", ["<unk>", "a", "b"], True)


async def test_a_file_without_a_vocabulary_has_none():
    assert vocabulary_from_gguf(await read(file())) is None

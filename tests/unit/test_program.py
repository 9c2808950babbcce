"""From a checkpoint to a program: dispatches, bytes, tables, and what is refused. No GPU, no weights."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.errors import BadModel, RequestError, Unsupported
from webllm.kernels import module
from webllm.limits import Limits
from webllm.models._rotary import Rotary
from webllm.ops import RING
from webllm.plan import PIECE_BYTES, Plan, Program
from webllm.program import (
    CHUNK,
    Settings,
    build,
    cache_sizes,
    context_size,
    first_room,
    largest_context,
    rope_table,
    step_bytes,
)
from webllm.synthetic import checkpoint_from_config

BENCH = Path(__file__).parents[1] / "bench"
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 72,
    "intermediate_size": 172,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "vocab_size": 301,
}


def config(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((BENCH / f"{name}.json").read_text(encoding="utf-8"))
    return read


def tiny(**changes: Any) -> Checkpoint:
    return checkpoint_from_config({**TINY, **changes}, "f32")


def changed(checkpoint: Checkpoint, name: str, **changes: Any) -> Checkpoint:
    """The checkpoint with one tensor described otherwise."""
    tensors = dict(checkpoint.tensors)
    tensors[name] = replace(tensors[name], **changes)
    return replace(checkpoint, tensors=tensors)


def built(checkpoint: Checkpoint, limits: Limits | None = None, **settings: Any) -> Program:
    return build(checkpoint, Settings(**{"context": 256, **settings}), limits or Limits())


@pytest.fixture(scope="module")
def smollm2() -> tuple[Checkpoint, Program]:
    """The default model as its file has it: Q4_1 layers, a Q8_0 embedding that is the LM head too."""
    checkpoint = checkpoint_from_config(config("smollm2-135m"), "q4_1")
    return checkpoint, built(checkpoint, context=4096)


PROGRAMS = {
    "smollm2": ("smollm2-135m", "q4_1", Limits()),
    "smollm2 with little workgroup memory": ("smollm2-135m", "q4_1", Limits(workgroup_storage=2048)),
    "qwen2.5": ("qwen2.5-0.5b", "q4", Limits()),
    "llama 3.2": ("llama-3.2-1b", "q8", Limits(storage_binding=1 << 30)),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    name, quant, limits = PROGRAMS[request.param]
    return built(checkpoint_from_config(config(name), quant), limits, context=1024)


def test_a_decode_layer_takes_at_most_nine_dispatches(smollm2: tuple[Checkpoint, Program]) -> None:
    """Each costs 2 to 4 microseconds. Embedding and LM head come once a token."""
    decode = [plan for name, plan in smollm2[1].plans.items() if name.startswith("decode")]
    assert decode and all(len(plan.dispatches) - 2 <= 9 * 30 for plan in decode)


def test_the_weights_take_the_bytes_that_they_have_in_the_file(smollm2: tuple[Checkpoint, Program]) -> None:
    """Q4_1 is 20 bytes a block of 32 in the file, and 16 of nibbles + 4 of scales here; Q8_0 is 34, and 32 + 2."""
    checkpoint, program = smollm2
    assert program.bytes_by_kind()["weight"] == sum(tensor.nbytes for tensor in checkpoint.tensors.values())


def test_every_tensor_is_uploaded_once_and_whole(smollm2: tuple[Checkpoint, Program]) -> None:
    checkpoint, program = smollm2
    assert sum(upload.nbytes for upload in program.uploads) == sum(t.nbytes for t in checkpoint.tensors.values())
    assert len(program.uploads) == len(checkpoint.tensors)


def test_every_weight_buffer_is_written_by_an_upload(program: Program) -> None:
    written = {number for upload in program.uploads for _, number in upload.dispatch.buffers}
    assert {i for i, buffer in enumerate(program.buffers) if buffer.kind == "weight"} <= written


def test_the_cache_is_two_buffers_a_layer_of_halves(smollm2: tuple[Checkpoint, Program]) -> None:
    """Positions of 3 heads of 64 numbers of 2 bytes, 512 at first and up to 4096.

    Logits, tokens, step records and five of sampling beside.
    """
    sizes = {buffer.name: (buffer.size, buffer.most) for buffer in smollm2[1].buffers if buffer.kind == "state"}
    cache = {name: size for name, size in sizes.items() if name[:2] in ("k.", "v.")}
    assert len(cache) == 60 and set(cache.values()) == {(512 * 3 * 64 * 2, 4096 * 3 * 64 * 2)}
    others = tuple(sizes[name][0] for name in ("logits", "result", "step"))
    assert others == (4 * 49152, 4 * RING, 16 + 16 * CHUNK)
    assert len(sizes) == 63 + 5


def test_a_cache_of_f32_takes_twice_the_bytes() -> None:
    sizes = [{b.name: b.size for b in built(tiny(), kv=kv).buffers}["k.0"] for kv in ("f16", "f32")]
    assert sizes[1] == 2 * sizes[0] == 256 * 2 * 24 * 4


def test_a_cache_of_int8_takes_a_byte_a_number_and_eight_for_a_position_s_scales() -> None:
    program = built(tiny(), kv="int8")
    sizes = {b.name: b.size for b in program.buffers}
    assert sizes["k.0"] == sizes["v.0"] == 256 * 2 * (24 + 8)
    assert cache_sizes(program, 64) == {f"{name}.{i}": 64 * 2 * (24 + 8) for i in range(3) for name in "kv"}


def test_a_context_that_ends_within_a_page_gets_the_whole_page() -> None:
    sizes = {b.name: b.size for b in built(tiny(), context=33).buffers}
    assert (sizes["k.0"], sizes["pages"]) == (64 * 2 * 24 * 2, 8)


def test_a_chunk_is_no_longer_than_the_context_needs() -> None:
    """Prefill takes tiles of 64 rows: a context of 65 needs two."""
    sizes = {b.name: b.size for b in built(tiny(), context=65).buffers}
    assert sizes["step"] == 16 + 16 * 128


def test_no_dispatch_writes_a_buffer_that_it_also_binds_elsewhere(program: Program) -> None:
    """WebGPU refuses it."""
    for plan in program.plans.values():
        for dispatch in plan.dispatches:
            bindings = module(dispatch.kernel, dispatch.variants).bindings
            numbers = [number for _, number in dispatch.buffers]
            written = [number for name, number in dispatch.buffers if bindings[name].access == "read_write"]
            assert all(numbers.count(number) == 1 for number in written), dispatch


def test_nothing_is_read_before_it_is_written(program: Program) -> None:
    """Scratch holds what a step before, or the other plan, left there."""
    for plan in program.plans.values():
        ready = {i for i, buffer in enumerate(program.buffers) if buffer.kind != "scratch"}
        for dispatch in plan.dispatches:
            bindings = module(dispatch.kernel, dispatch.variants).bindings
            read = {number for name, number in dispatch.buffers if bindings[name].access == "read"}
            assert read <= ready, dispatch
            ready |= {number for _, number in dispatch.buffers}


def test_no_dispatch_is_wider_than_the_largest_grid(program: Program) -> None:
    dispatches = [d for plan in program.plans.values() for d in plan.dispatches]
    dispatches += [upload.dispatch for upload in program.uploads]
    assert all(size <= 65535 for d in dispatches for size in d.grid if isinstance(size, int))


def test_no_buffer_is_larger_than_a_default_binding(smollm2: tuple[Checkpoint, Program]) -> None:
    assert max(buffer.size for buffer in smollm2[1].buffers) <= 128 << 20


def test_a_piece_of_every_upload_fits_the_staging_buffer(program: Program) -> None:
    assert all(upload.rows_per_piece * upload.row_bytes <= PIECE_BYTES for upload in program.uploads)


def test_uploads_follow_the_file_from_front_to_back() -> None:
    """A server without Range sends it once."""
    checkpoint = tiny()
    names = sorted(checkpoint.tensors)
    shuffled = {n: replace(t, offset=1000 * names.index(n)) for n, t in checkpoint.tensors.items()}
    offsets = [upload.offset for upload in built(replace(checkpoint, tensors=shuffled)).uploads]
    assert offsets == sorted(offsets)


def test_tied_embeddings_are_on_the_gpu_once() -> None:
    tied, untied = (built(tiny(tie_word_embeddings=tie)).bytes_by_kind()["weight"] for tie in (True, False))
    assert untied - tied == math.ceil(301 / 16) * 16 * 96 * 4  # rows up to a tile of 16, columns up to a unit of 32


def test_sharing_scratch_saves_most_of_it() -> None:
    shared, apart = (built(tiny(num_hidden_layers=30), share=share) for share in (True, False))
    assert 10 * shared.bytes_by_kind()["scratch"] < apart.bytes_by_kind()["scratch"]


def test_prefill_leaves_out_what_only_the_last_token_needs() -> None:
    """The last block needs its K and V only, and there is no LM head."""
    counts = [count(built(tiny(num_hidden_layers=n)).plans["prefill"], "attention_tile") for n in (1, 3)]
    assert counts == [0, 2]
    assert count(built(tiny()).plans["prefill"], "argmax_tile") == 0


def count(plan: Plan, kernel: str) -> int:
    return sum(dispatch.kernel == kernel for dispatch in plan.dispatches)


def test_made_up_weights_are_read_from_nowhere() -> None:
    program = build(tiny(), Settings(64), Limits(), random=True)
    assert {upload.source for upload in program.uploads} == {-1}
    filled = {dict(upload.dispatch.buffers)["data"] for upload in program.uploads}
    assert filled == {i for i, buffer in enumerate(program.buffers) if buffer.kind == "weight"}


@pytest.mark.parametrize("context", [1, 300, 8192])
def test_the_rotary_table_is_that_of_float64(context: int) -> None:
    """A float32 below 1 is off by at most 6e-8; sin and cos in WGSL may be off by 5e-4."""
    frequencies = 1e5 ** (-np.arange(32) / 32)
    table = np.frombuffer(rope_table(Rotary(tuple(frequencies.tolist())), context), np.float32).reshape(-1, 32, 2)
    positions = np.array([*range(256), *range(0, context, 256)])
    angles = positions[:, None] * frequencies
    assert np.abs(table - np.stack([np.cos(angles), np.sin(angles)], -1)).max() < 1e-7


def test_two_entries_of_the_rotary_table_make_any_position() -> None:
    """Position 1000 is 3 * 256 + 232. Two roundings and a product: 2e-7."""
    frequencies = 1e4 ** (-np.arange(8) / 8)
    table = (
        np.frombuffer(rope_table(Rotary(tuple(frequencies.tolist())), 1024), np.float32)
        .reshape(-1, 8, 2)
        .astype(np.float64)
    )
    low, high = table[1000 % 256], table[256 + 1000 // 256]
    product = (low[:, 0] + 1j * low[:, 1]) * (high[:, 0] + 1j * high[:, 1])
    assert np.abs(product - np.exp(1j * 1000 * frequencies)).max() < 2e-7


def test_step_records_lie_after_a_header_of_four_words() -> None:
    words = struct.unpack("<12I", step_bytes([(7, 40), (8, 41)]))
    assert words == (2, 0, 0, 0, 7, 40, 0, 0, 8, 41, 0, 0)


def test_a_context_is_the_models_own_up_to_4096() -> None:
    assert [context_size(tiny(max_position_embeddings=n), None) for n in (512, 8192)] == [512, 4096]


@pytest.mark.parametrize("wanted", [0, -1, 2049])
def test_a_context_beyond_what_the_model_knows_is_refused(wanted: int) -> None:
    with pytest.raises(RequestError, match=f"1 to 2048.*got {wanted}"):
        context_size(tiny(max_position_embeddings=2048), wanted)


def test_an_unknown_model_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(Unsupported, match=r"'mamba'; supported are gemma, .*llama, .*qwen2"):
        built(replace(tiny(), config={**TINY, "model_type": "mamba"}))


def test_a_configuration_without_a_model_type_is_refused() -> None:
    with pytest.raises(Unsupported, match="model_type ''"):
        built(replace(tiny(), config={}))


def test_a_missing_tensor_is_named() -> None:
    checkpoint = tiny()
    tensors = {n: t for n, t in checkpoint.tensors.items() if n != "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(BadModel, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        built(replace(checkpoint, tensors=tensors))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.o_proj.weight", (72, 72)),
        ("model.layers.2.self_attn.k_proj.weight", (49, 72)),
        ("model.layers.0.mlp.down_proj.weight", (172, 72)),
        ("model.embed_tokens.weight", (300, 72)),
        ("model.norm.weight", (73,)),
        ("model.norm.weight", (72, 1)),
    ],
)
def test_a_tensor_of_another_shape_is_refused_with_both_shapes(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadModel, match=r"wanted \[.*\] in all by the configuration, got .*" + name.replace(".", r"\.")):
        built(changed(tiny(), name, shape=shape))


def test_a_tensor_of_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(Unsupported, match=r"type IQ2_XS; supported are F32.*Q4_1"):
        built(changed(tiny(), "model.layers.0.mlp.down_proj.weight", dtype="IQ2_XS"))


def test_a_quantised_norm_is_refused() -> None:
    checkpoint = tiny(hidden_size=96, num_attention_heads=4)
    with pytest.raises(Unsupported, match=r"model\.norm\.weight: a vector of type Q8_0"):
        built(changed(checkpoint, "model.norm.weight", dtype="Q8_0"))


def test_a_matrix_of_which_not_even_a_tile_fits_a_binding_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"embed_tokens\.weight: 16 rows of .* this device binds 64 at a time"):
        build(tiny(), Settings(256), Limits(storage_binding=64))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"hidden_size": None}, BadModel, "lacks 'hidden_size'"),
        ({"num_key_value_heads": 4}, BadModel, "6 heads do not share 4"),
        ({"num_hidden_layers": 0}, BadModel, "at least 1"),
        ({"vocab_size": -5}, BadModel, "at least 1"),
        ({"hidden_size": 74}, Unsupported, "in fours.*74"),
        ({"head_dim": 12}, Unsupported, "in eights.*12"),
        ({"head_dim": 264}, Unsupported, "up to 256.*264"),
        ({"rope_scaling": {"rope_type": "ntk", "factor": 4.0}}, Unsupported, "'ntk'; supported are default, linear"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, BadModel, "rope_scaling lacks 'low_freq_factor'"),
        ({"rope_scaling": {"rope_type": "linear"}}, BadModel, "rope_scaling lacks 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, BadModel, "makes no frequencies"),
        ({"rope_theta": 1e-320}, BadModel, "wanted rope_theta from 1"),
        ({"rope_theta": float("nan")}, BadModel, "wanted rope_theta from 1"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: Any, error: type[Exception], words: str) -> None:
    wrong = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    with pytest.raises(error, match=words):
        built(replace(tiny(), config=wrong))


def test_an_unknown_cache_type_is_refused() -> None:
    with pytest.raises(RequestError, match="kv must be one of f16, f32, int8, got 'int4'"):
        built(tiny(), kv="int4")


def test_a_matrix_that_exceeds_a_binding_is_cut_between_heads() -> None:
    """Rows of rotary pairs are moved within their head, so no part may end within one."""
    limits = Limits(storage_binding=25_000)  # 65 rows of 384 bytes, of q's 144 in heads of 24
    program = built(tiny(), limits)
    parts = [b.size // 384 for b in program.buffers if b.name == "model.layers.0.self_attn.q_proj.weight"]
    assert parts == [48, 48, 48]


def test_a_tensor_table_may_come_from_several_files() -> None:
    checkpoint = tiny()
    where = {n: replace(t, source=i % 2) for i, (n, t) in enumerate(checkpoint.tensors.items())}
    uploads = built(replace(checkpoint, tensors=where)).uploads
    assert {upload.source for upload in uploads} == {0, 1}
    assert [u.source for u in uploads] == sorted(u.source for u in uploads)


def test_a_tensor_knows_its_bytes_and_an_upload_takes_them_all() -> None:
    tensor: TensorInfo = tiny().tensors["model.layers.0.mlp.down_proj.weight"]
    upload = next(u for u in built(tiny()).uploads if u.nbytes == tensor.nbytes and u.rows == 72 and u.row_bytes == 688)
    assert upload.nbytes == 72 * 172 * 4


def test_a_cache_grows_by_whole_pages_up_to_the_context() -> None:
    """Of 32 positions of two heads of 24 halves: 3072 bytes. A context of 1000 takes 32 of them."""
    program = built(tiny(), context=1000)
    sizes = [cache_sizes(program, positions) for positions in (1, 513, 1000, 5000)]
    assert [one["k.0"] // 3072 for one in sizes] == [1, 17, 32, 32]
    assert all(one.keys() == {b.name for b in program.buffers if b.name[:2] in ("k.", "v.")} for one in sizes)
    assert largest_context(program, 3072 * 10 + 3071) == 320
    assert [first_room(built(tiny(), context=c, room=64)) for c in (50, 64, 1000)] == [50, 64, 64]

"""Tiny random models of odd sizes against a float64 forward pass, on both compilers and on a device with no extras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.conftest import open_native
from tests.models.reference import Array, Model, Shape, forward, llama3_factors, random_model, write_gguf
from webllm.api import _rope_factors
from webllm.checkpoint import Checkpoint
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.device.native import NativeDevice
from webllm.engine import Engine
from webllm.errors import OutOfMemory
from webllm.host.files import FileSource
from webllm.models import llama
from webllm.ops import Limits
from webllm.program import Settings, build

UNTIED = Shape()
SHAPES = {
    "untied": UNTIED,
    "tied": replace(UNTIED, tied=True),
    "llama3": replace(UNTIED, factors=llama3_factors(12)),
    "qwen2": replace(UNTIED, arch="qwen2", head_dim=16, heads=4),
    "mixed": Shape(
        hidden=96,
        heads=4,
        ffn=160,
        types={
            "token_embd": "Q8_0",
            "output": "Q8_0",
            "attn_q": "Q4_0",
            "attn_k": "Q4_0",
            "attn_v": "Q8_0",
            "attn_output": "Q4_1",
            "ffn_gate": "Q4_0",
            "ffn_up": "Q4_0",
            "ffn_down": "Q8_0",
        },
    ),
}
# Ends of a page (32), of a tile of rows and of a small chunk (64), of a decode split (128) and of the rotary table (256).
POSITIONS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257]
IDS = np.random.default_rng(5).integers(0, UNTIED.vocab, POSITIONS[-1] + 1).tolist()


@pytest.fixture(scope="module", params=["wgpu", "wgpudawn"])
def small_device(request: pytest.FixtureRequest) -> Iterator[NativeDevice]:
    """What every WebGPU device has, and nothing else."""
    made = open_native(request.param, default_limits=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Model, Array]]:
    """File, model, and the logits after every token of IDS."""
    folder = tmp_path_factory.mktemp("tiny")
    made = {name: random_model(shape) for name, shape in SHAPES.items()}
    return {n: (write_gguf(m, folder / f"{n}.gguf"), m, forward(m, IDS)) for n, m in made.items()}


@asynccontextmanager
async def engine_of(device: NativeDevice, path: Path, limits: Limits | None = None, **settings: Any) -> AsyncIterator[Engine]:
    """A model on a device, with the f32 cache unless told otherwise."""
    source = FileSource(path)
    checkpoint: Checkpoint = checkpoint_from_gguf(await read_gguf(source), source)
    chosen = Settings(**{"context": UNTIED.context, "kv": "f32", "chunk": 512, **settings})
    factors = await _rope_factors(checkpoint)
    program = build(checkpoint, chosen, limits or Limits.of(device.limits), rope_factors=factors)
    loaded = await device.load(program, checkpoint.sources)
    chunk = min(chosen.chunk, UNTIED.context)
    try:
        yield Engine(device, loaded, context=UNTIED.context, chunk=chunk, vocab_size=UNTIED.vocab, ahead=1)
    finally:
        device.unload(loaded)
        source.close()


def logits_at(device: NativeDevice, path: Path, positions: list[int], forget: bool = True, **options: Any) -> Array:
    """Logits after IDS up to each position. forget: read the whole prompt each time, otherwise only what is new."""

    async def run() -> Array:
        rows = []
        async with engine_of(device, path, **options) as engine:
            for position in positions:
                if forget:
                    engine.forget()
                rows.append(np.frombuffer(await engine.logits(IDS[: position + 1]), np.float32))
        return np.stack(rows)

    return asyncio.run(run())


def relative_errors(got: Array, wanted: Array) -> Array:
    """Of each row: length of the difference over length of what was wanted."""
    errors: Array = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    return errors


@pytest.mark.parametrize("name", SHAPES)
def test_prefill_in_one_chunk_gives_the_reference_logits(device: Any, models: Any, name: str) -> None:
    path, _, wanted = models[name]
    got = logits_at(device, path, POSITIONS)
    assert relative_errors(got, wanted[POSITIONS]).max() < 1e-4


@pytest.mark.parametrize("name", ["untied", "qwen2"])
def test_prefill_in_several_chunks_gives_the_reference_logits(device: Any, models: Any, name: str) -> None:
    """Chunks of 64: the last position takes five of them, the last of one row."""
    path, _, wanted = models[name]
    got = logits_at(device, path, POSITIONS, chunk=64)
    assert relative_errors(got, wanted[POSITIONS]).max() < 1e-4


@pytest.mark.parametrize("name", ["untied", "qwen2"])
def test_decode_token_by_token_gives_the_reference_logits(device: Any, models: Any, name: str) -> None:
    path, _, wanted = models[name]
    got = logits_at(device, path, list(range(len(IDS))), forget=False)
    assert relative_errors(got, wanted).max() < 1e-4


def test_a_cache_of_f16_costs_three_digits_at_most(device: Any, models: Any) -> None:
    """Halves have 11 bits: K and V are off by up to 2^-12 each, 2.4e-4."""
    path, _, wanted = models["untied"]
    got = logits_at(device, path, [33, 200], kv="f16")
    assert relative_errors(got, wanted[[33, 200]]).max() < 1e-3


@pytest.mark.parametrize("name", ["tied", "mixed"])
def test_a_device_with_default_limits_gives_the_reference_logits(small_device: Any, models: Any, name: str) -> None:
    path, _, wanted = models[name]
    got = logits_at(small_device, path, [0, 32, 65, 200, 257], chunk=64)
    assert relative_errors(got, wanted[[0, 32, 65, 200, 257]]).max() < 1e-4


def test_the_default_limits_device_really_has_no_more(small_device: Any) -> None:
    """Otherwise the leg above would test the fast path twice."""
    limits = small_device.limits
    assert limits["maxStorageBuffersPerShaderStage"] == 8
    assert limits["maxComputeWorkgroupStorageSize"] == 16 << 10
    assert limits["maxComputeInvocationsPerWorkgroup"] == 256
    assert limits["maxComputeWorkgroupSizeX"] == 256
    assert limits["maxStorageBufferBindingSize"] == 128 << 20
    assert not small_device.features & {"shader-f16", "subgroups", "timestamp-query"}


def test_a_cache_beyond_the_binding_limit_is_refused_with_a_way_out(small_device: Any, models: Any) -> None:
    """Two heads of 24 in f32 take 384 bytes a position and layer: 400,000 positions are over 128 MiB."""
    before = small_device.bytes
    with pytest.raises(OutOfMemory, match="smaller context"):
        logits_at(small_device, models["untied"][0], [0], context=400_000)
    assert small_device.bytes == before


def test_without_shared_scratch_the_logits_are_the_same_bits(device: Any, models: Any) -> None:
    shared = logits_at(device, models["untied"][0], [40])
    apart = logits_at(device, models["untied"][0], [40], share=False)
    assert np.array_equal(shared, apart)


def test_matrices_cut_by_the_binding_limit_give_the_reference_logits(device: Any, models: Any) -> None:
    """20,000 bytes hold 52 rows of 384 bytes: q (144 rows of heads of 24) and the embedding lie in parts."""
    path, _, wanted = models["untied"]
    got = logits_at(device, path, [0, 40], limits=Limits(storage_binding=20_000))
    assert relative_errors(got, wanted[[0, 40]]).max() < 1e-4


def test_the_llama3_formula_gives_the_factors_that_a_gguf_carries() -> None:
    """config.json names the rule, a GGUF its result."""
    rule = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    sizes = {"hidden_size": 72, "intermediate_size": 172, "num_hidden_layers": 3, "vocab_size": 301, "head_dim": 24}
    config = llama.config_of({**sizes, "num_attention_heads": 6, "num_key_value_heads": 2, "rope_scaling": rule})
    plain = llama.inverse_frequencies(replace(config, rope_scaling=None))
    wanted = np.array(plain) / llama3_factors(12)
    assert np.allclose(llama.inverse_frequencies(config), wanted, rtol=1e-12, atol=0)
    assert len({round(f, 3) for f in llama3_factors(12)}) > 3  # some kept, some divided by 8, some between

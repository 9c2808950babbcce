"""Tiny random models of odd sizes against a float64 forward pass, on both compilers and on a device with no extras."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.conftest import open_native
from tests.models.reference import Array, Model, Shape, forward, llama3_factors, random_model, write_gguf
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.device import Loaded
from webllm.device.native import NativeDevice
from webllm.engine import Engine
from webllm.errors import OutOfMemory
from webllm.host.files import FileSource
from webllm.limits import Limits
from webllm.models._config import Config
from webllm.models._rotary import rotary
from webllm.program import Settings, build, read_rope_factors

UNTIED = Shape()
CONTEXT = 320
SHAPES = {
    "untied": UNTIED,
    "tied": replace(UNTIED, tied=True),
    "llama3": replace(UNTIED, factors=llama3_factors(12)),
    "qwen2": replace(UNTIED, arch="qwen2"),
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
            "attn_output": "Q5_0",
            "ffn_gate": "Q4_0",
            "ffn_up": "Q5_1",
            "ffn_down": "Q8_0",
        },
    ),
}
# Ends of a page (32), of a tile of rows and a small chunk (64), of a decode split (128), of the rotary table (256).
POSITIONS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257]
LONG = [1022, 1023, 1024, 1025]  # beyond eight splits decode may merge them in another way
IDS = np.random.default_rng(5).integers(0, UNTIED.vocab, LONG[-1] + 1).tolist()


class Bench:
    """Models on one device, each loaded once and kept: a slow compiler then compiles a kernel once, too."""

    def __init__(self, device: NativeDevice, models: dict[str, tuple[Path, Model, Array]]) -> None:
        self.device = device
        self._models = models
        self._loaded: dict[tuple[Any, ...], Loaded] = {}

    async def engine(
        self, name: str, chunk: int = 512, limits: Limits | None = None, ahead: int = 1, **settings: Any
    ) -> Engine:
        """With an empty cache of f32, unless told otherwise."""
        chosen = Settings(**{"context": CONTEXT, "kv": "f32", "chunk": chunk, **settings})
        key = (name, chosen, limits)
        if key not in self._loaded:
            self._loaded[key] = await self._load(self._models[name][0], chosen, limits)
        sizes = {"context": chosen.context, "chunk": chunk, "vocab_size": UNTIED.vocab}
        return Engine(self.device, self._loaded[key], **sizes, ahead=ahead)

    async def _load(self, path: Path, settings: Settings, limits: Limits | None) -> Loaded:
        source = FileSource(path)
        checkpoint = checkpoint_from_gguf(await read_gguf(source), source)
        factors = await read_rope_factors(checkpoint)
        program = build(checkpoint, settings, limits or Limits.of(self.device.limits), rope_factors=factors)
        return await self.device.load(program, checkpoint.sources)

    def logits(self, name: str, positions: Sequence[int], forget: bool = True, **options: Any) -> Array:
        """Logits after IDS up to each position. forget: read the whole prompt each time, else only what is new."""

        async def run() -> Array:
            engine, rows = await self.engine(name, **options), []
            for position in positions:
                if forget:
                    engine.forget()
                rows.append(np.frombuffer(await engine.logits(IDS[: position + 1]), np.float32))
            return np.stack(rows)

        return asyncio.run(run())

    def error(self, name: str, positions: Sequence[int], **options: Any) -> float:
        """The largest relative error of a row: length of the difference over length of what was wanted."""
        wanted = self._models[name][2][list(positions)]
        got = self.logits(name, positions, **options)
        errors = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        return float(errors.max())

    def close(self) -> None:
        for loaded in self._loaded.values():
            self.device.unload(loaded)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Model, Array]]:
    """File, model, and the logits after every token of IDS."""
    folder = tmp_path_factory.mktemp("tiny")
    made = {name: random_model(shape) for name, shape in SHAPES.items()}
    return {n: (write_gguf(m, folder / f"{n}.gguf"), m, forward(m, IDS)) for n, m in made.items()}


@pytest.fixture(scope="module")
def bench(device: NativeDevice, models: dict[str, tuple[Path, Model, Array]]) -> Iterator[Bench]:
    made = Bench(device, models)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["wgpu", "wgpudawn"])
def small_bench(request: pytest.FixtureRequest, models: dict[str, tuple[Path, Model, Array]]) -> Iterator[Bench]:
    """On what every WebGPU device has, and nothing else."""
    made = Bench(open_native(request.param, default_limits=True), models)
    yield made
    made.close()
    made.device.close()


@pytest.mark.parametrize("name", SHAPES)
def test_prefill_in_one_chunk_gives_the_reference_logits(bench: Bench, name: str) -> None:
    assert bench.error(name, POSITIONS) < 1e-4


@pytest.mark.parametrize("name", ["untied", "qwen2"])
def test_prefill_in_several_chunks_gives_the_reference_logits(bench: Bench, name: str) -> None:
    """Chunks of 64: the last position takes five of them, the last of one row."""
    assert bench.error(name, POSITIONS, chunk=64) < 1e-4


@pytest.mark.parametrize("name", ["untied", "qwen2"])
def test_decode_token_by_token_gives_the_reference_logits(bench: Bench, name: str) -> None:
    assert bench.error(name, range(POSITIONS[-1] + 1), forget=False) < 1e-4


@pytest.mark.parametrize(("name", "workgroups"), [("untied", 256), ("mixed", 4)])
def test_a_long_text_gives_the_reference_logits(bench: Bench, name: str, workgroups: int) -> None:
    """A context of 1100 is no multiple of a page, a block or a table of low positions. It makes 9 splits, or 4."""
    limits = replace(Limits.of(bench.device.limits), workgroups=workgroups)
    assert bench.error(name, LONG, forget=False, context=1100, limits=limits) < 1e-4


@pytest.mark.parametrize("kv", ["f32", "int8"])
def test_a_cache_that_grows_gives_the_same_bits_as_one_that_was_large_at_once(bench: Bench, kv: str) -> None:
    """From 32 positions over 64, 128 and 256 to the context: in prefill, and at 32, 64 and 128 in decode."""
    positions = [31, 32, 40, 63, 64, 65, 127, 128, 200, 300]
    grown, large = (bench.logits("untied", positions, forget=False, kv=kv, **room) for room in ({"room": 32}, {}))
    assert np.array_equal(grown, large)


def test_a_cache_grows_while_steps_are_in_flight(bench: Bench) -> None:
    """Three at a time. The queue copies after them, so nothing they write is lost."""

    async def answer(**room: int) -> list[int]:
        engine = await bench.engine("qwen2", ahead=3, **room)
        before = bench.device.gpu_bytes
        tokens = [token async for token in engine.generate(IDS[:20], 200)]
        grown.append(bench.device.gpu_bytes - before)
        return tokens

    grown: list[int] = []
    assert asyncio.run(answer(room=32)) == asyncio.run(answer())
    cache = 3 * 2 * (256 - 32) * 2 * 24 * 4  # layers, K and V, positions, heads, numbers of f32
    assert cache <= grown[0] < cache + 2048  # and a few buffers for readback


def test_an_interrupt_ends_a_long_prompt_between_its_chunks(bench: Bench) -> None:
    """Waiting for the GPU blocks the thread, so other tasks run between the chunks, and only then."""

    async def run() -> tuple[list[int], int, list[int]]:
        engine = await bench.engine("untied", chunk=64)
        task = asyncio.create_task(anext(engine.generate(IDS[:300], 1), None))
        while engine.cached_tokens < 64:
            await asyncio.sleep(0)
        engine.interrupt()
        return await task, engine.cached_tokens, [token async for token in engine.generate(IDS[:300], 3)]

    token, cached, after = asyncio.run(run())
    assert token is None and 64 <= cached <= 192
    assert after[0] == bench.logits("untied", [299], chunk=64)[0].argmax()


def test_a_cache_of_f16_costs_three_digits_at_most(bench: Bench) -> None:
    """Halves have 11 bits: K and V are off by up to 2^-12 each, 2.4e-4."""
    assert bench.error("untied", [33, 200], kv="f16") < 1e-3


def test_a_cache_of_int8_costs_as_much_as_its_bits_are_fewer(bench: Bench) -> None:
    """K and V are off by up to 2^-8 of the largest number in a quarter of the head, 40 times what f16 rounds away."""
    assert 1e-3 < bench.error("untied", [33, 200], kv="int8") < 40 * 1e-3


@pytest.mark.parametrize("name", ["tied", "mixed"])
def test_a_device_with_default_limits_gives_the_reference_logits(small_bench: Bench, name: str) -> None:
    assert small_bench.error(name, [0, 32, 65, 200, 257], chunk=64) < 1e-4


def test_the_default_limits_device_really_has_no_more(small_bench: Bench) -> None:
    """Otherwise the leg above would test the fast path twice."""
    limits, features = small_bench.device.limits, small_bench.device.features
    assert limits["maxStorageBuffersPerShaderStage"] == 8
    assert limits["maxComputeWorkgroupStorageSize"] == 16 << 10
    assert limits["maxComputeInvocationsPerWorkgroup"] == 256
    assert limits["maxComputeWorkgroupSizeX"] == 256
    assert limits["maxStorageBufferBindingSize"] == 128 << 20
    assert not features & {"shader-f16", "subgroups", "timestamp-query"}


def test_a_cache_beyond_the_binding_limit_is_refused_with_a_way_out(small_bench: Bench) -> None:
    """Two heads of 24 in f32 take 192 bytes a position in K: 800,000 positions are over 128 MiB."""
    before = small_bench.device.gpu_bytes
    with pytest.raises(OutOfMemory, match="smaller context"):
        small_bench.logits("tied", [0], context=800_000)
    assert small_bench.device.gpu_bytes == before


@pytest.mark.parametrize("device", ["wgpu"], indirect=True)
def test_without_shared_scratch_the_logits_are_the_same_bits(bench: Bench) -> None:
    shared, apart = bench.logits("untied", [40]), bench.logits("untied", [40], share=False)
    assert np.array_equal(shared, apart)


@pytest.mark.parametrize("device", ["wgpu"], indirect=True)
def test_matrices_cut_by_the_binding_limit_give_the_reference_logits(bench: Bench) -> None:
    """25,000 bytes hold 65 rows of 384 bytes: q (6 heads of 24) and the embedding lie in parts, cut between heads."""
    assert bench.error("untied", [0, 40], limits=Limits(storage_binding=25_000)) < 1e-4


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
    config = Config.of({**sizes, "num_attention_heads": 6, "num_key_value_heads": 2, "rope_scaling": rule})
    wanted = np.array(rotary(config, 64, rule={}).frequencies) / llama3_factors(12)
    assert np.allclose(rotary(config, 64).frequencies, wanted, rtol=1e-12, atol=0)
    assert len({round(f, 3) for f in llama3_factors(12)}) > 3  # some kept, some divided by 8, some between

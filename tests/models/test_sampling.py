"""Sampled answers of tiny models against the whole loop in numpy: forward pass, penalties, filters, noise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import webllm
from tests.kernels.test_sampling import adjusted, gumbel, kept
from tests.models.reference import Model, Shape, forward, random_model, write_gguf
from webllm import Sampling
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.engine import Engine, Timing
from webllm.host.files import FileSource
from webllm.limits import Limits
from webllm.program import Settings, build
from webllm.sampling import IN_PROMPT

ON_WGPU = pytest.mark.parametrize("device", ["wgpu"], indirect=True)
PROMPT = [5, 17, 3, 88, 42, 9, 61, 17]
SHAPES = {"small": Shape(layers=2), "wide": Shape(layers=2, vocab=3001)}
PENALISED = Sampling(
    temperature=0.9,
    top_p=0.9,
    presence_penalty=0.6,
    frequency_penalty=0.3,
    repetition_penalty=1.2,
    logit_bias={7: 1.5, 88: -3.0},
    seed=21,
)
FLAT = Sampling(temperature=2.0, top_p=0.99, frequency_penalty=0.5, seed=5)


def answer(model: Model, how: Sampling, count: int, prompt: list[int] = PROMPT) -> list[int]:
    """What the loop in float64 says."""
    ids = list(prompt)
    for place in range(count):
        counts = np.bincount(ids[len(prompt) :], minlength=model.shape.vocab).astype(np.uint32)
        counts[prompt] |= np.uint32(IN_PROMPT)
        scores = adjusted(forward(model, ids)[-1], how, counts)
        left = kept(scores, how)
        ids.append(int(left[np.argmax(scores[left] + how.temperature * gumbel(how.seed or 0, place, left))]))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Model]]:
    folder = tmp_path_factory.mktemp("sampled")
    made = {name: random_model(shape) for name, shape in SHAPES.items()}
    return {name: (write_gguf(model, folder / f"{name}.gguf"), model) for name, model in made.items()}


@pytest.fixture(scope="module")
def engine_of(device: Any, models: dict[str, tuple[Path, Model]]) -> Iterator[Callable[..., Engine]]:
    """An engine with an empty cache, on a model that stays loaded."""
    loaded: dict[str, Any] = {}

    async def load(name: str) -> Any:
        source = FileSource(models[name][0])
        checkpoint = checkpoint_from_gguf(await read_gguf(source), source)
        return await device.load(build(checkpoint, Settings(256, "f32"), Limits.of(device.limits)), [source])

    def get(name: str, ahead: int = 3) -> Engine:
        if name not in loaded:
            loaded[name] = asyncio.run(load(name))
        return Engine(device, loaded[name], context=256, chunk=128, vocab_size=models[name][1].shape.vocab, ahead=ahead)

    yield get
    for one in loaded.values():
        device.unload(one)


def sampled(
    engine: Engine, how: Sampling, count: int, timing: Timing | None = None, prompt: list[int] = PROMPT
) -> list[int]:
    async def run() -> list[int]:
        return [token async for token in engine.generate(prompt, count, timing=timing, sampling=how)]

    return asyncio.run(run())


@ON_WGPU
def test_an_answer_with_everything_on_is_numpy_s(engine_of: Any, models: Any) -> None:
    """Three steps in flight, each with the penalties of all tokens before it."""
    assert sampled(engine_of("small"), PENALISED, 40) == answer(models["small"][1], PENALISED, 40)


@ON_WGPU
def test_the_likeliest_tokens_after_penalties_are_numpy_s(engine_of: Any, models: Any) -> None:
    how = replace(PENALISED, temperature=0.0)
    assert sampled(engine_of("small"), how, 40) == answer(models["small"][1], how, 40)


@ON_WGPU
@pytest.mark.parametrize(("ahead", "repeats"), [(1, 1), (3, 1), (3, 15)])
def test_an_answer_that_the_host_must_choose_in_parts_is_numpy_s(
    engine_of: Any, models: Any, ahead: int, repeats: int
) -> None:
    """3001 tokens that are nearly equally likely: the candidates hold half of the probability.

    After 15 prompts of 8 tokens the steps in flight pass position 128, where attention takes a second split.
    """
    timing, prompt = Timing(), PROMPT * repeats
    got = sampled(engine_of("wide", ahead), FLAT, 24, timing, prompt)
    assert got == answer(models["wide"][1], FLAT, 24, prompt)
    assert 4 < timing.host_choices < 20


@ON_WGPU
@pytest.mark.parametrize(("name", "how"), [("small", PENALISED), ("wide", FLAT)], ids=["on the GPU", "by the host"])
def test_an_answer_that_lets_others_in_between_is_numpy_s(
    engine_of: Any, models: Any, monkeypatch: pytest.MonkeyPatch, name: str, how: Sampling
) -> None:
    """Its noise and its penalties go on where they were; the others have other penalties, and another prompt."""
    monkeypatch.setattr("webllm.turns.STANDS_S", 0.0)
    engine, other = engine_of(name), replace(PENALISED, seed=4)

    async def run() -> list[int]:
        got = []
        async for token in engine.generate(PROMPT, 20, sampling=how):
            got.append(token)
            if len(got) in (1, 5, 6):
                assert len([t async for t in engine.generate(PROMPT[:3], 4, sampling=other)]) == 4
        return got

    assert asyncio.run(run()) == answer(models[name][1], how, 20)


@ON_WGPU
def test_requests_leave_nothing_behind_for_each_other(engine_of: Any, models: Any) -> None:
    """Penalties, bias and the host's choices of one are not the next one's. The cache is shared."""
    engine, plain = engine_of("wide"), Sampling(top_k=3, seed=1)
    first = sampled(engine, plain, 12)
    sampled(engine, FLAT, 12)
    sampled(engine, replace(PENALISED, logit_bias={token: 50 for token in range(9)}), 12)
    assert sampled(engine, plain, 12) == first == answer(models["wide"][1], plain, 12)
    assert sampled(engine, webllm.Sampling(temperature=0), 12) == answer(models["wide"][1], Sampling(temperature=0), 12)


async def test_a_seed_that_was_told_repeats_the_answer(models: Any) -> None:
    async with await webllm.load(models["small"][0]) as llm:
        first = [i async for i in llm.generate(PROMPT, max_tokens=20, sampling=Sampling())]
        seed = llm.stats()["seed"]
        again = [i async for i in llm.generate(PROMPT, max_tokens=20, sampling=Sampling(seed=seed))]
        other = [i async for i in llm.generate(PROMPT, max_tokens=20, sampling=Sampling(seed=seed + 1))]
        greedy = [i async for i in llm.generate(PROMPT, max_tokens=20)]
        assert llm.stats()["seed"] is None and llm.stats()["host_choices"] == 0
    assert first == again and len({tuple(ids) for ids in (first, other, greedy)}) == 3

"""tests/bench/quality.py on stories260K: what is the same has no divergence, and a coarser cache a small one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import quality
from tests.models.conftest import DATA
from tests.models.llama2c import convert

STORIES = DATA / "stories260K"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stories") / "stories260K.gguf"
    convert(STORIES / "stories260K.bin", STORIES / "tok512.bin", path)
    return path


def measured(path: Path, against: str, other: str) -> dict[str, Any]:
    text = (STORIES / "golden.txt").read_text(encoding="utf-8")
    options = [quality.read_options(option) for option in (against, other)]
    how = {"tokens": 120, "prefill_every": 40, "prompts": 2, "max_tokens": 16}
    return asyncio.run(quality.measure(path, text, *options, **how))


def test_a_model_does_not_differ_from_itself(story: Path) -> None:
    result = measured(story, "exact=1", "exact=1")
    for path in ("decode", "prefill"):
        one = result[path]
        assert (one["kl_mean"], one["kl_max"], one["perplexity_ratio"], one["same_likeliest"]) == (0, 0, 1, 1)
        assert 1 < one["perplexity_against"] < 3  # its own greedy story
    assert result["greedy"]["first_difference"] == [None, None]
    assert result["tokens"] == 120 and result["adapter"] and result["versions"]["wgpu"]


def test_a_cache_of_halves_differs_a_little(story: Path) -> None:
    result = measured(story, "exact=1,kv=f32", "exact=1,kv=f16")
    for path in ("decode", "prefill"):
        one = result[path]
        assert 0 < one["kl_mean"] < one["kl_max"] < 1e-4
        assert one["perplexity_ratio"] == pytest.approx(1, abs=1e-3) and one["perplexity_ratio"] != 1


def test_options_are_those_of_load() -> None:
    assert quality.read_options("exact=0,kv=int8,context=64") == {"exact": False, "kv": "int8", "context": 64}


def test_the_divergence_is_that_of_the_distributions() -> None:
    """ln 2 bits more: p is certain of one of two tokens, q is not."""

    class Model:
        def __init__(self, logits: list[float]) -> None:
            self.row, self.engine, self.forgotten = np.array(logits, np.float32), self, 0

        def forget(self) -> None:
            self.forgotten += 1

        async def logits(self, ids: list[int]) -> Any:
            return self.row

    sure, torn = Model([100, 0, -100]), Model([7, 7, -100])
    pair: Any = (sure, torn)
    result = asyncio.run(quality.divergence(pair, [0] * 7, forget_every=3))
    assert result["kl_mean"] == result["kl_max"] == pytest.approx(np.log(2))
    assert (result["perplexity_against"], result["perplexity_with"]) == (pytest.approx(1), pytest.approx(2))
    assert sure.forgotten == torn.forgotten == 3  # at the beginning, and before two prefixes

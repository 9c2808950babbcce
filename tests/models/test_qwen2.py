"""A Qwen2 of half a billion weights in five tensor types, natively: the ids and logits of transformers in float32.

Its embedding, which is the LM head too, exceeds a binding of 128 MiB.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

import webllm
from tests.models import qwen2_file
from webllm import LLM

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

DATA = Path(__file__).parents[1] / "data" / "qwen2.5-coder-0.5b-instruct.json"
CASES: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def file() -> Path:
    return qwen2_file.fetch()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llm(file: Path) -> AsyncIterator[LLM]:
    async with await webllm.load(file, context=512, exact=True) as loaded:
        yield loaded


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
async def test_a_chat_has_the_prompt_ids_and_the_greedy_ids_of_transformers(llm: LLM, case: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": case["prompt"]}]
    answer = await llm.chat.completions.create(
        messages, temperature=0, max_tokens=len(case["greedy_ids"]), return_token_ids=True
    )
    assert answer.prompt_token_ids == case["prompt_ids"]
    assert answer.choices[0].token_ids == case["greedy_ids"]
    assert answer.choices[0].message.content == case["greedy_text"].removesuffix("<|im_end|>")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
async def test_the_largest_logits_are_those_of_transformers(llm: LLM, case: dict[str, Any]) -> None:
    """In f16, the cache and Q4_K's scales move them by up to 0.008, which is more than between two of the largest."""
    logits = await llm.logits(case["prompt_ids"])
    assert set(np.argsort(-logits)[:10]) == set(case["top10_ids"])
    assert np.abs(logits[case["top10_ids"]] - case["top10_logits"]).max() < 0.05


async def test_with_a_cache_of_f32_the_largest_logits_are_in_order_too(file: Path) -> None:
    async with await webllm.load(file, context=64, kv="f32", exact=True) as llm:
        for case in CASES:
            logits = await llm.logits(case["prompt_ids"])
            assert np.argsort(-logits, kind="stable")[:10].tolist() == case["top10_ids"]

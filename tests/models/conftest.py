"""Model tests run natively, on lavapipe or on this machine's GPU."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import webllm
from tests.kernels.conftest import device, rng
from webllm.pull import cached

__all__ = ["device", "rng"]

DATA = Path(__file__).parents[1] / "data"
SMOLLM2 = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The default model's file, which `make model` fetches."""
    path = cached(SMOLLM2)
    if path is None:
        pytest.fail(f"{SMOLLM2} is not in the cache folder: run `make model` (or `webllm pull {SMOLLM2}`)")
    return path


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """What transformers in float32 says about the default model: see tests/data/README.md."""
    cases: list[dict[str, Any]] = json.loads((DATA / f"{SMOLLM2}.json").read_text(encoding="utf-8"))["cases"]
    return cases


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llm(smollm2_file: Path) -> AsyncIterator[webllm.LLM]:
    """The default model, loaded once a module. Tests that care about the cache's contents empty it themselves."""
    async with await webllm.load(smollm2_file, context=512, exact=True) as loaded:
        yield loaded

"""Tuning on a real device, with a tiny model: the same tokens whatever the shapes are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import webllm
from tests.models.conftest import DATA
from tests.models.llama2c import BOS, convert
from webllm import LLM, tune
from webllm.device.native import NativeDevice
from webllm.limits import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")
STORIES = DATA / "stories260K"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stories") / "stories260K.gguf"
    convert(STORIES / "stories260K.bin", STORIES / "tok512.bin", path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path))
    return tmp_path


async def story(llm: LLM) -> bool:
    """Whether a story begins as the reference's does."""
    text = llm.tokenizer.decode([i async for i in llm.generate([BOS], max_tokens=40)])
    return len(text) > 50 and (STORIES / "golden.txt").read_text(encoding="utf-8").startswith(text)


async def test_what_tuning_finds_is_kept_and_changes_no_token(model: Path, cache: Path) -> None:
    async with await webllm.load(model, tune=True) as llm:
        assert await story(llm)
        found = llm.stats()["tuning"]
    assert found["matvec"]
    assert [file.name for file in cache.iterdir()] == [tune.file_name(llm.device.info)]
    async with await webllm.load(model) as again:
        assert again.stats()["tuning"] == found


async def test_no_step_is_timed_beyond_the_context(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, submit = [], NativeDevice.submit

    def noted(device: NativeDevice, loaded: Any, plans: Any, rows: int, length: int, steps: int = 1) -> Any:
        lengths.append(length)
        return submit(device, loaded, plans, rows, length, steps)

    monkeypatch.setattr(NativeDevice, "submit", noted)
    async with await webllm.load(model, context=64, tune=True):
        assert lengths and max(lengths) <= 64


async def test_any_shape_gives_the_same_tokens(model: Path, cache: Path) -> None:
    async with await webllm.load(model) as llm:
        data, limits = llm.stats()["tuning"], Limits.of(llm.device.limits, software=llm.device.info.software)
    other = [row | {"shape": [*limits.shapes_around(*row["shape"])[-1]]} for row in data["matvec"]]
    assert other != data["matvec"]
    async with await webllm.load(model, tune={**data, "matvec": other}) as llm:
        assert llm.stats()["tuning"]["matvec"] != data["matvec"]
        assert await story(llm)
    assert not [*cache.iterdir()]


async def test_a_table_of_another_gpu_is_refused(model: Path) -> None:
    with pytest.raises(webllm.errors.RequestError, match="this tuning is for adapter 'another'"):
        await webllm.load(model, tune={**tune.table_json(tune.AdapterInfo("another", "Vulkan", False), {})})

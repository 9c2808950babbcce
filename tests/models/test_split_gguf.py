"""GGUF files in several parts, as gguf-split makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import webllm
from tests.models.reference import Model, Shape, forward, random_model, write_gguf
from webllm.errors import BadModel, ModelNotFound, Unsupported
from webllm.opening import open_checkpoint
from webllm.static_server import serve_in_thread

IDS = [3, 141, 59, 26]
MODEL = random_model(Shape(layers=2))


def split(folder: Path, parts: int = 3, model: Model = MODEL, **second: int) -> Path:
    """The tensors dealt out in turn. second: what the second part says of itself instead."""
    for number in range(parts):
        kept = list(model.data)[number::parts]
        told = {"no": number, "count": parts, "tensors_count": len(model.data)} | (second if number == 1 else {})
        numbers = {f"split.{key.replace('_', '.')}": value for key, value in told.items()}
        without = [name for name in model.data if name not in kept]
        write_gguf(model, folder / f"m-{number + 1:05}-of-{parts:05}.gguf", without=without, numbers=numbers)
    return folder / f"m-00001-of-{parts:05}.gguf"


async def check(place: Any) -> None:
    async with await webllm.load(place, kv="f32", exact=True) as llm:
        got, wanted = await llm.logits(IDS), forward(MODEL, IDS)[-1]
        assert len(llm.checkpoint.sources) == 3
    assert np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < 1e-5


async def test_parts_are_one_model_on_disk_and_on_a_web_server(tmp_path: Path) -> None:
    path = split(tmp_path)
    await check(path)
    with serve_in_thread(tmp_path) as server:
        await check(f"{server.url}/{path.name}")


async def test_a_part_that_is_not_the_first_names_the_first(tmp_path: Path) -> None:
    split(tmp_path)
    with pytest.raises(Unsupported, match=r"split into 3; give the first one.*NAME-00001-of-00003\.gguf"):
        await open_checkpoint(tmp_path / "m-00002-of-00003.gguf")


async def test_a_first_part_under_another_name_is_refused(tmp_path: Path) -> None:
    path = split(tmp_path).rename(tmp_path / "model.gguf")
    with pytest.raises(Unsupported, match="under the name it had"):
        await open_checkpoint(path)


async def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = split(tmp_path)
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelNotFound, match=r"m-00003-of-00003\.gguf"):
        await open_checkpoint(path)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"no": 2}, "wanted part 2 of 3"),
        ({"count": 4}, "wanted part 2 of 3"),
        ({"count": 60_000}, "must be a number of parts"),
    ],
)
async def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, second: dict[str, int], words: str
) -> None:
    with pytest.raises(BadModel, match=words):
        await open_checkpoint(split(tmp_path, **second))


async def test_tensors_that_are_claimed_and_in_no_part_are_missed(tmp_path: Path) -> None:
    path = split(tmp_path)
    write_gguf(
        MODEL,
        tmp_path / "m-00003-of-00003.gguf",
        without=list(MODEL.data)[1:],
        numbers={"split.no": 2, "split.count": 3},
    )
    with pytest.raises(BadModel, match="tensors are claimed, its parts have"):
        await open_checkpoint(path)

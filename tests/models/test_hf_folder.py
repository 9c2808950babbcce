"""Folders in Hugging Face's layout, on a device: what `transformers` saved gives what `transformers` computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import save_file

import webllm
from webllm import LLM
from webllm.static_server import serve_in_thread

DATA = Path(__file__).parents[1] / "data"
NAMES = ["tiny-llama", "tiny-qwen2"]
INDEX = "model.safetensors.index.json"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / name / "expected.json").read_text(encoding="utf-8"))
    return found


async def logits_of(folder: Any, ids: list[int], positions: list[int], **options: Any) -> NDArray[np.float64]:
    async with await webllm.load(folder, **{"kv": "f32", "exact": True, **options}) as llm:
        return np.stack([await llm.logits(ids[: at + 1]) for at in positions]).astype(np.float64)


def error(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest relative error of a row: length of the difference over length of what was wanted."""
    return float((np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


def floats(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The folder's tensors as F32: numpy has no bfloat16, which is the upper half of a float32."""
    raw = deserialize((folder / "model.safetensors").read_bytes())
    halves = {name: np.frombuffer(tensor["data"], np.uint16).reshape(tensor["shape"]) for name, tensor in raw}
    return {name: (values.astype(np.uint32) << 16).view(np.float32) for name, values in halves.items()}


def shard(folder: Path, to: Path, shards: int) -> Path:
    """The same model in several files, tensors dealt out in turn."""
    to.mkdir()
    for file in folder.glob("*.json"):
        shutil.copy(file, to)
    tensors, places = floats(folder), {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        names = sorted(tensors)[number::shards]
        save_file({name: tensors[name] for name in names}, to / file)
        places |= dict.fromkeys(names, file)
    (to / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return to


@pytest.mark.parametrize("name", NAMES)
async def test_a_folder_that_transformers_saved_gives_the_logits_of_transformers(name: str) -> None:
    """In bfloat16, with rows of 44 and 76 columns: no whole number of units."""
    wanted = expected(name)
    got = await logits_of(DATA / name, wanted["ids"], wanted["positions"])
    assert error(got, np.array(wanted["logits"])) < 1e-4


@pytest.mark.parametrize("name", NAMES)
async def test_shards_of_f32_give_the_same_logits(name: str, tmp_path: Path) -> None:
    wanted = expected(name)
    folder = shard(DATA / name, tmp_path / "shards", 3)
    got = await logits_of(folder, wanted["ids"], wanted["positions"])
    assert error(got, np.array(wanted["logits"])) < 1e-4


async def test_a_folder_on_a_web_server_gives_the_same_logits_in_one_file_and_in_shards(tmp_path: Path) -> None:
    wanted = expected("tiny-llama")
    shutil.copytree(DATA / "tiny-llama", tmp_path / "one")
    shard(DATA / "tiny-llama", tmp_path / "three", 3)
    with serve_in_thread(tmp_path) as server:
        for place in ("one/", "three/", "one/model.safetensors"):
            got = await logits_of(f"{server.url}/{place}", wanted["ids"], wanted["positions"])
            assert error(got, np.array(wanted["logits"])) < 1e-4


# What 4 and 8 bits cost random weights, which have no pattern to spare them; the embedding has 8 bits.
COSTS = {"f32": 1e-4, "f16": 1e-3, "q8": 0.1, "q4": 0.7, "q4_sym": 0.8}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quant", COSTS)
async def test_quantised_while_loading_the_logits_are_off_by_what_the_bits_cost(name: str, quant: str) -> None:
    wanted = expected(name)
    got = await logits_of(DATA / name, wanted["ids"], wanted["positions"], quant=quant)
    off = error(got, np.array(wanted["logits"]))
    assert off < COSTS[quant]
    if quant.startswith("q"):
        assert off > COSTS[quant] / 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def q4() -> AsyncIterator[LLM]:
    async with await webllm.load(DATA / "tiny-llama", quant="q4", exact=True) as llm:
        yield llm


async def test_the_report_tells_of_every_tensor_what_it_became_and_what_was_lost(q4: LLM) -> None:
    rows = {row.name: row for row in q4.weights.report().rows}
    assert rows.keys() == floats(DATA / "tiny-llama").keys()
    for name, row in rows.items():
        layer, matrix = name.startswith("model.layers"), len(row.shape) == 2
        assert row.dtype == "BF16"
        assert row.format == ("f32" if not matrix else "q4_1" if layer else "q8_0")
        if matrix:
            assert row.error is not None and (0.03 < row.error < 0.1 if layer else 0.001 < row.error < 0.01)
        else:
            assert row.error is None


async def test_the_report_s_bytes_are_those_on_the_gpu(q4: LLM) -> None:
    assert sum(row.nbytes for row in q4.weights.report().rows) == q4.stats()["bytes"]["weight"]


async def test_the_report_is_a_table_in_which_layers_share_a_line(q4: LLM) -> None:
    lines = str(q4.weights.report()).splitlines()
    assert lines[0].split() == [
        "tensors",
        "n",
        "in",
        "the",
        "file",
        "on",
        "the",
        "GPU",
        "bits",
        "MB",
        "mean",
        "error",
        "worst",
    ]
    (down,) = (line.split() for line in lines if "down_proj" in line)
    assert down[:4] == ["model.layers.*.mlp.down_proj.weight", "2", "BF16", "q4_1"] and down[-1].endswith("%")
    (norm,) = (line.split() for line in lines if line.startswith("model.norm"))
    assert norm[-1] == "0.0"  # nothing was lost: MB are the last number


async def test_a_reload_quantises_again_and_tells_the_same(q4: LLM) -> None:
    before, ids = q4.weights.report(), [3, 1, 4]
    logits = await q4.logits(ids)
    await q4.reload()
    assert q4.weights.report() == before and np.array_equal(await q4.logits(ids), logits)


async def test_the_stop_ids_are_all_that_the_files_name(q4: LLM) -> None:
    assert q4.checkpoint.stop_ids == {2, 7}  # 2 in config.json, both in generation_config.json

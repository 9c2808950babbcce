"""Every family of models against `transformers`: tiny random checkpoints as it saves them, from files, on a device.

The cases are those of tests/models/families.py; what transformers computes lies in tests/data/families/.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.kernels.conftest import open_native
from tests.models.families import CASES, POSITIONS, Case, table, weight
from webllm import models
from webllm.device.native import NativeDevice
from webllm.engine import Engine
from webllm.limits import Limits
from webllm.opening import open_checkpoint
from webllm.program import Settings, build, read_rope_factors
from webllm.synthetic import checkpoint_from_config

DATA = Path(__file__).parents[1] / "data" / "families"


@pytest.fixture(scope="module")
def gpu() -> Iterator[NativeDevice]:
    device = open_native("wgpu")
    yield device
    device.close()


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


def write_folder(name: str, to: Path) -> Path:
    """The case as `save_pretrained` leaves it."""
    case, wanted = CASES[name], expected(name)
    (to / "config.json").write_text(json.dumps(wanted["config"]), encoding="utf-8")
    tensors = {key: weight(key, tuple(shape), case.norm) for key, shape in wanted["tensors"].items()}
    save_file(tensors, to / "model.safetensors")
    return to


async def run(device: NativeDevice, place: Path, case: Case, ids: list[int]) -> tuple[NDArray[Any], list[int]]:
    """Logits after each of POSITIONS, of which every one continues what the cache has, and the greedy ids after all."""
    checkpoint = await open_checkpoint(place)
    settings = Settings(case.context, kv="f32", chunk=64)
    factors = await read_rope_factors(checkpoint)
    program = build(checkpoint, settings, Limits.of(device.limits, exact=True), rope_factors=factors)
    loaded = await device.load(program, checkpoint.sources)
    try:
        sizes = {"context": case.context, "chunk": 64, "vocab_size": checkpoint.config["vocab_size"]}
        engine = Engine(device, loaded, **sizes, ahead=3)
        rows = [np.frombuffer(await engine.logits(ids[: at + 1]), np.float32) for at in POSITIONS]
        engine.forget()  # so that the prompt is read in chunks
        greedy = [token async for token in engine.generate(ids, case.greedy)] if case.greedy else []
    finally:
        device.unload(loaded)
        for source in checkpoint.sources:
            await source.aclose()
    return np.stack(rows), greedy


@pytest.mark.parametrize("name", CASES)
def test_a_family_gives_the_logits_and_the_greedy_ids_of_transformers(
    gpu: NativeDevice, tmp_path: Path, name: str
) -> None:
    wanted = expected(name)
    got, greedy = asyncio.run(run(gpu, write_folder(name, tmp_path), CASES[name], wanted["ids"]))
    logits = np.array(wanted["logits"])
    errors = np.linalg.norm(got - logits, axis=1) / np.linalg.norm(logits, axis=1)
    assert errors.max() < 1e-4, dict(zip(POSITIONS, errors, strict=True))
    assert greedy == wanted["greedy"]


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_alone_plans_the_tensors_that_transformers_saves(name: str) -> None:
    wanted = expected(name)
    checkpoint = checkpoint_from_config(wanted["config"], "f32")
    assert {key: list(tensor.shape) for key, tensor in checkpoint.tensors.items()} == wanted["tensors"]
    program = build(checkpoint, Settings(64), Limits())
    assert len(program.plans["decode"].dispatches) > 3


def test_every_family_has_a_case() -> None:
    assert {case.family for case in CASES.values()} == set(models.known())


def test_the_page_of_models_lists_the_families_that_are_tested() -> None:
    page = (DATA.parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert table() in page, "run: python -m tests.models.families, and put what it prints into docs/models.md"

"""The Python of python.md, models.md and notebooks.md runs as it stands there, from the first block to the last."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


async def run_blocks(page: str) -> dict[str, Any]:
    """Run the blocks of a page; returns the names that they leave."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        running = eval(compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(running):
            await running
        await asyncio.sleep(0.1)  # what a block has started begins before the next one, as between two cells
    return names


async def test_the_cells_of_notebooks_run_one_after_the_other(
    smollm2_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = await run_blocks("notebooks.md")
    assert "The capital of France is Paris." in capsys.readouterr().out
    assert names["answer"].choices[0].finish_reason == "abort"
    await names["llm"].close()


async def test_what_models_are_and_cost_can_be_tried_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(DOCS.parent)
    await run_blocks("models.md")
    shown = capsys.readouterr().out
    assert "model.layers.*.mlp.down_proj.weight" in shown and "q4_1" in shown


async def test_the_examples_run_one_after_the_other(smollm2_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`smollm2_file` makes sure that nothing is fetched."""
    await run_blocks("python.md")
    shown = capsys.readouterr().out
    assert "The capital of France is Paris." in shown
    assert "49 tokens of the prompt were in the cache" in shown
    assert "the context holds 512. Load the model with context=" in shown

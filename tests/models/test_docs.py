"""The Python of docs/python.md and docs/models.md runs as it stands there, from the first block to the last."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


async def run(page: Path) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        running = eval(compile(block, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(running):
            await running


async def test_what_models_are_and_cost_can_be_tried_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    await run(ROOT / "docs" / "models.md")
    shown = capsys.readouterr().out
    assert "model.layers.*.mlp.down_proj.weight" in shown and "q4_1" in shown


async def test_the_examples_run_one_after_the_other(smollm2_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`smollm2_file` makes sure that nothing is fetched."""
    await run(ROOT / "docs" / "python.md")
    shown = capsys.readouterr().out
    assert "The capital of France is Paris." in shown
    assert "49 tokens of the prompt were in the cache" in shown
    assert "the context holds 512. Load the model with context=" in shown

"""The Python of docs/python.md runs as it stands there, from the first block to the last."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


async def test_the_examples_run_one_after_the_other(smollm2_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`smollm2_file` makes sure that nothing is fetched."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        running = eval(compile(block, PAGE.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(running):
            await running
    shown = capsys.readouterr().out
    assert "The capital of France is Paris." in shown
    assert "49 tokens of the prompt were in the cache" in shown
    assert "the context holds 512. Load the model with context=" in shown

"""The notebooks of docs/ run in a real Jupyter kernel, and what they show is what is kept in them."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbmake.nb_run import NotebookRun

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 300  # a cell


def shown(cell: Any) -> str:
    """The text that a cell shows."""
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return html.unescape("".join(texts))


def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook after it has run, in a kernel that imports this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = NotebookRun(path, SECONDS).execute()
    assert result.error is None, result.error.trace if result.error else ""
    return result.nb


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_kept_in_it(
    path: Path, smollm2_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`smollm2_file` makes sure that nothing is fetched. Cells with the tag "same" show the same on every GPU."""
    ran, kept = run(path, monkeypatch), nbformat.read(path, as_version=4)
    same = [i for i, cell in enumerate(kept.cells) if "same" in cell.metadata.get("tags", ())]
    assert same
    assert [shown(ran.cells[i]) for i in same] == [shown(kept.cells[i]) for i in same]
    assert all(shown(kept.cells[i]) for i in same)

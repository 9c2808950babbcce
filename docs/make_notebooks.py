"""Run the notebooks of docs/notebooks/ and keep in them what they show: `python docs/make_notebooks.py`.

Warnings and progress are left out: they tell of this machine. The tests compare the cells with the tag "same", which
show the same on every GPU, natively and in the browser.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
from nbmake.nb_run import NotebookRun

ROOT = Path(__file__).parent.parent
SECONDS = 300  # a cell


def main() -> None:
    """Rewrite every notebook."""
    os.environ["PYTHONPATH"] = str(ROOT)
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        result = NotebookRun(path, SECONDS).execute()
        if result.error:
            raise SystemExit(f"{path}: {result.error.trace}")
        for cell in result.nb.cells:
            cell.metadata.pop("execution", None)  # when it ran
            if cell.cell_type == "code":
                cell.outputs = merged([output for output in cell.outputs if output.get("name") != "stderr"])
        nbformat.write(result.nb, path)
        print(path.name)


def merged(outputs: list[Any]) -> list[Any]:
    """What was printed piece by piece as one output."""
    kept: list[Any] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    main()

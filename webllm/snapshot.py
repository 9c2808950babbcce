"""A Python that has already started: the memory of Pyodide after `import webllm`, for pages to begin with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from webllm.errors import FetchError

_SCRIPT = Path(__file__).with_name("snapshot.mjs")


def write_snapshot(pyodide: Path, wheels: Sequence[Path], out: Path) -> None:
    """Write the snapshot to the file `out`, gzipped. It goes with these very wheels and this Pyodide, and no others.

    pyodide  folder: the npm package `pyodide`
    wheels   in the order to install
    Raises FetchError without Node.js, and when Python does not start in it. Takes some 4 seconds.
    """
    node = shutil.which("node")
    if node is None:
        raise FetchError(
            "the page's Python is started once in Node.js, which is not on PATH: install Node.js 20 or newer"
        )
    command = [node, *map(str, (_SCRIPT, pyodide, out, *wheels))]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise FetchError(f"the page's Python did not start in Node.js: {done.stderr[-500:]}")

"""docs/add-a-*.md, followed word for word in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("webllm", "kernels_wgsl", "browser_shell", "tests", "docs")
FILES = ("pyproject.toml", "README.md")
# A sentence that ends in a colon, then a block: what to do with it is in the sentence.
STEP = re.compile(r"([^\n]*):\n\n```(\w+)\n(.*?)```|\n\n```(sh)\n(.*?)```", re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("guide", ["add-a-kernel", "add-a-model"])
def test_following_the_page_word_for_word_works(checkout: Path, guide: str) -> None:
    steps = list(STEP.finditer((ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")))
    done = [follow(checkout, step) for step in steps]
    assert {"new", "run"} <= set(done) and len(done) >= 4


def follow(checkout: Path, step: re.Match[str]) -> str:
    """Do what a block and the sentence before it say; returns what that was."""
    sentence, text = step[1] or "", step[3] or step[5]
    if "sh" in (step[2], step[4]):
        return run(checkout, text)
    file = re.search(r"[Ii]n a new file `([^`]+)`$", sentence)
    if file:
        path = checkout / file[1]
        assert not path.exists(), f"{file[1]} is there already: the page needs another example"
        path.write_text(text, encoding="utf-8")
        return "new"
    end = re.search(r"At the end of `([^`]+)`$", sentence)
    if end:
        with open(checkout / end[1], "a", encoding="utf-8") as file_at_end:
            file_at_end.write(f"\n\n{text}")
        return "end"
    middle = re.search(r"in `([^`]+)`, after `([^`]+)`$", sentence)
    assert middle, f"a block that no sentence explains: {sentence!r}"
    before = (checkout / middle[1]).read_text(encoding="utf-8")
    assert before.count(f"{middle[2]}\n") == 1
    (checkout / middle[1]).write_text(before.replace(f"{middle[2]}\n", f"{middle[2]}\n{text}"), encoding="utf-8")
    return "middle"


def run(checkout: Path, commands: str) -> str:
    """Each line in the checkout, with this Python for that of `.venv`."""
    for line in commands.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program.startswith(".venv/bin/")
        command = (
            [sys.executable]
            if program.endswith("python")
            else [sys.executable, "-c", "from webllm.cli import main; main()"]
        )
        ended = subprocess.run(
            [*command, *arguments],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return "run"

"""Writes the tables of models.md that the code and its tests have: run it after a change of either.

python docs/make_models.py
"""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).parent / "models.md"
sys.path.insert(0, str(PAGE.parents[1]))

from tests.unit import formats, web_llm_models  # noqa: E402

TABLES = {"formats": formats.table, "web-llm": web_llm_models.table}


def made(page: str) -> str:
    """The page with its tables made anew, between comments that name them."""
    for name, table in TABLES.items():
        start, end = f"<!-- made: {name} -->\n", "<!-- end -->"
        before, found, rest = page.partition(start)
        assert found, f"models.md has no place for {name}"
        page = f"{before}{start}{table()}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

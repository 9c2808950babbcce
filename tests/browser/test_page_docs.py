"""docs/page.md names all there is."""

import re
from pathlib import Path

from webllm import browser_api

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")


def test_every_file_of_the_page_is_in_the_table_of_the_folder():
    named = {name for line in PAGE.splitlines() if line[:1] == "|" for name in re.findall(r"`([^`]+)`", line)}
    built = {path.name for path in (ROOT / "build" / "page").iterdir() if path.suffix != ".map"}
    assert built and built - named == set()


def test_every_option_of_load_is_named_in_the_spelling_of_javascript():
    row = re.search(r"`webllm\.load\(model, \{(.+?)\}\)`", PAGE)
    expected = {re.sub(r"_(.)", lambda match: match[1].upper(), option) for option in browser_api._OPTIONS}
    assert set(row[1].split(", ")) == expected | {"onProgress", "signal", "keep"}

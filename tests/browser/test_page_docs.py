"""docs/page.md names all there is."""

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from webllm import browser_api
from webllm.static_server import serve_in_thread

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")


def test_every_file_of_the_page_is_in_the_table_of_the_folder():
    named = {name for line in PAGE.splitlines() if line[:1] == "|" for name in re.findall(r"`([^`]+)`", line)}
    built = {path.name for path in (ROOT / "build" / "page").iterdir() if path.suffix != ".map"}
    assert built and built - named == set()


def test_every_option_of_load_is_named_in_the_spelling_of_javascript():
    row = re.search(r"`webllm\.load\(model, \{(.+?)\}\)`", PAGE)
    expected = {re.sub(r"_(.)", lambda match: match[1].upper(), option) for option in browser_api._OPTIONS}
    assert set(row[1].split(", ")) == expected | {"onProgress", "signal", "shared", "keep"}


EXAMPLES = re.findall(r"```html\n(<!doctype html>.*?)```", PAGE, re.DOTALL)
QUESTION = "What is the capital of France?"
ANSWERED = {  # a part of the example -> (where its answer is to come, what has to be done for it)
    "<web-llm-chat": ("web-llm-chat .assistant", f"document.querySelector('web-llm-chat').ask('{QUESTION}')"),
    "text/python": ("web-llm-cell [part=stdout]", ""),
    "LanguageModel": ("#answer", ""),
    "window.webllm.load": ("#answer", ""),
}


@pytest.mark.browser
@pytest.mark.parametrize(
    "part", ["text/python", *(pytest.param(part, marks=pytest.mark.slow) for part in ANSWERED if part != "text/python")]
)
def test_the_examples_run_as_they_stand_there(page, site, tmp_path, part):
    [example] = [example for example in EXAMPLES if part in example]
    own = shutil.copytree(site, tmp_path / "site", copy_function=os.link)
    (own / "example.html").write_text(example, encoding="utf-8")
    place, act = ANSWERED[part]
    with serve_in_thread(own) as server:
        page.goto(f"{server.url}/example.html")
        if act:
            page.evaluate(act)
        expect(page.locator(place)).to_contain_text("Paris", timeout=240_000)


def test_every_example_of_a_page_is_run():
    assert len(EXAMPLES) == len(ANSWERED)
    assert all(sum(part in example for part in ANSWERED) == 1 for example in EXAMPLES)

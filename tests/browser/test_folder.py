"""Folders on a web server, of safetensors (quantised in the page) and of MLC's: the tokens that come natively."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page

import webllm.sync
from tests.browser.conftest import DATA
from webllm.convert import convert
from webllm.host.background import start
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
LOAD_AND_GENERATE = """async ([folder, ids, quant]) => {
    const llm = await webllm.load(folder, { kv: "f32", exact: true, quant });
    const tokens = await llm.generate(ids, 8);
    await llm.close();
    return tokens;
}"""


def native(folder: Path, quant: str | None) -> list[int]:
    with webllm.sync.load(folder, kv="f32", exact=True, quant=quant) as llm:
        return list(llm.generate(IDS, max_tokens=8))


def test_folders_below_the_page_give_the_tokens_that_come_natively(own_site: Path, page: Page) -> None:
    """What the folder does not have, a tokenizer and shards, is asked for and done without."""
    models = own_site / "models"
    shutil.copytree(DATA / "tiny-llama", models / "tiny-llama")
    start(convert(DATA / "tiny-llama", models / "converted")).result()
    with serve_in_thread(own_site) as server:
        page.goto(f"{server.url}/?model=")
        for name, quant in (("tiny-llama", None), ("tiny-llama", "q4"), ("converted", None)):
            got = page.evaluate(LOAD_AND_GENERATE, [f"models/{name}/", IDS, quant])
            assert got == native(models / name, quant)

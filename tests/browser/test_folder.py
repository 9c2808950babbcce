"""A folder of safetensors on a web server, quantised in the page: the tokens that come natively."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page

import webllm.sync
from tests.browser.conftest import DATA
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
LOAD_AND_GENERATE = """async ([ids, quant]) => {
    const llm = await webllm.load("models/tiny-llama/", { kv: "f32", exact: true, quant });
    const tokens = await llm.generate(ids, 8);
    await llm.close();
    return tokens;
}"""


def native(quant: str | None) -> list[int]:
    with webllm.sync.load(DATA / "tiny-llama", kv="f32", exact=True, quant=quant) as llm:
        return list(llm.generate(IDS, max_tokens=8))


def test_a_folder_below_the_page_gives_the_tokens_that_come_natively(own_site: Path, page: Page) -> None:
    """What the folder does not have, a tokenizer and shards, is asked for and done without."""
    shutil.copytree(DATA / "tiny-llama", own_site / "models" / "tiny-llama")
    with serve_in_thread(own_site) as server:
        page.goto(f"{server.url}/?model=")
        for quant in (None, "q4"):
            assert page.evaluate(LOAD_AND_GENERATE, [IDS, quant]) == native(quant)

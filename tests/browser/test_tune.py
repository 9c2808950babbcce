"""Tuning in the page: what it finds is a JSON object that the next load takes."""

import os
import shutil

import pytest

from tests.models.reference import Shape, forward, random_model, write_gguf
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

IDS = [5, 9, 250]
MODEL = random_model(Shape(layers=1, context=64))
LOAD = """async (tune) => {
    const llm = await webllm.load("models/tiny.gguf", { kv: "f32", tune });
    const [token] = await llm.generate([5, 9, 250], 1);
    const { tuning } = await llm.stats();
    await llm.close();
    return { token, tuning };
}"""


def test_what_tuning_finds_is_taken_by_the_next_load(page, site, tmp_path):
    own = shutil.copytree(site, tmp_path / "site", copy_function=os.link)
    write_gguf(MODEL, own / "models" / "tiny.gguf")
    with serve_in_thread(own) as server:
        page.goto(f"{server.url}/?model=")
        found = page.evaluate(LOAD, True)
        assert found["tuning"]["matvec"]
        assert page.evaluate(LOAD, found["tuning"]) == found
        assert found["token"] == int(forward(MODEL, IDS)[-1].argmax())

"""stories260K, a llama2.c model of 260 thousand weights: another converter's file gives the same story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

import webllm
from tests.bench.quantise import measure
from tests.models.conftest import DATA
from tests.models.llama2c import BOS, EOS, convert
from webllm import LLM

pytestmark = pytest.mark.asyncio(loop_scope="module")
STORIES = DATA / "stories260K"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LLM]:
    path = tmp_path_factory.mktemp("stories") / "stories260K.gguf"
    convert(STORIES / "stories260K.bin", STORIES / "tok512.bin", path)
    async with await webllm.load(path, exact=True) as loaded:
        yield loaded


async def test_the_story_is_llama2c_s_byte_for_byte(stories: LLM) -> None:
    """The prompt is the beginning-of-sequence token alone; 200 greedy steps follow."""
    ids = [i async for i in stories.generate([BOS], max_tokens=200)]
    assert len(ids) == 200
    assert stories.tokenizer.decode(ids).encode() == (STORIES / "golden.txt").read_bytes()


async def test_a_cache_of_int8_tells_the_same_beginning(stories: LLM) -> None:
    """The logits move by up to 2.5 % of their length; after 118 tokens the story turns."""
    wanted = [i async for i in stories.generate([BOS], max_tokens=100)]
    async with await webllm.load(stories.name, kv="int8") as llm:
        assert [i async for i in llm.generate([BOS], max_tokens=100)] == wanted
        for length in (20, 60, 100):
            near, exact = await llm.logits(wanted[:length]), await stories.logits(wanted[:length])
            assert np.linalg.norm(near - exact) < 0.05 * np.linalg.norm(exact)


async def test_the_story_goes_on_when_its_beginning_is_the_prompt(stories: LLM) -> None:
    """Cut within the story and read back as text, the prompt goes through prefill instead of decode."""
    golden = (STORIES / "golden.txt").read_text(encoding="utf-8")
    beginning = golden[: golden.index("She said")].rstrip()
    ids = stories.tokenizer.encode(beginning, special=True)
    stories.engine.forget()
    more = [i async for i in stories.generate(ids, max_tokens=20)]
    assert golden.startswith(stories.tokenizer.decode([*ids, *more]))


async def test_the_converted_vocabulary_has_its_ends(stories: LLM) -> None:
    assert (stories.tokenizer.bos_id, stories.tokenizer.eos_id) == (BOS, EOS)
    assert EOS in stories.checkpoint.stop_ids


async def test_a_file_without_a_chat_template_says_so(stories: LLM) -> None:
    with pytest.raises(webllm.errors.RequestError, match="no chat template"):
        await stories.chat.completions.create([{"role": "user", "content": "Hi"}], temperature=0)


async def test_fewer_bits_cost_more_and_least_squares_cost_less_than_mlc_s_scheme(stories: LLM) -> None:
    """Trained weights in float32, on the story itself; docs/models.md has the numbers of a larger model.

    q4 has 5 bits a weight, q4_sym and MLC's 4.5; q8 and the embedding under q4 have 8.5.
    """
    text = (STORIES / "golden.txt").read_text(encoding="utf-8")
    schemes = ["q8", "q4", "q4_sym", "mlc"]
    found = [result async for result in measure(Path(stories.name), text, 150, schemes)]
    kl = [result["kl_mean"] for result in found]
    assert kl == sorted(kl) and kl[0] < 5e-4 and kl[3] > 1.5 * kl[2]
    assert all(r["perplexity_ratio"] < most for r, most in zip(found, (1.005, 1.06, 1.15, 1.25), strict=True))
    assert 0.06 < found[1]["errors"]["layers"] < 0.075 < found[2]["errors"]["layers"] < 0.09

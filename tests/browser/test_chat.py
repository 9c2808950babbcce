"""The default model in Chromium, through `window.webllm`: the token ids of transformers in float32."""

import json
from itertools import pairwise

import pytest

from tests.browser.conftest import ROOT
from webllm.describe import memory
from webllm.limits import Limits
from webllm.program import Settings, build
from webllm.synthetic import checkpoint_from_config

pytestmark = pytest.mark.browser

CAPITAL, POEM, FRUITS = range(3)  # the golden file's cases, the first ends by itself after 8 tokens


@pytest.fixture(scope="module")
def page(browser, url):
    """A page with a loaded model in `llm`, for all tests of this module."""
    page = browser.new_page()
    page.goto(f"{url}/?model=")  # the chat page, without a model of its own
    page.evaluate(
        """async (name) => {
            window.progress = [];
            window.llm = await webllm.load(name, {context: 512, exact: true, onProgress: (p) => progress.push(p)});
        }""",
        "smollm2-135m-instruct",
    )
    yield page
    page.close()


def generate(page, ids, max_tokens):
    return page.evaluate("([ids, n]) => llm.generate(ids, n)", [ids, max_tokens])


def test_the_first_case_is_equal_to_its_end(page, golden):
    case = golden[CAPITAL]
    assert generate(page, case["prompt_ids"], 64) == case["greedy_ids"]


@pytest.mark.parametrize("number", [POEM, FRUITS])
def test_eight_tokens_of_the_other_cases_are_equal(page, golden, number):
    case = golden[number]
    assert generate(page, case["prompt_ids"], 8) == case["greedy_ids"][:8]


@pytest.mark.slow
@pytest.mark.parametrize("number", [POEM, FRUITS])
def test_every_token_of_the_other_cases_is_equal(page, golden, number):
    case = golden[number]
    assert generate(page, case["prompt_ids"], len(case["greedy_ids"])) == case["greedy_ids"]


def test_the_model_was_fetched_once_header_and_weights_together(page, requests_seen):
    """In pieces, each once."""
    ranges = [request.range for request in requests_seen if request.path.endswith(".gguf")]
    pieces = sorted(tuple(map(int, wanted.removeprefix("bytes=").split("-"))) for wanted in ranges)
    assert pieces[0][0] == 0 and len(pieces) > 4
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(pieces))


def test_a_stream_that_is_left_while_it_waits_does_not_end_the_running_answer(page, golden):
    case = golden[CAPITAL]
    ids = page.evaluate(
        """async ([ids, n]) => {
            const running = llm.generate(ids, n);
            const messages = [{role: "user", content: "Count to a hundred."}];
            for await (const chunk of llm.chat.completions.create({messages, stream: true})) break;
            return running;
        }""",
        [case["prompt_ids"], 64],
    )
    assert ids == case["greedy_ids"]


def test_a_stream_that_is_left_while_it_runs_lets_the_next_in(page, golden):
    """With no error on the page: pieces that come after it was left are dropped."""
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    case = golden[CAPITAL]
    ids = page.evaluate(
        """async ([ids, n]) => {
            const messages = [{role: "user", content: "Count to a hundred."}];
            for await (const chunk of llm.chat.completions.create({messages, stream: true}))
                if (chunk.choices[0].delta.content) break;
            return llm.generate(ids, n);
        }""",
        [case["prompt_ids"], 64],
    )
    assert ids == case["greedy_ids"] and errors == []


def test_the_gpu_memory_is_what_was_planned(page):
    """Within a tenth: readback buffers come on top. A context of 512 is the room that the cache has at first."""
    config = json.loads((ROOT / "tests" / "bench" / "smollm2-135m.json").read_text(encoding="utf-8"))
    checkpoint = checkpoint_from_config(config, "q4_1")  # as the file has it
    swiftshader = Limits(threads=64, workgroups=1, tiles=1)  # as `Limits.of` has it for a CPU
    planned = memory(build(checkpoint, Settings(512), swiftshader), grown=False)["total"]
    assert planned <= page.evaluate("llm.stats()")["gpu_bytes"] <= 1.1 * planned


def test_progress_counts_bytes_up_to_all_of_them(page):
    """What comes into the store, and what goes to the GPU, beside each other."""
    told = page.evaluate("progress")
    for phase in ("download", "weights"):
        progress = [p for p in told if p["phase"] == phase]
        loaded = [p["loaded"] for p in progress]
        assert loaded == sorted(loaded)
        assert progress[-1]["loaded"] == progress[-1]["total"] > 90_000_000
    assert told[-1]["tensors"] == 272


def test_a_stream_can_be_interrupted_and_says_so(page, golden):
    chunks = page.evaluate(
        """async (prompt) => {
            const chunks = [];
            const messages = [{role: "user", content: prompt}];
            for await (const chunk of llm.chat.completions.create({messages, stream: true, temperature: 0})) {
                chunks.push(chunk);
                if (chunks.length === 3) llm.interrupt();
            }
            return chunks;
        }""",
        golden[POEM]["prompt"],
    )
    assert chunks[-1]["choices"][0]["finish_reason"] == "abort"
    assert chunks[-1]["usage"]["completion_tokens"] < 8
    text = "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks)
    assert text and golden[POEM]["greedy_text"].startswith(text)


def test_a_sampled_answer_is_the_same_with_the_seed_that_it_tells(page, golden):
    """A penalty, a filter, and a bias with an id as text, which keeps the likeliest first token away."""
    answers = page.evaluate(
        """async (prompt) => {
            const options = {messages: [{role: "user", content: prompt}], max_tokens: 3, temperature: 1.8, top_p: 0.999,
                             frequency_penalty: 0.5, logit_bias: {"504": -100}, return_token_ids: true};
            const first = await llm.chat.completions.create(options);
            const again = await llm.chat.completions.create({...options, seed: first.usage.extra.seed});
            return [first, again].map(({choices, usage}) => [choices[0].token_ids, usage.extra.seed]);
        }""",
        golden[POEM]["prompt"],
    )
    assert answers[0] == answers[1]
    assert 504 == golden[POEM]["greedy_ids"][0] not in answers[0][0]


def test_a_request_that_is_refused_leaves_the_model_usable(page, golden):
    error = page.evaluate("llm.chat.completions.create({messages: []}).catch(({name, message}) => [name, message])")
    assert error[0] == "RequestError"
    error = page.evaluate("llm.generate(Array(600).fill(1), 1).catch(({name, message}) => [name, message])")
    assert error[0] == "ContextFull" and "context=" in error[1]
    case = golden[CAPITAL]
    assert generate(page, case["prompt_ids"], 2) == case["greedy_ids"][:2]


def test_after_close_the_model_says_that_it_is_closed(page):
    assert page.evaluate("llm.close().then(() => llm.generate([1], 1)).catch(({name}) => name)") == "Closed"

"""webllm-compat.js: Web LLM's calls with a real model, in a page and in workers of the page's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ROOT
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

MINUTE = 60_000
MODEL = "SmolLM2-135M-Instruct-q0f16-MLC"

# What Web LLM's README and its examples do, one after the other, with one engine.
CALLS = """async (model) => {
    const webllm = await import("/webllm-compat.js");
    const name = (promise) => promise.then(() => "nothing", (error) => error.name);
    const seen = { reports: [] };
    const engine = new webllm.MLCEngine({ initProgressCallback: (report) => seen.reports.push(report) });
    const messages = [{ role: "user", content: "What is the capital of France?" }];
    const ask = (more) => engine.chat.completions.create({ messages, temperature: 0, max_tokens: 6, ...more });
    seen.early = await name(ask());
    seen.unknown = await name(engine.reload("Llama-9-1B-MLC"));
    await webllm.deleteModelInCache(model);
    seen.cached = [await webllm.hasModelInCache(model)];
    await engine.reload(model, { context_window_size: 256 });
    seen.cached.push(await webllm.hasModelInCache(model));
    seen.reply = await ask();
    seen.chunks = [];
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await ask(options)) seen.chunks.push(chunk);
    seen.message = await engine.getMessage();
    seen.stats = await engine.runtimeStatsText();
    seen.other = await name(ask({ model: "another" }));
    seen.wrong = await name(ask({ max_tokens: 0 }));
    seen.long = await name(ask({ messages: [{ role: "user", content: "word ".repeat(400) }] }));
    seen.embedding = await name(engine.embeddings.create({ input: "Hi" }));
    const prompt = "One, two, three,";
    seen.text = await engine.completions.create({ prompt, temperature: 0, max_tokens: 4, echo: true });
    await engine.resetChat();
    seen.reset = await engine.getMessage();
    const first = await engine.forwardTokensAndSample([1, 9690, 198], true);
    seen.forwarded = [first, await engine.forwardTokensAndSample([first], false)];
    const stopped = [];
    for await (const chunk of await ask({ max_tokens: 200, stream: true, ignore_eos: true })) {
        stopped.push(chunk.choices[0].finish_reason);
        if (stopped.length === 2) engine.interruptGenerate();
    }
    seen.finish = stopped.pop();
    seen.binding = await engine.getMaxStorageBufferBindingSize();
    seen.vendor = await engine.getGPUVendor();
    seen.sessions = await engine.listResumableSessions();
    await engine.unload();
    await webllm.deleteModelAllInfoInCache(model);
    seen.cached.push(await webllm.hasModelInCache(model), await name(webllm.hasModelInCache("Llama-9-1B-MLC")));
    seen.unloaded = await name(ask());
    return seen;
}"""


def test_the_calls_of_web_llm_s_readme(page: Page, strict_url: str, golden: list[dict[str, Any]]) -> None:
    page.set_default_timeout(5 * MINUTE)
    page.goto(f"{strict_url}/compat.html")
    seen = page.evaluate(CALLS, MODEL)

    assert seen["reports"][-1]["progress"] == 1
    assert seen["reports"][-1]["text"].startswith("Finish loading on WebGPU - ")
    assert all(0 <= report["progress"] <= 1 and report["timeElapsed"] >= 0 for report in seen["reports"])
    assert (seen["early"], seen["unknown"]) == ("ModelNotLoadedError", "ModelNotFoundError")

    (choice,) = seen["reply"]["choices"]
    assert choice["message"] == {"role": "assistant", "content": "The capital of France is Paris"}
    assert (choice["finish_reason"], seen["reply"]["model"]) == ("length", MODEL)
    assert seen["reply"]["usage"]["completion_tokens"] == 6
    extra = {"e2e_latency_s", "time_to_first_token_s", "time_per_output_token_s", "prefill_tokens_per_s"}
    assert extra | {"decode_tokens_per_s"} <= seen["reply"]["usage"]["extra"].keys()

    *chunks, last = seen["chunks"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == seen["message"]
    assert seen["message"] == "The capital of France is Paris"
    assert {"usage" in chunk for chunk in chunks} == {False}
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 6)
    assert re.fullmatch(r"prefill: \d+\.\d+ tokens/sec, decoding: \d+\.\d+ tokens/sec", seen["stats"])

    assert seen["other"] == "SpecifiedModelNotFoundError"
    assert seen["wrong"] == "MinValueError"
    assert seen["long"] == "ContextWindowSizeExceededError"
    assert seen["embedding"] == "EmbeddingUnsupportedModelError"
    assert seen["text"]["object"] == "text_completion"
    assert seen["text"]["choices"][0]["text"].startswith("One, two, three, four")
    assert seen["reset"] == ""
    assert len(set(seen["forwarded"])) == 2 and all(isinstance(token, int) for token in seen["forwarded"])
    assert seen["finish"] == "abort"
    assert seen["binding"] >= 128 << 20 and isinstance(seen["vendor"], str)
    assert seen["sessions"] == []
    assert seen["cached"] == [False, True, False, "ModelNotFoundError"]
    assert seen["unloaded"] == "ModelNotLoadedError"


def test_the_compat_page_chats_through_an_engine_of_a_web_worker(page: Page, strict_url: str) -> None:
    page.goto(f"{strict_url}/compat.html")
    page.get_by_label("Engine").select_option("CreateWebWorkerMLCEngine")
    page.get_by_role("button", name="Load").click()
    expect(page.locator("body")).to_have_attribute("data-state", "ready", timeout=3 * MINUTE)
    expect(page.get_by_role("status")).to_contain_text("Finish loading on WebGPU")
    page.get_by_role("textbox", name="Message").fill("What is the capital of France?")
    page.get_by_label("max_tokens").fill("6")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_have_text("The capital of France is Paris", timeout=MINUTE)
    expect(page.locator("#usage")).to_contain_text('"completion_tokens": 6')
    expect(page.get_by_role("status")).to_contain_text("decoding")
    page.get_by_role("button", name="Reset chat").click()
    expect(page.locator("#answer")).to_be_empty()


@pytest.mark.browser_context_args(service_workers="allow")
def test_the_handlers_of_a_page_s_own_workers_start(page: Page, own_site: Path) -> None:
    """Their engine and handler are imported in a worker and in a service worker, where much of a page is missing."""
    (own_site / "own.js").write_text(
        'import { MLCEngine, WebWorkerMLCEngineHandler } from "./webllm-compat.js";\n'
        "const handler = new WebWorkerMLCEngineHandler();\n"
        "self.onmessage = (message) => handler.onmessage(message);\n"
        "new MLCEngine().getMessage().catch(({ name }) => postMessage(name));\n"
    )
    (own_site / "own-sw.js").write_text(
        'import { ServiceWorkerMLCEngineHandler } from "./webllm-compat.js";\nnew ServiceWorkerMLCEngineHandler();\n'
    )
    start = """async () => {
        const worker = new Worker("own.js", { type: "module" });
        const said = await new Promise((resolve, reject) => {
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = reject;
        });
        await navigator.serviceWorker.register("own-sw.js", { type: "module" });
        return [said, (await navigator.serviceWorker.ready).active !== null];
    }"""
    with serve_in_thread(own_site) as server:
        page.goto(f"{server.url}/compat.html")
        assert page.evaluate(start) == ["ModelNotLoadedError", True]
        page.goto("about:blank")


def test_the_example_of_the_docs_runs_as_it_stands_there(page: Page, own_site: Path) -> None:
    text = (ROOT / "docs" / "from-web-llm.md").read_text(encoding="utf-8")
    example = text[text.index("```js\n") + 6 :]
    (own_site / "example.js").write_text(example[: example.index("```")])
    with serve_in_thread(own_site) as server:
        page.goto(f"{server.url}/compat.html")
        with page.expect_console_message(lambda message: message.text.startswith("Hello"), timeout=3 * MINUTE):
            page.evaluate("import('/example.js')")
        page.goto("about:blank")


# Over the stand-in for webllm.js: what needs no real model.
SEVERAL = """async () => {
    const webllm = await import("/modules/webllm-compat.js");
    const name = (promise) => promise.then(() => "nothing", (error) => error.name);
    const mine = (model_id, more) => ({ model: `models/${model_id}.gguf`, model_id, model_lib: "", ...more });
    const model_list = [
        mine("a"), mine("b", { overrides: { context_window_size: 512 } }), mine("c", { integrity: {} }),
        { ...mine("Llama-9-MLC"), model: "https://huggingface.co/mlc-ai/Llama-9-MLC" },
        { ...mine("SmolLM2-135M-Instruct-q0f16-MLC"), model: "https://huggingface.co/mlc-ai/SmolLM2" },
    ];
    const engine = new webllm.MLCEngine({ appConfig: { model_list } });
    const messages = [{ role: "user", content: "Hi" }];
    const ask = (model) => engine.chat.completions.create({ messages, model, stream: true });
    const errors = [
        await name(engine.reload(["a", "a"])), await name(engine.reload(["a", "b"], [{}])),
        await name(engine.reload("c")), await name(engine.reload("Llama-9-MLC")),
        await name(engine.reload("a", { conv_template: {} })),
    ];
    await engine.reload(["a", "b", "SmolLM2-135M-Instruct-q0f16-MLC", "tiny"], [{ temperature: 0.5 }, {}, {}, {}]);
    errors.push(await name(ask()), await name(ask("c")));
    for await (const chunk of await ask("a"));
    const said = [await engine.getMessage("a"), await engine.getMessage("b")];
    errors.push(await name(engine.reload(["a", "a"]))); // and the models are there still
    for await (const chunk of await ask("b"));
    await engine.unload();
    window.fake.loading = true;
    const loading = engine.reload("a");
    await new Promise((resolve) => setTimeout(resolve, 50));
    await engine.unload();
    errors.push(await name(loading));
    return { errors, said, loads: window.loads, closes: window.closes, requests: window.requests };
}"""


def test_several_models_and_records_of_the_page(page: Page, open_page: Callable[..., Page]) -> None:
    """Over the fake in place of what the bundle would hold."""
    fake = {"body": 'export { listModels, load } from "/webllm.js";', "content_type": "text/javascript"}
    for name in ("model", "locate"):
        page.route(f"**/modules/{name}.js", lambda route: route.fulfill(**fake))
    seen = open_page("compat.html").evaluate(SEVERAL)
    assert seen["errors"] == [
        *("ReloadModelIdNotUniqueError", "ReloadArgumentSizeUnmatchedError", "UnsupportedFieldsError"),
        *("ModelNotFoundError", "UnsupportedFieldsError"),
        *("UnclearModelToUseError", "SpecifiedModelNotFoundError"),
        *("ReloadModelIdNotUniqueError", "nothing"),
    ]
    assert seen["said"] == ["Hello, world", ""]
    assert seen["loads"] == ["models/a.gguf", "models/b.gguf", "smollm2-135m-instruct", "tiny", "models/a.gguf"]
    assert seen["closes"] == 4
    assert [request.get("temperature") for request in seen["requests"]] == [0.5, None]

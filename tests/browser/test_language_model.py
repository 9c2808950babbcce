"""webllm.LanguageModel: the calls of Chrome's Prompt API, over the default model's template and a short context."""

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(browser, url):
    """A page with the API and a `session`; the model has a context of 256 tokens."""
    page = browser.new_page()
    page.goto(f"{url}/?model=")
    page.evaluate(
        """async () => {
            window.before = window.LanguageModel;
            webllm.useModel("smollm2-135m-instruct", { context: 256, exact: true });
            webllm.installLanguageModel();
            window.availability = [await LanguageModel.availability()];
            window.progress = [];
            const created = LanguageModel.create({
                initialPrompts: [{ role: "system", content: "You are terse." }],
                expectedInputs: [{ type: "text", languages: ["en"] }],
                temperature: 0,
                monitor: (m) => m.addEventListener("downloadprogress", (e) => progress.push([e.loaded, e.total])),
            });
            availability.push(await LanguageModel.availability());
            window.session = await created;
            availability.push(await LanguageModel.availability());
        }"""
    )
    yield page
    page.close()


def test_the_page_alone_decides_whether_the_name_is_global(page):
    assert page.evaluate("LanguageModel === webllm.LanguageModel && LanguageModel !== before")
    refused = "try { new LanguageModel() } catch ({ name }) { name }"
    assert page.evaluate(refused) == "TypeError"


def test_availability_and_download_are_told(page):
    assert page.evaluate("availability") == ["downloadable", "downloading", "available"]
    progress = page.evaluate("progress")
    assert progress[0] == [0, 1] and progress[-1] == [1, 1] and progress == sorted(progress)
    assert page.evaluate("LanguageModel.availability({ expectedInputs: [{ type: 'image' }] })") == "unavailable"


def test_a_session_answers_whole_and_streamed_and_its_clone_goes_on_by_itself(page):
    got = page.evaluate(
        """async () => {
            const usage = session.contextUsage;
            const measured = await session.measureContextUsage("What is the capital of France?");
            const clone = await session.clone();
            const answer = await session.prompt("What is the capital of France?");
            let streamed = "", pieces = 0;
            for await (const piece of clone.promptStreaming([{ role: "user", content: [
                { type: "text", value: "What is the capital of France?" }] }])) { streamed += piece; pieces++; }
            const { contextUsage: after, contextWindow: quota } = session;
            return { usage, measured, answer, streamed, pieces, after, quota };
        }"""
    )
    assert "Paris" in got["answer"] and got["streamed"] == got["answer"] and got["pieces"] > 1
    assert 0 < got["usage"] < got["usage"] + got["measured"] < got["after"] < got["quota"] == 256


def test_append_adds_to_the_conversation(page):
    appended = """async () => {
        const clone = await session.clone(), before = clone.contextUsage;
        const said = { role: "user", content: "My name is Ada." };
        await clone.append([said, { role: "assistant", content: "Hello, Ada." }]);
        return clone.contextUsage - before;
    }"""
    assert page.evaluate(appended) > 10


def test_a_conversation_that_is_too_long_forgets_its_oldest_and_a_prompt_that_is_says_so(page):
    got = page.evaluate(
        """async () => {
            const s = await LanguageModel.create({ initialPrompts: [{ role: "system", content: "Short." }] });
            let overflows = 0;
            s.addEventListener("contextoverflow", () => overflows++);
            const content = "word ".repeat(30);
            for (let i = 0; i < 6; i++) await s.append([{ role: "user", content }, { role: "assistant", content }]);
            const told = ({ name, requested, quota }) => [name, requested, quota];
            return { overflows, usage: s.contextUsage, long: await s.prompt("word ".repeat(400)).catch(told) };
        }"""
    )
    assert got["overflows"] > 0 and got["usage"] <= 256
    name, requested, quota = got["long"]
    assert name == "QuotaExceededError" and requested > quota == 256


def test_what_is_left_out_says_so_by_name(page):
    names = page.evaluate(
        """() => Promise.all([
            session.prompt("Hi", { responseConstraint: { type: "object" } }),
            session.prompt([{ role: "user", content: [{ type: "image", value: null }] }]),
            session.prompt([{ role: "system", content: "late" }]),
            session.prompt([{ role: "assistant", content: "{", prefix: true }]),
            LanguageModel.create({ expectedInputs: [{ type: "audio" }] }),
            LanguageModel.create({ tools: [{ name: "f" }] }),
            session.prompt("Hi", { signal: AbortSignal.abort() }),
        ].map((asked) => asked.then(() => "answered", ({ name }) => name)))"""
    )
    assert names == ["NotSupportedError"] * 6 + ["AbortError"]


def test_a_signal_a_left_stream_and_destroy_end_answers_and_no_others(page):
    got = page.evaluate(
        """async () => {
            const clone = await session.clone(), aborter = new AbortController();
            const asked = clone.prompt("Count to a hundred.", { signal: aborter.signal }).catch(({ name }) => name);
            setTimeout(() => aborter.abort(), 200);
            const aborted = await asked;
            for await (const piece of clone.promptStreaming("Count to a hundred.")) break;
            const running = clone.prompt("Count to a hundred.").catch(({ name }) => name);
            setTimeout(() => clone.destroy(), 200);
            const destroyed = await running;
            const after = await clone.prompt("Hi").catch(({ name }) => name);
            const reader = session.promptStreaming("Say yes.").getReader();
            const { value } = await reader.read();
            await reader.cancel();
            return [aborted, destroyed, after, value.length > 0];
        }"""
    )
    assert got == ["AbortError", "AbortError", "AbortError", True]

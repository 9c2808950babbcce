"""One model for all tabs of a site: a SharedWorker, driven from two tabs, with a small model."""

import os
import shutil

import pytest

from tests.models.reference import Shape, forward, random_model, write_gguf
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

CONTEXT = 100_000  # an answer that fills it takes an hour here
MODEL = random_model(Shape(layers=1, context=CONTEXT))
IDS = [i * 37 % 301 for i in range(20)]
LOAD = """async (shared) => {
    window.phases = [];
    const onProgress = ({ phase }) => phases.push(phase);
    const options = { shared, context: 100_000, kv: "f32", exact: true, onProgress };
    window.llm = await webllm.load("models/tiny.gguf", options);
    return llm.info.shared;
}"""
LONG = """ids => { for (const prompt of [ids, ids.slice(1)]) llm.generate(prompt, 90_000).catch(() => {}); }"""
SOON = """ids => {
    const late = new Promise((resolve) => setTimeout(resolve, 60_000, ["it waits"]));
    return Promise.race([llm.generate(ids, 4), late]);
}"""


@pytest.fixture(scope="module")
def asked():
    """Requests that the server got."""
    return []


@pytest.fixture(scope="module")
def server(site, tmp_path_factory, asked):
    own = shutil.copytree(site, tmp_path_factory.mktemp("shared") / "site", copy_function=os.link)
    write_gguf(MODEL, own / "models" / "tiny.gguf")
    (own / "plain.html").write_text('<!doctype html><script type="module" src="webllm.js"></script>')
    with serve_in_thread(own, on_request=asked.append) as server:
        yield server


@pytest.fixture
def tabs(browser, server):
    """Two tabs of one visitor, and a function that opens more; nothing may go wrong in any."""
    context, wrong = browser.new_context(), []

    def open_tab():
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(error.message))
        page.goto(f"{server.url}/plain.html")
        return page

    yield open_tab
    context.close()
    assert wrong == []


def workers(page):
    session = page.context.browser.new_browser_cdp_session()
    targets = session.send("Target.getTargets")["targetInfos"]
    return sum(target["type"] == "shared_worker" for target in targets)


def generate(page, count=4):
    return page.evaluate("([ids, count]) => llm.generate(ids, count)", [IDS, count])


def best():
    return int(forward(MODEL, IDS)[-1].argmax())


def test_two_tabs_use_one_model_and_each_gets_its_own_answers(tabs, asked):
    first, second = tabs(), tabs()
    before = len(asked)
    first.evaluate("load => { window.loading = eval(load)(true); }", LOAD)  # both load at once
    assert second.evaluate(LOAD, True) is True
    assert first.evaluate("loading") is True
    fetched = [request for request in asked[before:] if request.path.endswith("tiny.gguf")]
    assert len(fetched) == 1 and workers(first) == 1
    assert "weights" in first.evaluate("phases") and "weights" in second.evaluate("phases")
    whole = generate(second, 60)
    assert whole[0] == best()
    first.evaluate("ids => { window.long = llm.generate(ids, 60); }", IDS)
    second.evaluate("llm.interrupt()")  # it has nothing to end
    assert generate(second, 5) == whole[:5]  # in its turn
    assert first.evaluate("long") == whole


@pytest.mark.parametrize(
    "how", ["closed", pytest.param("left", marks=pytest.mark.slow), pytest.param("let go", marks=pytest.mark.slow)]
)
def test_a_tab_that_goes_ends_its_own_requests_only_and_the_model_stays_for_the_other(tabs, how):
    first, second = tabs(), tabs()
    first.evaluate(LOAD, True)
    second.evaluate(LOAD, True)
    first.evaluate(LONG, IDS)  # one answer begins and one waits
    if how == "closed":
        first.close()
    elif how == "left":
        first.goto("about:blank")
    else:
        first.evaluate("llm.close()")
    assert second.evaluate(SOON, IDS)[0] == best()


def test_the_model_goes_with_the_last_tab_and_can_be_loaded_again(tabs):
    first, second = tabs(), tabs()
    first.evaluate(LOAD, True)
    second.evaluate(LOAD, True)
    first.evaluate("llm.close()")
    second.evaluate("llm.close()")
    assert second.evaluate("llm.generate([1], 1).catch(({ name }) => name)") == "Closed"
    second.evaluate(LOAD, True)
    assert "weights" in second.evaluate("phases")  # it was loaded anew
    assert generate(second)[0] == best()


@pytest.mark.slow
def test_a_load_that_one_tab_gives_up_goes_on_for_the_other(tabs):
    first, second = tabs(), tabs()
    first.evaluate(
        """() => {
            window.aborter = new AbortController();
            const options = { shared: true, kv: "f32", exact: true, signal: aborter.signal };
            window.loading = webllm.load("models/tiny.gguf", options).catch(({ name }) => name);
        }"""
    )
    second.evaluate("load => { window.loading = eval(load)(true); }", LOAD)
    first.evaluate("setTimeout(() => aborter.abort(), 300)")
    assert first.evaluate("loading") == "AbortError"
    assert second.evaluate("loading") is True and generate(second)[0] == best()


@pytest.mark.slow
def test_a_failed_load_is_told_to_every_tab_and_may_be_tried_again(tabs, server):
    first, second = tabs(), tabs()
    load = """() => webllm.load("models/late.gguf", { shared: true, exact: true }).then(() => 0, ({ name }) => name)"""
    assert [tab.evaluate(load) for tab in (first, second)] == ["ModelNotFound", "ModelNotFound"]
    write_gguf(MODEL, server.folder / "models" / "late.gguf")
    assert second.evaluate(load) == 0


def test_where_a_shared_worker_has_no_webgpu_a_page_has_its_own(tabs, server):
    """As Firefox was; other browsers have no SharedWorker at all."""
    worker = server.folder / "worker.js"
    text = worker.read_text(encoding="utf-8")
    worker.unlink()  # it is a link to the site's
    worker.write_text(f'if ("SharedWorkerGlobalScope" in self) Object.defineProperty(navigator, "gpu", {{}});\n{text}')
    page = tabs()
    assert page.evaluate(LOAD, True) is False
    worker.write_text(text)
    assert generate(page)[0] == best()


@pytest.mark.slow
@pytest.mark.parametrize(
    "without", ["delete window.SharedWorker", "Object.defineProperty(navigator, 'locks', { value: undefined })"]
)
def test_where_tabs_cannot_share_a_page_has_its_own(tabs, without):
    page = tabs()
    page.evaluate("without => { eval(without); }", without)
    assert page.evaluate(LOAD, True) is False
    assert generate(page)[0] == best()

"""webllm.sync in the browser: Python waits for JavaScript where the browser can suspend it."""

import pytest

pytestmark = pytest.mark.browser

START = """async () => {
    const { loadPyodide } = await import("./modules/pyodide.mjs");
    const { wheels } = await (await fetch("site.json")).json();
    window.python = await loadPyodide({ indexURL: new URL("pyodide/", location.href).href });
    for (const wheel of wheels)
        python.unpackArchive(await (await fetch(`wheels/${wheel}`)).arrayBuffer(), "wheel");
    python.runPython(`
import asyncio, webllm.sync
from webllm.errors import RequestError

async def count(to):
    for i in range(to):
        await asyncio.sleep(0.001)
        yield i

class Counter:
    async def sum(self, to):
        return sum([i async for i in count(to)])
    def count(self, to):
        return count(to)

def run():
    model = webllm.sync.LLM(Counter())
    return [model.sum(4), *model.count(3)]
`);
}"""


@pytest.fixture(scope="module")
def python(browser, url):
    """A page with Python in the page itself and a model that counts."""
    page = browser.new_page()
    page.goto(f"{url}/bench.html")
    page.evaluate(START)
    yield page
    page.close()


def test_calls_block_where_the_browser_can_suspend_python(python):
    assert python.evaluate("async () => (await python.runPythonAsync('run()')).toJs()") == [6, 0, 1, 2]


def test_elsewhere_a_call_says_what_it_needs(python):
    code = "try: run()\nexcept RequestError as error: said = str(error)\nsaid"
    assert "JavaScript Promise Integration" in python.evaluate("(code) => python.runPython(code)", code)

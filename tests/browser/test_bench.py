"""bench.html: the same JSON as `webllm bench`, and what loading takes from navigation on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.models.test_bench import CONFIG, DECODE, KEYS, RESULT
from webllm.static_server import serve_in_thread

pytestmark = pytest.mark.browser

MINUTE = 60_000
MODEL = """
export const bench = null;
const startup = { fetch_s: 0.125, pyodide_s: 0.25, import_s: 0.0625, adapter_s: 0.5 };
export async function load(model) {
  const info = { model, adapter: {}, versions: {}, load_s: 0.5, startup };
  async function* create() { yield { choices: [{ delta: { content: "Hi" } }] }; }
  return { info, chat: { completions: { create } }, stats: async () => ({ load: { weights: 0.25 } }), close() {} };
}
"""


def shown(page: Page, address: str) -> dict[str, Any]:
    page.goto(address)
    expect(page.locator("body")).not_to_have_attribute("data-state", "loading", timeout=3 * MINUTE)
    assert page.locator("#status").inner_text() == "done"
    result: dict[str, Any] = json.loads(page.locator("#result").inner_text())
    return result


@pytest.fixture(scope="module")
def measured(browser: Any, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Of one layer, whose prefill needs its K and V only: SwiftShader takes seconds for a tiled kernel."""
    folder = Path(shutil.copytree(site, tmp_path_factory.mktemp("bench") / "site", copy_function=os.link))
    (folder / "tiny.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 1}))
    page = browser.new_page()
    with serve_in_thread(folder) as server:
        yield shown(page, f"{server.url}/bench.html?config=tiny.json&prompt=40&decode=4&at=16&repeats=2")
    page.close()


def test_the_json_has_the_keys_of_the_command_line(measured: dict[str, Any]) -> None:
    assert set(measured) == KEYS | {"model", "quant", "longest_task_ms"}
    assert measured["longest_task_ms"] >= 0
    prefill, decode = measured["results"]
    assert set(prefill) == RESULT and set(decode) == RESULT | DECODE
    versions = measured["versions"]
    assert all(versions[name] for name in ("webllm", "python", "platform", "pyodide"))
    assert versions["wgpu"] is None and "Chrome/" in versions["browser"]


def test_gpu_time_is_told_by_part_and_by_kernel(measured: dict[str, Any]) -> None:
    """SwiftShader has timestamps. Chromium rounds them, so a short pass may take no time."""
    for phase in measured["results"]:
        assert 0 < phase["gpu_ms"] < max(phase["runs_s"]) * 1e3 * 2
        parts, kernels = phase["gpu_ms_by_part"], phase["gpu_ms_by_kernel"]
        assert {"qkv", "attention", "LM head"} <= set(parts) and {"matvec", "rope_cache"} & set(kernels)
        assert sum(parts.values()) == pytest.approx(sum(kernels.values())) and min(parts.values()) >= 0


def test_gpu_memory_is_what_was_planned(measured: dict[str, Any]) -> None:
    """Within a tenth: readback buffers come on top."""
    planned = measured["memory"]["total"]
    assert planned <= measured["peak_gpu_bytes"] <= 1.1 * planned


def test_loads_are_measured_from_a_navigation_each(page: Page, url: str) -> None:
    """Over a model that takes no time."""
    page.route("**/webllm.js", lambda route: route.fulfill(body=MODEL, content_type="text/javascript"))
    result = shown(page, f"{url}/bench.html?load=tiny&repeats=3")
    assert result["model"] == "tiny" and len(result["runs"]) == 3
    for run in result["runs"]:
        s = run["s"]
        assert [s[part] for part in ("fetch", "pyodide", "import", "adapter")] == [0.125, 0.25, 0.0625, 0.5]
        assert (s["weights"], s["load"]) == (0.25, 0.5)
        assert 0 < s["html"] <= s["page"] <= s["loaded"] <= s["total"] < 60
        assert run["longest_task_ms"] >= 0
        assert s["total"] == pytest.approx(s["loaded"] + s["first_token"])


@pytest.mark.slow
def test_the_parts_of_a_load_are_told(page: Page, url: str) -> None:
    [run] = shown(page, f"{url}/bench.html?load=smollm2-135m-instruct&repeats=1")["runs"]
    s = run["s"]
    assert {"html", "page", "fetch", "pyodide", "import", "adapter"} <= set(s)
    assert {"header", "device", "selftest", "program", "weights", "pipelines", "bindings"} <= set(s)
    assert min(s.values()) >= 0
    assert s["page"] + s["pyodide"] + s["import"] <= s["loaded"] < s["total"]
    assert s["weights"] + s["pipelines"] <= s["load"] <= s["loaded"]

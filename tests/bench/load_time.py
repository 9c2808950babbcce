"""Where the time of loading a model goes: one JSON line, from fresh processes, natively or in the page.

    python tests/bench/load_time.py --repeats 5
    python tests/bench/load_time.py --repeats 5 --page build/site

The page is a folder that `webllm site` wrote; Chromium runs as in the demo, with `--gpu` on this machine's GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

NATIVE = """
import asyncio, json, sys, time
started = time.perf_counter()
import webllm
imported = time.perf_counter() - started

async def main():
    async with await webllm.load(sys.argv[1]) as llm:
        stats = llm.stats()
        print(json.dumps({"device": stats["adapter"], "s": {"import": imported, **stats["load"], "load": llm.load_s}}))

asyncio.run(main())
"""
PAGE = """async (model) => {
    const llm = await webllm.load(model);
    const { load, load_s, adapter } = await llm.stats();
    const { python_s, total_s } = llm.info.startup;
    return { device: adapter, s: { python: python_s, ...load, load: load_s, total: total_s } };
}"""


def once_native(model: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", NATIVE, model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def once_page(model: str, address: str, gpu: bool) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    from webllm.demo import browser_flags, find_browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=browser_flags(gpu=gpu))
        page = browser.new_page()
        page.goto(f"{address}/?model=")
        result: dict[str, Any] = page.evaluate(PAGE, model)
        result["browser"] = browser.version
        browser.close()
    return result


def summary(runs: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """Medians and interquartile ranges, in seconds."""

    def spread(values: list[float]) -> list[float]:
        low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
        return [round(median(values), 4), round(high - low, 4)]

    versions = {name: version(name) for name in ("webllm", "wgpu")} | {"python": platform.python_version()}
    return {
        "where": where,
        "device": runs[0]["device"],
        "browser": runs[0].get("browser"),
        "versions": versions,
        "repeats": len(runs),
        "median_and_iqr_s": {part: spread([run["s"][part] for run in runs]) for part in runs[0]["s"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    if options.page is None:
        runs = [once_native(options.model) for _ in range(options.repeats)]
    else:
        from webllm.static_server import serve_in_thread

        with serve_in_thread(options.page) as server:
            runs = [once_page(options.model, server.url, options.gpu) for _ in range(options.repeats)]
    print(json.dumps(summary(runs, "native" if options.page is None else "page")))


if __name__ == "__main__":
    main()

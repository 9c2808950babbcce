"""Where the time from start to the first token goes: one JSON line a kind of load, natively or in the page.

    python tests/bench/load_time.py --repeats 5
    python tests/bench/load_time.py --repeats 5 --page build/site
    python tests/bench/load_time.py --from results.jsonl

Natively every run is a fresh process. In the page every run is a browser with a fresh profile that navigates twice: the
first navigation finds nothing in its cache, the next one what the first left; `model_status` is 304 where the file was
there. The page is a folder that `webllm site` wrote; Chromium runs as in the demo, with `--gpu` on this machine's GPU.
`--from` reads what `bench.html?load=MODEL&repeats=6` showed in any browser, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

NATIVE = """
import time
started = time.perf_counter()
import asyncio, json, sys
import webllm
imported = time.perf_counter() - started

async def main():
    async with await webllm.load(sys.argv[1]) as llm:
        loaded = time.perf_counter() - started
        await llm.chat.completions.create([{"role": "user", "content": "Hello"}], max_tokens=1, temperature=0)
        total = time.perf_counter() - started
        stats = llm.stats()
        s = {"import": imported, **stats["load"], "load": llm.load_s}
        s |= {"loaded": loaded, "first_token": total - loaded, "total": total}
        print(json.dumps({"adapter": stats["adapter"], "s": s}))

asyncio.run(main())
"""
SECONDS = 600


def native(model: str, repeats: int) -> list[dict[str, Any]]:
    """One line: loads in fresh processes."""
    command = [sys.executable, "-W", "ignore", "-c", NATIVE, model]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(repeats)
    ]
    versions = {name: version(name) for name in ("webllm", "wgpu")} | {"python": platform.python_version()}
    return [{"load": "native", "model": model, "adapter": runs[0]["adapter"], "versions": versions, **summary(runs)}]


def in_page(model: str, folder: Path, gpu: bool) -> dict[str, Any]:
    """What the page shows after two navigations in a browser with a fresh profile."""
    from playwright.sync_api import sync_playwright

    from webllm.demo import browser_flags, find_browser
    from webllm.static_server import Request, serve_in_thread

    seen: list[Request] = []
    with (
        serve_in_thread(folder, on_request=seen.append) as server,
        sync_playwright() as playwright,
        TemporaryDirectory(prefix="webllm-load-", ignore_cleanup_errors=True) as profile,
    ):
        # A profile on disk: windows without one keep no large file.
        flags, program = browser_flags(gpu=gpu), find_browser()
        browser = playwright.chromium.launch_persistent_context(profile, executable_path=program, args=flags)
        page = browser.new_page()
        page.goto(f"{server.url}/bench.html?load={model}&repeats=2")
        page.locator("body:not([data-state=loading])").wait_for(timeout=SECONDS * 1000)
        shown, status = page.locator("#result").inner_text(), page.locator("#status").inner_text()
        browser.close()
    if not shown:
        raise RuntimeError(status)
    result: dict[str, Any] = json.loads(shown)
    answers = [request.status for request in seen if request.path.endswith(".gguf")]
    for run, answer in zip(result["runs"], answers, strict=False):
        run["model_status"] = answer
    return result


def lines(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two lines out of what pages showed: first navigations, and those that came after one."""
    told = {name: results[0][name] for name in ("model", "adapter", "versions")}
    first = [result["runs"][0] for result in results]
    again = [run for result in results for run in result["runs"][1:]]
    kinds = (("first navigation", first), ("next navigation", again))
    return [{"load": kind, **told, **summary(runs)} for kind, runs in kinds if runs]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and interquartile ranges, in seconds."""

    def spread(values: list[float]) -> list[float]:
        low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
        return [round(median(values), 4), round(high - low, 4)]

    status = {"model_status": runs[0]["model_status"]} if "model_status" in runs[0] else {}
    parts = {part: spread([run["s"].get(part, 0.0) for run in runs]) for part in runs[0]["s"]}
    return {"repeats": len(runs), **status, "median_and_iqr_s": parts}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=5)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--page", type=Path)
    where.add_argument("--from", type=Path, dest="shown")
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args(arguments)
    if options.shown is not None:
        told = lines([json.loads(line) for line in options.shown.read_text(encoding="utf-8").splitlines() if line])
    elif options.page is not None:
        told = lines([in_page(options.model, options.page, options.gpu) for _ in range(options.repeats)])
    else:
        told = native(options.model, options.repeats)
    for line in told:
        print(json.dumps(line))


if __name__ == "__main__":
    main()

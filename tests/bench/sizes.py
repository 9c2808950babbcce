"""What a visitor downloads before the model: one JSON line, bytes of each file as it is, gzipped and in brotli.

    python tests/bench/sizes.py build/site

The files are those that the chat page asks for in Chromium, in that order, until Python runs; without the service
worker, which fetches again what the browser's own cache does not have. gzip at level 9, brotli at 11, as a server has
that packs files beforehand; what is packed already is sent as it is. Needs Node.js, for brotli.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from webllm.demo import browser_flags, find_browser
from webllm.static_server import Request, serve_in_thread

BROTLI = """
const { brotliCompressSync } = require("node:zlib"), { readFileSync } = require("node:fs");
console.log(JSON.stringify(process.argv.slice(1).map((path) => brotliCompressSync(readFileSync(path)).length)));
"""
KINDS = ("raw", "gzip", "brotli")


def asked_for(site: Path) -> list[str]:
    """The paths that were asked for, below the site, each once."""
    seen: list[Request] = []
    with serve_in_thread(site, on_request=seen.append) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=browser_flags(gpu=False))
        page = browser.new_context(service_workers="block").new_page()
        page.goto(f"{server.url}/?model=none.gguf")
        page.locator("body[data-state=error]").wait_for()
        page.evaluate("webllm.doctor({ only: ['no such kernel'] })")
        browser.close()
    paths = (request.path.partition("?")[0].lstrip("/") or "index.html" for request in seen if request.status == 200)
    return list(dict.fromkeys(paths))


def sizes(site: Path, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """name -> its bytes, and in all under "total"."""
    paths = [str(site / name) for name in names]
    brotli = json.loads(subprocess.run(["node", "-e", BROTLI, *paths], capture_output=True, check=True).stdout)
    result = {}
    for name, packed in zip(names, brotli, strict=True):
        content = (site / name).read_bytes()
        sent = [len(content), len(gzip.compress(content, 9)), packed]
        result[name] = dict(zip(KINDS, (min(size, sent[0]) for size in sent), strict=True))
    return result | {"total": {kind: sum(size[kind] for size in result.values()) for kind in KINDS}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    site = parser.parse_args(arguments).site
    print(json.dumps(sizes(site, asked_for(site))))


if __name__ == "__main__":
    main()

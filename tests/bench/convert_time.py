"""How long a converted folder takes to load beside its source: python -m tests.bench.convert_time [CONFIG.json]

Made of random halves, of the shapes of a config.json; the file cache is warm.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import webllm
from webllm.convert import convert
from webllm.synthetic import checkpoint_from_config


def write(config: Path, folder: Path) -> None:
    """A folder of random weights in F16."""
    shapes = {
        name: tensor.shape for name, tensor in checkpoint_from_config(json.loads(config.read_text())).tensors.items()
    }
    rng = np.random.default_rng(1)
    numbers = {
        name: (0.02 * rng.standard_normal(shape, np.float32)).astype(np.float16) for name, shape in shapes.items()
    }
    save_file(numbers, folder / "model.safetensors")
    (folder / "config.json").write_bytes(config.read_bytes())


async def seconds(folder: Path, **options: str) -> tuple[float, float]:
    """The least of three loads: the whole, and what the weights took of it."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        async with await webllm.load(folder, **options) as llm:
            times.append((time.perf_counter() - started, llm.stats()["load"]["weights"]))
    return min(times)


async def main(config: Path) -> None:
    """Print a line each."""
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / "source", Path(work) / "out"
        source.mkdir()
        write(config, source)
        started = time.perf_counter()
        await convert(source, out)
        print(f"converted in {time.perf_counter() - started:.1f} s")
        for name, folder, options in (
            ("source", source, {}),
            ("source, quant=q4_sym", source, {"quant": "q4_sym"}),
            ("converted", out, {}),
        ):
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            whole, weights = await seconds(folder, **options)
            print(f"{name:22} {size:7.1f} MB  load {whole:6.2f} s, of that weights {weights:6.2f} s", flush=True)


asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/bench/smollm2-135m.json")))

"""Memory that loading a folder of safetensors takes: makes one, loads it, and prints one JSON line. Linux only.

    python -m tests.bench.load_memory --gigabytes 1.1 --quant q4

`python_heap`: the most that Python had allocated at a time. `anonymous`: the most memory of the process's own; where a
CPU plays GPU, the model's buffers (`gpu_bytes`) are among it. `file`: the most pages of files, the checkpoint's and of
libraries, that the process held. `resident`: the most of all together. `before`: the same when the device was open and
nothing loaded. Bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

import webllm

CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
LAYER = {
    "input_layernorm": (2048,),
    "post_attention_layernorm": (2048,),
    "self_attn.q_proj": (2048, 2048),
    "self_attn.k_proj": (256, 2048),
    "self_attn.v_proj": (256, 2048),
    "self_attn.o_proj": (2048, 2048),
    "mlp.gate_proj": (5632, 2048),
    "mlp.up_proj": (5632, 2048),
    "mlp.down_proj": (2048, 5632),
}
OUTER = {"model.embed_tokens.weight": (32000, 2048), "model.norm.weight": (2048,)}


def write(folder: Path, nbytes: int) -> Path:
    """A Llama in float16 with as many layers as make about so many bytes, written piece by piece."""
    size = 2 * sum(int(np.prod(shape)) for shape in LAYER.values())
    layers = max(1, round((nbytes - 2 * 32001 * 2048) / size))
    shapes = dict(OUTER)
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in LAYER.items()}
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    block = (np.random.default_rng(1).standard_normal(1 << 20) * 0.02).astype(np.float16).tobytes()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, at, len(block)):
            file.write(block[: at - start])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}), encoding="utf-8")
    return folder


def memory() -> dict[str, int]:
    """What the process holds now, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {
        key: int(value.split()[0]) << 10 for key, _, value in (line.partition(":") for line in lines) if "Rss" in key
    }
    return {"anonymous": found["RssAnon"], "file": found["RssFile"], "resident": sum(found.values())}


class Watch:
    """The most of each kind of memory, seen from another thread."""

    def __init__(self) -> None:
        self.most = memory()
        self._on = True
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while self._on:
            self.most = {kind: max(size, self.most[kind]) for kind, size in memory().items()}
            time.sleep(0.01)

    def stop(self) -> dict[str, int]:
        self._on = False
        self._thread.join()
        return self.most


async def measure(folder: Path, quant: str | None) -> dict[str, Any]:
    before: dict[str, int] = {}

    def note(event: dict[str, Any]) -> None:
        if event["phase"] == "memory":
            before.update(memory())

    tracemalloc.start()
    watch = Watch()
    try:
        async with await webllm.load(folder, quant=quant, context=512, on_progress=note) as llm:
            most, heap, stats = watch.stop(), tracemalloc.get_traced_memory()[1], llm.stats()
    finally:
        watch.stop()
    return {
        "file_bytes": (folder / "model.safetensors").stat().st_size,
        "quant": quant,
        "load_s": stats["load_s"],
        "python_heap": heap,
        **most,
        "before": before,
        "gpu_bytes": stats["gpu_bytes"],
        "adapter": stats["adapter"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.1)
    parser.add_argument("--quant", default="q4")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = write(Path(folder), int(given.gigabytes * 1e9))
        print(json.dumps(asyncio.run(measure(place, given.quant or None))))


if __name__ == "__main__":
    main()

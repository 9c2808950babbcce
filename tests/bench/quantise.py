"""What quantising while loading costs in quality, on a real model and beside MLC's q4f16_1; one JSON line a scheme.

    python -m tests.bench.quantise MODEL.gguf --tokens 512 --schemes q8,q4,q4_sym,mlc

The weights of MODEL are written once as a folder of float32 safetensors, the source that all schemes are compared with.
`mlc` is the scheme that MLC's q4f16_1 uses (group of 32, 15 levels, largest number over 7), done by numpy on the same
weights and loaded as float32. `+` behind a scheme of 4 bits (`q4+`) has embedding and LM head in 4 bits too.

For every position of the text both models give the logits of the next token: see quality.py. `errors` are relative, as
`llm.weights.report()` tells them. The text is Python's own documentation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import webllm
from tests.bench.quality import documentation, log_softmax
from tests.models.dequantise import dequantised
from webllm import quantize
from webllm.report import Report

Array = NDArray[Any]


def mlc(w: Array) -> Array:
    """What q4f16_1 makes of a matrix: its scales are the largest of 32 numbers over 7, in float16 arithmetic."""
    rows, cols = w.shape
    groups = np.zeros((rows, -(-cols // 32) * 32), np.float16)
    groups[:, :cols] = w
    groups = groups.reshape(rows, -1, 32)
    scale = (np.abs(groups).max(-1, keepdims=True) / np.float16(7)).astype(np.float16)
    safe = np.where(scale == 0, np.float16(1), scale)
    codes = np.clip(np.round(groups / safe + np.float16(7)), 0, 14).astype(np.float32)
    made: Array = ((codes - 7) * scale.astype(np.float32)).reshape(rows, -1)[:, :cols]
    return made


async def scheme(name: str, model: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where its weights are, and the options of `webllm.load`."""
    if name == "mlc":
        return await dequantised(model, folder / "mlc", np.float32, mlc), {}
    if name.endswith("+"):
        layers, _ = quantize.QUANTS[name[:-1]]
        quantize.QUANTS = {**quantize.QUANTS, name: (layers, layers)}
    return folder / "source", {"quant": name}


async def run(place: Path, options: Mapping[str, Any], ids: Sequence[int]) -> tuple[Array, Report, dict[str, Any]]:
    """Logarithms of the probabilities of every next token, what the weights lost, and where it ran."""
    async with await webllm.load(place, kv="f32", exact=True, context=len(ids), **options) as llm:
        rows = [log_softmax(await llm.logits(ids[:end])).astype(np.float32) for end in range(1, len(ids))]
        told = {"weight_bytes": llm.stats()["bytes"]["weight"], "adapter": llm.device.info.name}
        return np.stack(rows), llm.weights.report(), told


def compared(against: Array, other: Array, ids: Sequence[int]) -> dict[str, float]:
    """As quality.py's `divergence` of the second from the first."""
    p, q = against.astype(np.float64), other.astype(np.float64)
    kl = (np.exp(p) * (p - q)).sum(1)
    first, second = (float(np.exp(-rows[np.arange(len(rows)), ids[1:]].mean())) for rows in (p, q))
    return {
        "kl_mean": float(kl.mean()),
        "kl_max": float(kl.max()),
        "perplexity_source": first,
        "perplexity": second,
        "perplexity_ratio": second / first,
        "same_likeliest": float((p.argmax(1) == q.argmax(1)).mean()),
    }


def mean_error(report: Report, part: str) -> float | None:
    """Root of the mean square over tensors."""
    found = [row.error for row in report.rows if part in row.name and row.error is not None]
    return float(np.sqrt(np.mean(np.square(found)))) if found else None


async def measure(model: Path, text: str, tokens: int, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """One JSON-able object a scheme."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        source = await dequantised(model, folder / "source", np.float32)
        async with await webllm.load(model, context=64) as llm:
            ids = llm.tokenizer.encode(text[: 16 * tokens], special=True)[:tokens]
        against, _, _ = await run(source, {}, ids)
        for name in names:
            place, options = await scheme(name, model, folder)
            rows, report, told = await run(place, options, ids)
            errors = {part: mean_error(report, part) for part in ("layers", "embed_tokens")}
            result = {"model": model.name, "scheme": name, "tokens": len(ids), **compared(against, rows, ids)}
            yield {**result, "errors": errors, **told}


async def main(model: Path, text: str, tokens: int, names: Sequence[str]) -> None:
    async for result in measure(model, text, tokens, names):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--schemes", default="q8,q4,q4+,q4_sym,q4_sym+,mlc")
    parser.add_argument("--text", type=Path, help="a file in place of Python's documentation")
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8") if given.text else documentation()
    asyncio.run(main(given.model, text, given.tokens, given.schemes.split(",")))

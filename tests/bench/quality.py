"""What approximate kernels cost in quality: a model loaded twice, with other options, on the same text; one JSON line.

    python tests/bench/quality.py smollm2-135m-instruct
    python tests/bench/quality.py MODEL --against exact=1,kv=f32 --with exact=0,kv=f16 --tokens 4096 --prefill-every 256

For every position of the text both give the logits of the next token: the mean Kullback-Leibler divergence in nats, the
perplexities and their ratio, and how often the likeliest token is the same. `decode`: the cache was filled one token
a step. `prefill`: it was forgotten and filled in chunks every so many positions. `greedy`: after how many tokens the
continuations of some prompts differ, null where they never do. The text is Python's own documentation
(pydoc_data.topics), which differs between versions: compare numbers with the same `text_sha256`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import webllm
from webllm import LLM, host

PROMPT = 64  # tokens of a prompt for greedy continuations


def read_options(text: str) -> dict[str, Any]:
    """Options of `webllm.load` out of exact=1,kv=f16."""
    pairs = dict(pair.split("=", 1) for pair in text.split(",") if pair)
    kinds: Mapping[str, Any] = {"exact": lambda value: bool(int(value)), "context": int}
    return {name: kinds.get(name, str)(value) for name, value in pairs.items()}


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


async def divergence(pair: Sequence[LLM], ids: Sequence[int], forget_every: int | None) -> dict[str, float]:
    """Over all positions of a text, of the second model from the first.

    Each step is one of decode; forget_every: positions after which the cache is forgotten, and prefilled anew.
    """
    kl, likelihoods, same = [], [], 0
    for llm in pair:
        llm.engine.forget()
    for end in range(1, len(ids)):
        if forget_every and end % forget_every == 0:
            for llm in pair:
                llm.engine.forget()
        p, q = [log_softmax(await llm.logits(ids[:end])) for llm in pair]
        kl.append(float(np.exp(p) @ (p - q)))
        likelihoods.append((p[ids[end]], q[ids[end]]))
        same += int(p.argmax() == q.argmax())
    against, other = np.exp(-np.mean(likelihoods, axis=0))
    return {
        "kl_mean": float(np.mean(kl)),
        "kl_max": max(kl),
        "perplexity_against": float(against),
        "perplexity_with": float(other),
        "perplexity_ratio": float(other / against),
        "same_likeliest": same / len(kl),
    }


async def first_difference(pair: Sequence[LLM], prompt: Sequence[int], max_tokens: int) -> int | None:
    """Tokens after which greedy continuations part; None where they never do."""
    answers = []
    for llm in pair:
        stream = llm.generate(prompt, max_tokens=max_tokens, ignore_eos=True)
        answers.append([token async for token in stream])
    return next((i for i, (a, b) in enumerate(zip(*answers, strict=True)) if a != b), None)


async def measure(
    model: str | Path,
    text: str,
    against: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    tokens: int,
    prefill_every: int,
    prompts: int,
    max_tokens: int,
) -> dict[str, Any]:
    """One JSON-able object. tokens: of the text, at most what the context holds. prompts: how many are continued."""
    async with await webllm.load(model, **against) as first, await webllm.load(model, **other) as second:
        pair = (first, second)
        count = min(tokens, first.context, second.context)
        ids = first.tokenizer.encode(text[: 16 * count], special=True)[:count]
        starts = [number * len(ids) // prompts for number in range(prompts)]
        length = min(PROMPT, count - max_tokens)
        parted = [await first_difference(pair, ids[start:][:length], max_tokens) for start in starts]
        return {
            "model": str(model),
            "against": dict(against),
            "with": dict(other),
            "tokens": len(ids),
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "decode": await divergence(pair, ids, None),
            "prefill": {"every": prefill_every, **await divergence(pair, ids, prefill_every)},
            "greedy": {"max_tokens": max_tokens, "first_difference": parted},
            "adapter": first.device.info.name,
            "driver": first.device.info.driver,
            "features": sorted(first.device.features),
            "versions": host.current().versions(),
        }


def documentation() -> str:
    """A few hundred thousand characters of English and code that every Python has."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--against", type=read_options, default="exact=1", help="options of the reference")
    parser.add_argument("--with", type=read_options, default="exact=0", dest="other", help="options of the other")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--prefill-every", type=int, default=128)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--text", type=Path, help="a file in place of Python's documentation")
    options = vars(parser.parse_args(arguments))
    file = options.pop("text")
    text = file.read_text(encoding="utf-8") if file else documentation()
    print(json.dumps(asyncio.run(measure(text=text, **options))))


if __name__ == "__main__":
    main()

"""`webllm generate`: token ids in, token ids out, greedily."""

from __future__ import annotations

from contextlib import aclosing
from heapq import nlargest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.cli.options import (
    Adapter,
    Context,
    Exact,
    Ids,
    IdsFile,
    Json,
    Kv,
    MaxTokens,
    Model,
    PowerPreference,
    Quant,
    read_ids,
)
from webllm.cli.output import emit, speed, write
from webllm.cli.running import LoadOptions, loaded, on_ctrl_c, raise_interrupt, result_of, run

if TYPE_CHECKING:
    from webllm.api import LLM

TOP = 10


def generate(
    model: Model,
    ids: Ids = None,
    ids_file: IdsFile = None,
    max_tokens: MaxTokens = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on after a stop token.")] = False,
    context: Context = None,
    kv: Kv = "f16",
    quant: Quant = None,
    adapter: Adapter = None,
    power_preference: PowerPreference = None,
    exact: Exact = False,
    as_json: Json = False,
) -> None:
    """Continue token ids with the likeliest ones, up to and including a stop token."""
    options = LoadOptions(model, context, kv, quant, adapter, power_preference, exact)
    run(_generate(options, read_ids(ids, ids_file), max_tokens, ignore_eos, as_json))


async def _generate(
    options: LoadOptions, prompt: list[int], max_tokens: int | None, ignore_eos: bool, as_json: bool
) -> None:
    async with loaded(options) as llm:
        ids = await _continue(llm, prompt, max_tokens, ignore_eos, show=not as_json)
        if llm.engine.last.interrupted:
            raise_interrupt(as_json)
        result = result_of(llm, options.model, prompt, ids, _timing(llm))
        if not as_json:
            emit(result, as_json, "")
            speed(len(ids), result["timing"])
            return
        stopped = not ignore_eos and ids[-1:] != [] and ids[-1] in llm.checkpoint.stop_ids
        top_ids, top_logits = await _top(llm, prompt)
        result |= {"text": _text(llm, ids), "finish_reason": "stop" if stopped else "length"}
        emit(result | {"top10_ids": top_ids, "top10_logits": top_logits}, as_json, "")


async def _continue(llm: LLM, prompt: list[int], max_tokens: int | None, ignore_eos: bool, show: bool) -> list[int]:
    """The new ids. show: their text, or the ids where there is no vocabulary, goes to stdout as it comes."""
    ids = []
    decoder = llm.tokenizer.stream() if llm.checkpoint.vocabulary else None
    with on_ctrl_c(llm.interrupt):
        async with aclosing(llm.generate(prompt, max_tokens=max_tokens, ignore_eos=ignore_eos)) as tokens:
            async for token in tokens:
                ids.append(token)
                if show:
                    write(decoder.push(token) if decoder else f"{token} ")
    return ids


def _text(llm: LLM, ids: list[int]) -> str | None:
    return llm.tokenizer.decode(ids) if llm.checkpoint.vocabulary else None


def _timing(llm: LLM) -> dict[str, float]:
    stats = llm.stats()
    return {
        "ttft_s": stats["time_to_first_token_s"],
        "prefill_tokens_per_s": stats["prefill_tokens_per_s"],
        "decode_tokens_per_s": stats["decode_tokens_per_s"],
    }


async def _top(llm: LLM, prompt: list[int]) -> tuple[list[int], list[float]]:
    """The likeliest ids of the first new position, and their logits; of equals the lowest id first."""
    logits: Any = await llm.logits(prompt)
    values = logits.tolist()
    best = nlargest(TOP, range(len(values)), key=lambda i: (values[i], -i))
    return best, [values[i] for i in best]

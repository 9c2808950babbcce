"""`webllm chat`: one answer, or a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.cli.options import Adapter, Context, Exact, Json, Kv, MaxTokens, Model, PowerPreference, Quant
from webllm.cli.output import emit, note, speed, write
from webllm.cli.running import LoadOptions, loaded, on_ctrl_c, raise_interrupt, result_of, run
from webllm.display import printable
from webllm.errors import RequestError

if TYPE_CHECKING:
    from webllm.api import LLM

Messages = list[dict[str, str]]


def chat(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="Ask this and end. Without it, a conversation begins.")] = None,
    system: Annotated[str | None, typer.Option(help="The system message.", show_default="the template's own")] = None,
    max_tokens: MaxTokens = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="0: the likeliest token each time.", show_default="the model's own, else 1"),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only the likeliest tokens that have this share.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Only so many of the likeliest; 0: all.")] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Only tokens with this fraction of the likeliest one's probability."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same gives the same answer.", show_default="a new one each time")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be given again.")] = None,
    context: Context = None,
    kv: Kv = "f16",
    quant: Quant = None,
    adapter: Adapter = None,
    power_preference: PowerPreference = None,
    exact: Exact = False,
    as_json: Json = False,
) -> None:
    """Chat with a model.

    Ctrl-C ends an answer; /exit or Ctrl-D ends the conversation.
    """
    if as_json and prompt is None:
        raise typer.BadParameter("--json needs --prompt")
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed}
    given: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop or None, **sampling}
    options = {name: value for name, value in given.items() if value is not None}
    messages = [{"role": "system", "content": system}] if system is not None else []
    load = LoadOptions(model, context, kv, quant, adapter, power_preference, exact)
    run(_converse(load, messages, options) if prompt is None else _ask(load, messages, prompt, options, as_json))


@dataclass
class _Answer:
    """An answer, filled while it comes."""

    text: str = ""
    finish_reason: str | None = None
    prompt_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    seed: int | None = None

    def tell_speed(self, max_tokens: int | None) -> None:
        """The line below it, which says too when it was cut off."""
        ending = ""
        if self.finish_reason == "length":
            full = max_tokens is None or len(self.ids) < max_tokens
            ending = ", cut off: the context is full (--context)" if full else ", cut off at --max-tokens"
        speed(len(self.ids), self.timing, ending)


async def _ask(load: LoadOptions, messages: Messages, prompt: str, options: dict[str, Any], as_json: bool) -> None:
    """One question, one answer."""
    messages = [*messages, {"role": "user", "content": prompt}]
    async with loaded(load) as llm:
        answer = await _answer(llm, messages, options, _nowhere if as_json else write)
        if answer.finish_reason == "abort":
            raise_interrupt(as_json)
        result = result_of(llm, load.model, answer.prompt_ids, answer.ids, answer.timing)
    result |= {"text": answer.text, "finish_reason": answer.finish_reason, "seed": answer.seed}
    emit(result, as_json, "")
    if not as_json:
        answer.tell_speed(options.get("max_tokens"))


async def _converse(load: LoadOptions, messages: Messages, options: dict[str, Any]) -> None:
    """Turns until the user has enough. A turn that fails or brings nothing is as if it had not been."""
    with suppress(ImportError):
        import_module("readline")  # editing and history for input()
    async with loaded(load) as llm:
        if sys.stdin.isatty():
            name = printable(llm.checkpoint.name)
            note(f"{name}: /exit or Ctrl-D ends the conversation, Ctrl-C an answer")
        while (line := _read_line()) is not None:
            turn = [*messages, {"role": "user", "content": line}]
            try:
                answer = await _answer(llm, turn, options, write)
            except RequestError as error:
                note(str(error))
                continue
            write("\n")
            answer.tell_speed(options.get("max_tokens"))
            if answer.text:
                messages = [*turn, {"role": "assistant", "content": answer.text}]


async def _answer(
    llm: LLM, messages: Sequence[dict[str, str]], options: dict[str, Any], show: Callable[[str], None]
) -> _Answer:
    """Stream an answer to `show`. Ctrl-C ends it early."""
    answer = _Answer()
    with on_ctrl_c(llm.interrupt):
        stream = await llm.chat.completions.create(messages, stream=True, return_token_ids=True, **options)
        async for chunk in stream:
            choice = chunk.choices[0]
            answer.prompt_ids += chunk.prompt_token_ids or []
            answer.ids += choice.token_ids or []
            answer.text += choice.delta.content or ""
            show(choice.delta.content or "")
            if chunk.usage:
                answer.finish_reason = choice.finish_reason
                answer.timing = _timing(chunk.usage.extra)
                answer.seed = chunk.usage.extra.get("seed")
    return answer


def _timing(extra: dict[str, float]) -> dict[str, float]:
    return {
        "ttft_s": extra["time_to_first_token_s"],
        "prefill_tokens_per_s": extra["prefill_tokens_per_s"],
        "decode_tokens_per_s": extra["decode_tokens_per_s"],
    }


def _nowhere(_: str) -> None:
    """With --json the text comes whole, in the result."""


def _read_line() -> str | None:
    """The user's next message; None when there will be none."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            note("\n/exit or Ctrl-D ends the conversation")
            continue
        if line == "/exit":
            return None
        if line.startswith("/"):
            note(f"no command {line.split()[0]}: /exit ends the conversation")
        elif line:
            return line

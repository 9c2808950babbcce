"""From messages to an answer, and from a text to what follows; whole or streamed. `llm.chat` and `llm.completions`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast, overload

from webllm import host
from webllm.display import GrowingAnswer
from webllm.engine import Engine, Timing
from webllm.errors import RequestError
from webllm.sampling import Sampling
from webllm.stops import StopFinder
from webllm.tokenizer import Tokenizer
from webllm.types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Message,
    TextChoice,
    TextCompletion,
    Usage,
    shown_completion,
)

Messages = Sequence[Mapping[str, Any]]


@dataclass
class _Answer:
    """An answer while it is being made."""

    model: str
    prompt_ids: list[int]
    show_ids: bool
    sampling: Sampling
    stop_ids: frozenset[int]
    ids: list[int] = field(default_factory=list)  # stop tokens included
    shown: int = 0  # ids that a chunk has brought
    timing: Timing = field(default_factory=Timing)
    finish_reason: FinishReason = "length"
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(
        self, delta: Delta, finish_reason: FinishReason | None = None, usage: Usage | None = None
    ) -> ChatCompletionChunk:
        choice = ChunkChoice(delta, finish_reason, token_ids=self.ids[self.shown :] if self.show_ids else None)
        self.shown = len(self.ids)
        prompt = self.prompt_ids if self.show_ids and delta.role else None
        return ChatCompletionChunk(self.id, self.created, self.model, [choice], usage, prompt_token_ids=prompt)

    def completion(self, text: str) -> ChatCompletion:
        choice = Choice(Message(text), self.finish_reason, token_ids=self.ids if self.show_ids else None)
        prompt = self.prompt_ids if self.show_ids else None
        return ChatCompletion(self.id, self.created, self.model, [choice], self.usage(), prompt_token_ids=prompt)

    def usage(self) -> Usage:
        t = self.timing
        seed = {} if t.seed is None else {"seed": t.seed}
        return Usage(
            t.prompt_tokens,
            t.completion_tokens,
            t.prompt_tokens + t.completion_tokens,
            {"cached_tokens": t.cached_tokens},
            {
                "time_to_first_token_s": t.prefill_s,
                "prefill_tokens_per_s": t.prefill_tokens_per_s,
                "decode_tokens_per_s": t.decode_tokens_per_s,
                "host_choices": t.host_choices,
                **seed,
            },
        )


class Completions:
    """`llm.chat.completions`. encode: messages -> token ids. goes_on: an answer is the same text as its prompt."""

    def __init__(
        self,
        model: str,
        engine: Engine,
        tokenizer: Tokenizer,
        encode: Callable[[Any], list[int]],
        stop_ids: frozenset[int],
        generation: Mapping[str, Any],
        goes_on: bool = False,
    ) -> None:
        self._model = model
        self._engine = engine
        self._tokenizer = tokenizer
        self._encode = encode
        self._stop_ids = stop_ids
        self._generation = generation
        self._goes_on = goes_on

    def interrupt(self) -> None:
        """`llm.interrupt()`."""
        self._engine.interrupt()

    @overload
    async def create(self, messages: Messages, *, stream: Literal[False] = False, **options: Any) -> ChatCompletion: ...

    @overload
    async def create(
        self, messages: Messages, *, stream: Literal[True], **options: Any
    ) -> AsyncGenerator[ChatCompletionChunk, None]: ...

    async def create(
        self,
        messages: Messages,
        *,
        stream: bool = False,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        repetition_penalty: float | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        model: str | None = None,
        ignore_eos: bool = False,
        return_token_ids: bool = False,
        **unknown: Any,
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a conversation.

        messages: [{"role": "user", "content": "..."}], the whole conversation each time; what an
        earlier request left in the KV cache is not computed again. max_tokens: at most so many
        (default: until the context is full). temperature to seed: see `webllm.Sampling`; what is not
        given is as the model's file says, otherwise as OpenAI does (temperature 1). stop: strings that
        end the answer and are not part of it. model: ignored, one is loaded. ignore_eos: tokens that end
        an answer do not end this one. return_token_ids: the ids of prompt and answer come with it.

        Raises `RequestError` or `ContextFull` before any GPU work; the chat so far is kept.

            answer = await llm.chat.completions.create([{"role": "user", "content": "Hi"}], temperature=0)
            answer.choices[0].message.content
        """
        _check(max_tokens, unknown)
        stops = _stops(stop)
        options = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repetition_penalty": repetition_penalty,
            "logit_bias": logit_bias,
            "seed": seed,
        }
        sampling = Sampling.of(options, self._generation)
        ids = self._engine.check(self._encode(messages), sampling)
        stop_ids = frozenset[int]() if ignore_eos else self._stop_ids
        answer = _Answer(self._model, ids, return_token_ids, sampling, stop_ids)
        pieces = self._pieces(answer, max_tokens, stops)
        return self._stream(answer, pieces) if stream else answer.completion("".join([text async for text in pieces]))

    def count_tokens(self, messages: Messages) -> int:
        """Tokens of a conversation as the model's template writes it, up to where the answer would begin.

        Raises `RequestError` where `create` would for these messages, and never `ContextFull`.

            llm.chat.completions.count_tokens([{"role": "user", "content": "Hi"}])
        """
        return len(self._encode(messages))

    async def _stream(
        self, answer: _Answer, pieces: AsyncGenerator[str, None]
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        yield answer.chunk(Delta("", "assistant"))
        async with aclosing(pieces):
            async for piece in pieces:
                yield answer.chunk(Delta(piece))
        yield answer.chunk(Delta(), answer.finish_reason, answer.usage())

    async def _pieces(self, answer: _Answer, max_tokens: int | None, stops: list[str]) -> AsyncGenerator[str, None]:
        """The answer's text as it comes, without stop tokens and stop strings."""
        decoder, finder = self._tokenizer.stream(), StopFinder(stops)
        if self._goes_on:
            decoder.push(answer.prompt_ids[-1])  # so that a space after it is kept
        steps = self._engine.generate(answer.prompt_ids, max_tokens, answer.stop_ids, answer.timing, answer.sampling)
        async with aclosing(steps) as tokens:
            async for token in tokens:
                answer.ids.append(token)
                if token in answer.stop_ids:
                    answer.finish_reason = "stop"
                    break
                if text := finder.push(decoder.push(token)):
                    yield text
                if finder.found is not None:
                    answer.finish_reason = "stop"
                    return
        if answer.finish_reason != "stop" and answer.timing.interrupted:
            answer.finish_reason = "abort"
        if text := finder.push(decoder.flush()) + finder.flush():
            yield text


class TextCompletions:
    """`llm.completions`: a text goes on, without a chat template."""

    def __init__(self, answers: Completions) -> None:
        self._answers = answers

    @overload
    async def create(self, prompt: str, *, stream: Literal[False] = False, **options: Any) -> TextCompletion: ...

    @overload
    async def create(
        self, prompt: str, *, stream: Literal[True], **options: Any
    ) -> AsyncGenerator[TextCompletion, None]: ...

    async def create(
        self, prompt: str, *, stream: bool = False, echo: bool = False, **options: Any
    ) -> TextCompletion | AsyncGenerator[TextCompletion, None]:
        """Continue a text.

        Special tokens in it stay text; bos is put in front where the vocabulary says so. echo: the prompt is part of
        the answer. options: those of `llm.chat.completions.create`. Raises as that does.

            answer = await llm.completions.create("Once upon a time", max_tokens=16)
            answer.choices[0].text
        """
        before = prompt if echo else ""
        if stream:
            return _texts(await self._answers.create(cast("Any", prompt), stream=True, **options), before)
        answer = await self._answers.create(cast("Any", prompt), **options)
        (choice,) = answer.choices
        text = TextChoice(before + choice.message.content, choice.finish_reason, token_ids=choice.token_ids)
        return TextCompletion(
            answer.id, answer.created, answer.model, [text], answer.usage, prompt_token_ids=answer.prompt_token_ids
        )


async def _texts(
    chunks: AsyncGenerator[ChatCompletionChunk, None], before: str
) -> AsyncGenerator[TextCompletion, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            (choice,) = chunk.choices
            text = TextChoice(before + (choice.delta.content or ""), choice.finish_reason, token_ids=choice.token_ids)
            before = ""
            yield TextCompletion(
                chunk.id, chunk.created, chunk.model, [text], chunk.usage, prompt_token_ids=chunk.prompt_token_ids
            )


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Token ids of a text to go on from, with bos where the vocabulary says so."""
    ids, bos = tokenizer.encode(prompt), tokenizer.bos_id
    return [bos, *ids] if tokenizer.vocabulary.add_bos and bos is not None else ids


class Chat:
    """`llm.chat`."""

    def __init__(self, completions: Completions) -> None:
        self.completions = completions

    async def show(self, messages: str | Messages, **options: Any) -> ChatCompletion:
        """Answer a conversation, or one question, and show the answer as it grows: in a notebook's cell, or printed.

        options: those of `completions.create`, except `stream`. A cell that is stopped keeps what it has shown; in the
        browser, where no notebook can stop one, a button below the answer ends it.

            answer = await llm.chat.show("What is the capital of France?", temperature=0)
        """
        chunks = []
        stream = await self.completions.create(conversation(messages), **options, stream=True)
        with self.growing() as shown:
            async with aclosing(stream):
                async for chunk in stream:
                    chunks.append(chunk)
                    shown.add(chunk.choices[0].delta.content or "")
        return shown_completion(chunks, shown.cell)

    @contextmanager
    def growing(self) -> Iterator[GrowingAnswer]:
        """Where `show` draws."""
        with host.current().stop_button(self.completions.interrupt) as button, GrowingAnswer(button) as shown:
            yield shown


def conversation(messages: str | Messages) -> Messages:
    """Messages as they are; a text is a user's question."""
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _check(max_tokens: int | None, unknown: Mapping[str, Any]) -> None:
    if unknown:
        raise RequestError(
            f"unknown option {', '.join(unknown)}; create() takes stream, max_tokens, temperature, top_p, top_k, "
            "min_p, presence_penalty, frequency_penalty, repetition_penalty, logit_bias, seed, stop, model, "
            "ignore_eos, return_token_ids"
        )
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise RequestError(f"max_tokens must be a whole number of at least 1, got {max_tokens!r}")


def _stops(stop: str | Sequence[str] | None) -> list[str]:
    stops = (stop,) if isinstance(stop, str) else () if stop is None else stop
    if not isinstance(stops, list | tuple) or not all(isinstance(text, str) for text in stops):
        raise RequestError(f"stop must be a text or a list of texts, got {stop!r}")
    return list(stops)

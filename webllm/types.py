"""Answers in OpenAI's shapes, as plain dataclasses. `to_dict()` gives the JSON form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from webllm import display

FinishReason = Literal["stop", "length", "abort"]


class _Dict:
    def to_dict(self) -> dict[str, Any]:
        """The object as JSON would have it."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Usage(_Dict):
    """Token counts. extra: speeds and times of this request (tokens/s, seconds), the seed
    of its sampling, and how many tokens the host had to choose (`host_choices`)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message(_Dict):
    """What the assistant said."""

    content: str
    role: str = "assistant"


@dataclass(frozen=True)
class Choice(_Dict):
    """One answer and why it ended. token_ids: with `return_token_ids`, stop tokens included."""

    message: Message
    finish_reason: FinishReason
    index: int = 0
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class ChatCompletion(_Dict):
    """A whole answer. prompt_token_ids: with `return_token_ids`."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"
    prompt_token_ids: list[int] | None = None

    def _repr_html_(self) -> str:
        return display.answer_html(self.choices[0].message.content)


class ShownCompletion(ChatCompletion):
    """A whole answer that a notebook's cell has shown while it grew: that cell does not show it again."""

    def _ipython_display_(self) -> None:
        if vars(self)["_cell"] != display.cell():
            raise NotImplementedError  # IPython then goes on to `_repr_html_`


@dataclass(frozen=True)
class TextChoice(_Dict):
    """A text that goes on, or a piece of it; finish_reason is set in the last. token_ids: with `return_token_ids`."""

    text: str
    finish_reason: FinishReason | None = None
    index: int = 0
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class TextCompletion(_Dict):
    """A whole continuation of a text, or a piece of one. usage: with the last piece only."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    object: str = "text_completion"
    prompt_token_ids: list[int] | None = None


@dataclass(frozen=True)
class Delta(_Dict):
    """What a chunk adds."""

    content: str | None = None
    role: str | None = None


@dataclass(frozen=True)
class ChunkChoice(_Dict):
    """A chunk's part of one answer; finish_reason is set in the last. token_ids: those since the chunk before."""

    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class ChatCompletionChunk(_Dict):
    """A piece of a streamed answer. usage: with the last one only; prompt_token_ids: with the first only."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    object: str = "chat.completion.chunk"
    prompt_token_ids: list[int] | None = None


def shown_completion(chunks: Sequence[ChatCompletionChunk], cell: int | None) -> ShownCompletion:
    """The whole answer that the chunks of a stream make. cell: the number of the notebook's cell that has shown it."""
    first, last = chunks[0], chunks[-1]
    parts = [chunk.choices[0] for chunk in chunks]
    ids = None if parts[0].token_ids is None else [i for part in parts for i in part.token_ids or ()]
    message = Message("".join(part.delta.content or "" for part in parts))
    choice = Choice(message, parts[-1].finish_reason or "stop", token_ids=ids)
    usage, prompt = last.usage or Usage(0, 0, 0), first.prompt_token_ids
    whole = ShownCompletion(first.id, first.created, first.model, [choice], usage, prompt_token_ids=prompt)
    object.__setattr__(whole, "_cell", cell)
    return whole

"""Chat messages to a prompt, by the model's own Jinja template.

What a user writes can never become a special token. Before rendering, every special token's text inside the
messages is broken with a marker character that occurs nowhere else; after rendering, the special tokens that are
still whole are the template's own, and the marker is taken out of the text between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from webllm.errors import BadModel, RequestError
from webllm.tokenizer import Tokenizer

if TYPE_CHECKING:  # importing Jinja takes a third of a second in the browser
    from jinja2 import Template

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_LONGEST_TOKEN = 256  # characters of a special token; the guard looks at all of its beginnings and ends


class Piece(NamedTuple):
    """A stretch of a rendered prompt: ordinary text, or exactly one special token."""

    text: str
    special: bool


class ChatTemplate:
    """A model's chat template.

    source: the Jinja text, or None if the model has none (rendering then raises `RequestError`).
    special_tokens: the texts of the model's special tokens. bos_token and eos_token: what templates call so.

        template = ChatTemplate(checkpoint.chat_template, tokenizer.special_tokens)
        template.render([{"role": "user", "content": "Hi"}])  # [Piece("<|im_start|>", True), ...]
    """

    def __init__(
        self, source: str | None, special_tokens: Iterable[str], bos_token: str = "", eos_token: str = ""
    ) -> None:
        self.source = source
        # a token of one character cannot be broken in two, so it is never taken for special
        self._special = sorted((text for text in special_tokens if len(text) > 1), key=len, reverse=True)
        if self._special and len(self._special[0]) > _LONGEST_TOKEN:
            raise BadModel(
                f"a special token has {len(self._special[0]):,} characters; at most {_LONGEST_TOKEN} are read"
            )
        self._names = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> list[Piece]:
        """Render the conversation; `extra` goes to the template as it is.

        Each message needs a "role" and a "content" (text, or OpenAI's list of text parts).
        Raises `RequestError` for messages that are wrong or that the template refuses, `BadModel` for a template
        that is no Jinja or writes without end.
        """
        guard = _Guard(self._special, [messages, tools, extra, self.source])
        variables = {
            **self._names,
            **guard.protect(extra),
            "messages": guard.protect(_checked(messages)),
            "tools": guard.protect(tools) or None,
            "add_generation_prompt": add_generation_prompt,
        }
        text = "".join(_generate(self._template, variables))
        return list(guard.pieces(text))

    @cached_property
    def _template(self) -> Template:
        from jinja2 import TemplateSyntaxError

        from webllm.template_sandbox import Sandbox

        if not self.source:
            raise RequestError("the model has no chat template: pass one as chat_template=, or complete plain text")
        try:
            template: Template = Sandbox().compiled(self.source)
            return template
        except TemplateSyntaxError as error:
            message = (
                f"the model's chat template is no Jinja (line {error.lineno}): {(error.message or '').rstrip('.')}"
            )
            raise BadModel(f"{message}. Pass another as chat_template=") from error


def encode_chat(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **extra: Any,
) -> list[int]:
    """Token ids of a conversation, exactly as the template writes it.

    The template alone decides about bos: none is added here, so one that the template writes is not doubled.

        encode_chat(template, tokenizer, [{"role": "user", "content": "Hi"}])
    """
    ids: list[int] = []
    for text, special in template.render(messages, add_generation_prompt, tools, **extra):
        ids += [tokenizer.special_tokens[text]] if special else tokenizer.encode(text)
    return ids


class _Guard:
    """Keeps special tokens' texts inside the conversation apart from the template's own."""

    def __init__(self, special: Sequence[str], conversation: Any) -> None:
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")  # without tokens: matches nothing
        used = set(chain.from_iterable(_strings([conversation, special])))
        self._marker = next(chr(c) for c in chain(*_PRIVATE_USE) if chr(c) not in used)
        # a token could also come about where a message meets the template's text
        self._heads = tuple({text[:n] for text in special for n in range(1, len(text))})
        self._tails = tuple({text[n:] for text in special for n in range(1, len(text))})

    def protect(self, value: Any) -> Any:
        """A copy of `value` with every special token in its strings broken."""
        if isinstance(value, str):
            return self._break(value)
        if isinstance(value, Mapping):
            return {self.protect(key): self.protect(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.protect(item) for item in value]
        return value

    def _break(self, text: str) -> str:
        while self._special.search(text):  # again, for tokens that overlapped one that is broken now
            text = self._special.sub(lambda match: match[0][0] + self._marker + match[0][1:], text)
        start = self._marker if text.startswith(self._tails) else ""
        end = self._marker if text.endswith(self._heads) else ""
        return start + text + end

    def pieces(self, text: str) -> Iterator[Piece]:
        """Cut what was rendered at the special tokens that are whole, and take the markers out."""
        start = 0
        for match in self._special.finditer(text):
            if plain := text[start : match.start()].replace(self._marker, ""):
                yield Piece(plain, False)
            yield Piece(match[0], True)
            start = match.end()
        if plain := text[start:].replace(self._marker, ""):
            yield Piece(plain, False)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_strings, chain(value.keys(), value.values())))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_strings, value))


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(messages, list | tuple) or not messages:
        raise RequestError('chat: messages must be a list like [{"role": "user", "content": "Hi"}], with one at least')
    return [_message(i, message) for i, message in enumerate(messages)]


def _message(i: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(f"chat: message {i} must be a dict with role and content, got {type(message).__name__}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RequestError(f'chat: message {i} needs a "role" such as "user", got {role!r}')
    if content is None and message.get("tool_calls"):
        return dict(message)
    if isinstance(content, list | tuple):
        content = "".join(_part(i, part) for part in content)
    if not isinstance(content, str):
        raise RequestError(f'chat: message {i} ({role}) needs a "content" of text, got {type(content).__name__}')
    return {**message, "content": content}


def _part(i: int, part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise RequestError(f"chat: message {i} has a part of type {kind!r}; this model reads text only")


def _generate(template: Template, variables: Mapping[str, Any]) -> Iterator[str]:
    """The template's output in chunks, with its failures as ours."""
    from jinja2.exceptions import SecurityError

    try:
        template.environment.start(variables)  # type: ignore[attr-defined]
        yield from template.generate(**variables)
    except RequestError:
        raise
    except SecurityError as error:
        raise BadModel(f"the model's chat template does what templates may not: {error}") from error
    except Exception as error:  # the template is foreign code
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(f"the model's chat template cannot render these messages: {reason}") from error

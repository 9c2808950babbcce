"""The same API without await, for scripts and notebooks: every call blocks until its result is there.

    import webllm.sync

    with webllm.sync.load("smollm2-135m-instruct") as llm:
        answer = llm.chat.completions.create([{"role": "user", "content": "Hi"}])
        for chunk in llm.chat.completions.create([{"role": "user", "content": "Hi"}], stream=True): ...
    webllm.sync.cache.list()

Nothing is done here: calls go to the objects of `webllm.api`, on an event loop of their own. Ctrl-C ends what is being
waited for and raises `KeyboardInterrupt`; the model stays usable. In a browser this needs WebAssembly's JavaScript
Promise Integration.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from functools import partial, update_wrapper, wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from webllm import api, chat, host
from webllm import cache as stored
from webllm.tokenizer import Tokenizer
from webllm.types import ChatCompletion, ChatCompletionChunk, TextCompletion, shown_completion

P = ParamSpec("P")
T = TypeVar("T")


def _with_parameters_of(
    function: Callable[P, Coroutine[Any, Any, object]],
) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Tell editors and `help` what may be given; a function's own docstring stays."""
    return lambda blocking: update_wrapper(blocking, function, assigned=())


@_with_parameters_of(api.load)
def load(*args: Any, **options: Any) -> LLM:
    """Load a model onto the GPU: `webllm.load`, blocking. `on_progress` is called in the thread that waits.

    llm = webllm.sync.load("smollm2-135m-instruct")
    """
    return LLM(_blocking(api.load)(*args, **options))


class _Face:
    """An object of the asynchronous API whose coroutines block and whose asynchronous iterators iterate."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        return _blocking(value) if inspect.isroutine(value) else value

    def __repr__(self) -> str:
        return f"<webllm.sync of {self._of!r}>"


class LLM(_Face):
    """A loaded model, made by `webllm.sync.load`: all of `webllm.LLM`, blocking."""

    if TYPE_CHECKING:  # what editors should know; it comes from `webllm.LLM`
        name: str
        context: int
        tokenizer: Tokenizer

        def generate(
            self, ids: Sequence[int], *, max_tokens: int | None = None, **options: Any
        ) -> Generator[int, None, None]: ...
        def logits(self, ids: Sequence[int]) -> Any: ...
        def interrupt(self) -> None: ...
        def stats(self) -> dict[str, Any]: ...
        def close(self) -> None: ...

    @property
    def chat(self) -> Chat:
        """`llm.chat.completions.create(...)`."""
        return Chat(self._of.chat)

    @property
    def completions(self) -> TextCompletions:
        """`llm.completions.create(...)`."""
        return TextCompletions(self._of.completions)

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Chat(_Face):
    """`llm.chat`."""

    @property
    def completions(self) -> Completions:
        """Answers to conversations."""
        return Completions(self._of.completions)

    def show(self, messages: str | chat.Messages, **options: Any) -> ChatCompletion:
        """`webllm.chat.Chat.show`, blocking."""
        chunks = []
        with self._of.growing() as shown:
            for chunk in self.completions.create(chat.conversation(messages), **options, stream=True):
                chunks.append(chunk)
                shown.add(chunk.choices[0].delta.content or "")
        return shown_completion(chunks, shown.cell)


class Completions(_Face):
    """`llm.chat.completions`."""

    if TYPE_CHECKING:

        @overload
        def create(
            self, messages: chat.Messages, *, stream: Literal[False] = False, **options: Any
        ) -> ChatCompletion: ...
        @overload
        def create(
            self, messages: chat.Messages, *, stream: Literal[True], **options: Any
        ) -> Generator[ChatCompletionChunk, None, None]: ...
        def create(self, messages: chat.Messages, *, stream: bool = False, **options: Any) -> Any: ...


class TextCompletions(_Face):
    """`llm.completions`."""

    if TYPE_CHECKING:

        @overload
        def create(self, prompt: str, *, stream: Literal[False] = False, **options: Any) -> TextCompletion: ...
        @overload
        def create(
            self, prompt: str, *, stream: Literal[True], **options: Any
        ) -> Generator[TextCompletion, None, None]: ...
        def create(self, prompt: str, *, stream: bool = False, **options: Any) -> Any: ...


cache = _Face(stored)
"""`webllm.cache`, blocking: `webllm.sync.cache.list()`."""


def _blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`; a coroutine's result is waited for, and what is iterated with `async for` gets a plain iterator."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        here = host.current().BlockingCall()
        if on_progress := options.get("on_progress"):
            options["on_progress"] = lambda progress: here.post(partial(on_progress, progress))
        value = function(*args, **options)
        if inspect.iscoroutine(value):
            value = here.wait(value)
        return _iterate(value) if isinstance(value, AsyncGenerator) else value

    return call


def _iterate(stream: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The items of `stream`. Left early, or interrupted by Ctrl-C, it is closed: its request ends."""
    ended = object()

    async def following() -> Any:
        return await anext(stream, ended)

    try:
        while (item := host.current().BlockingCall().wait(following())) is not ended:
            yield item
    finally:
        host.current().start(_close(stream))  # not waited for: garbage is collected in any thread


async def _close(stream: AsyncGenerator[Any, None]) -> None:
    await stream.aclose()

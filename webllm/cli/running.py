"""Loading a model for a command, running coroutines, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from webllm.cli.opening import local
from webllm.cli.output import progress, write

if TYPE_CHECKING:
    from webllm.api import LLM

T = TypeVar("T")


@dataclass(frozen=True)
class LoadOptions:
    """What to load, and how: see `webllm.load`."""

    model: str
    context: int | None
    kv: str
    quant: str | None
    adapter: str | None
    power_preference: str | None
    exact: bool


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Ctrl-C stops it where it is: asyncio's own way would wait for the next pause."""

    def stop() -> None:
        raise KeyboardInterrupt

    with on_ctrl_c(stop):
        return asyncio.run(work)


@contextmanager
def runtime_folder() -> Iterator[None]:
    """Gives Mesa the XDG_RUNTIME_DIR that containers and services lack: without one it complains at every start."""
    folder = None
    if sys.platform == "linux" and not os.environ.get("XDG_RUNTIME_DIR"):
        with suppress(OSError):  # complaints are no reason to fail
            folder = tempfile.mkdtemp(prefix="webllm-")  # mode 0700
    if folder is None:
        yield
        return
    os.environ["XDG_RUNTIME_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` at the first Ctrl-C; a second one ends the program."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def raise_interrupt(as_json: bool) -> NoReturn:
    """End the program after an answer that Ctrl-C ended; what was shown of it gets its line's end."""
    if not as_json:
        write("\n")
    raise KeyboardInterrupt


@asynccontextmanager
async def loaded(options: LoadOptions) -> AsyncIterator[LLM]:
    """A model on the GPU, closed at the end."""
    from webllm.api import load

    with progress() as on_progress:
        llm = await load(
            local(options.model, on_progress),
            context=options.context,
            kv=options.kv,
            quant=options.quant,
            exact=options.exact,
            adapter=options.adapter,
            power_preference=options.power_preference,
            on_progress=on_progress,
        )
    async with llm:
        yield llm


def adapter_of(llm: LLM) -> dict[str, Any]:
    """The GPU, as results name it."""
    info = llm.device.info
    return {"name": info.name, "backend": info.backend, "features": sorted(llm.device.features)}


def result_of(llm: LLM, model: str, prompt_ids: list[int], ids: list[int], timing: dict[str, float]) -> dict[str, Any]:
    """What the results of `chat` and `generate` have in common. timing: without the load."""
    counts = {
        "prompt_tokens": len(prompt_ids),
        "completion_tokens": len(ids),
        "total_tokens": len(prompt_ids) + len(ids),
    }
    return {
        "model": model,
        "prompt_ids": prompt_ids,
        "ids": ids,
        "usage": counts,
        "timing": {"load_s": llm.load_s, **timing},
        "adapter": adapter_of(llm),
    }

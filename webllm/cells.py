"""Cells of Python in a page, `<script type="text/python">`: they share one namespace, as in a notebook.

In a browser only.
"""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps
from typing import Any

from pyodide.code import eval_code_async

import webllm
from webllm import api

Tell = Callable[[dict[str, Any]], None]

MOST = 200_000  # characters that a cell may show of each kind: a loop that prints must not fill the page's memory

_namespace: dict[str, Any] = {"__name__": "__main__", "webllm": webllm}


async def run(code: str, name: str, tell: Tell) -> dict[str, str | None]:
    """Run a cell's code, with top-level await.

    name: as tracebacks call it. tell: gets {"stdout": text} and {"stderr": text} as they are written, and {"progress":
    event} of models that are loaded. Returns {"value"}, the last expression's repr, or {"error"}, a traceback; None
    where there is no such thing.
    """
    webllm.load = _telling(tell)
    with redirect_stdout(_Stream(tell, "stdout")), redirect_stderr(_Stream(tell, "stderr")):
        try:
            value = await eval_code_async(code, _namespace, filename=name)
            shown = None if value is None else _cut(repr(value))
        except asyncio.CancelledError:
            return {"value": None, "error": "KeyboardInterrupt: stopped"}
        except BaseException as error:  # SystemExit too: a cell does not end the worker
            return {"value": None, "error": _cut(_traceback(error, name))}
    if value is not None:
        _namespace["_"] = value
    return {"value": shown, "error": None}


def _telling(tell: Tell) -> Callable[..., Any]:
    """`webllm.load` that tells the cell of its progress, unless the caller listens."""

    @wraps(api.load)
    async def load(model: Any, *, on_progress: Any = None, **options: Any) -> api.LLM:
        listen = on_progress if on_progress is not None else lambda event: tell({"progress": event})
        return await api.load(model, on_progress=listen, **options)

    return load


def _traceback(error: BaseException, name: str) -> str:
    """As Python prints it, from the cell's own code on."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename != name:
        step = step.tb_next
    return "".join(traceback.format_exception(error.with_traceback(step)))


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[:MOST]}\n... and {len(text) - MOST} characters more"


class _Stream(io.TextIOBase):
    """What a cell writes, told at once."""

    def __init__(self, tell: Tell, name: str) -> None:
        self._tell = tell
        self._name = name
        self._left = MOST

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if 0 < self._left < len(text):
            self._tell({self._name: f"{text[: self._left]}\n... what the cell writes from here on is not shown"})
        elif self._left > 0:
            self._tell({self._name: text})
        self._left -= len(text)
        return len(text)

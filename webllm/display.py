"""How things look to people: progress, answers as they grow, models and their numbers, in notebooks and on terminals.

What a model writes is hostile. A terminal gets no control characters of it. A notebook gets HTML that is made here,
from Markdown in which HTML is text and images are links: Jupyter runs the scripts of what a running cell displays, in
Markdown too, and an image would be fetched from wherever its address says.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any, Literal

OnProgress = Callable[[dict[str, Any]], None]

_REDRAW_S = 0.05  # a growing answer is drawn again at most so often
_QUICK_S = 0.5  # what takes no longer shows no bar on a terminal
_COLOURS = {"weights": "#4c78a8", "kv": "#f58518", "scratch": "#54a24b", "other": "#9d9d9d"}  # of parts of memory
# What a model writes must not steer the terminal: control characters but tab and newline become U+FFFD.
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """The text as a terminal may get it, wherever it comes from."""
    return text.translate(_CONTROLS)


def cell() -> int | None:
    """The number of the notebook's cell that runs; None where there is no notebook."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    return int(shell.execution_count) if hasattr(shell, "kernel") else None


@contextmanager
def progress(on_progress: OnProgress | Literal[False] | None) -> Iterator[OnProgress | None]:
    """Who is told how a load goes on: `on_progress`; where that is None, bars in a notebook and on a terminal."""
    if on_progress is not None:
        yield on_progress or None
        return
    tqdm = _tqdm()
    bars = tqdm and _Bars(tqdm)
    try:
        yield bars.show if bars else None
    finally:
        if bars:
            bars.close()


def _tqdm() -> Any:
    """tqdm's bar for this place; None where nobody looks, or where it is not installed."""
    if cell() is None and not (sys.stderr and sys.stderr.isatty()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets the bar is text, which is good enough
            from tqdm.auto import tqdm
    except ImportError:
        return None
    if sys.platform == "emscripten":
        tqdm.monitor_interval = 0  # there are no threads
    return tqdm


class _Bars:
    """One bar for each phase of a load; some go on beside each other."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bars: dict[str, Any] = {}

    def show(self, event: dict[str, Any]) -> None:
        phase = event["phase"]
        if phase == "memory":  # told before there is anything to draw
            return
        if phase not in self._bars:
            delay = 0 if cell() else _QUICK_S
            self._bars[phase] = self._tqdm(total=event["total"], desc=phase, unit="B", unit_scale=True, delay=delay)
        bar = self._bars[phase]
        bar.update(event["loaded"] - bar.n)
        if bar.n >= event["total"]:
            bar.close()  # before another begins below it

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


class GrowingAnswer:
    """An answer that is shown while it grows: rendered in a notebook's cell, printed elsewhere.

    button: HTML below an answer that is not whole yet.

    with GrowingAnswer() as shown:
        shown.add("The capital")
    """

    def __init__(self, button: str = "") -> None:
        self.cell = cell()
        self._button = button
        self._text = ""
        self._handle: Any = None
        self._drawn = 0.0

    def add(self, text: str) -> None:
        """Show more of it."""
        self._text += text
        if self._handle is None:
            print(printable(text), end="", flush=True)
        elif time.monotonic() - self._drawn > _REDRAW_S:
            self._draw(self._button)

    def _draw(self, below: str = "") -> None:
        self._handle.update({"text/html": answer_html(self._text) + below, "text/plain": self._text}, raw=True)
        self._drawn = time.monotonic()

    def __enter__(self) -> GrowingAnswer:
        if self.cell is not None:
            from IPython.display import DisplayHandle

            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display({"text/html": self._button, "text/plain": ""}, raw=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is None:
            print(flush=True)
        else:
            self._draw()


def answer_html(text: str) -> str:
    """What a model wrote as HTML that does nothing but show it: its Markdown, or plain text without markdown-it-py."""
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return f'<div style="white-space: pre-wrap">{escape(text)}</div>'
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return str(markdown.render(text))


def model_html(
    name: str, adapter: str, memory: Mapping[str, int], gpu_bytes: int, context: int, last: Mapping[str, float]
) -> str:
    """A loaded model: its memory with a full context, by parts, and how fast the last request was.

    memory: as `describe.memory` gives it. last: tokens_per_s and first_s; empty before any request.
    """
    total = memory["total"]
    bars = "".join(
        f'<span title="{part}: {_megabytes(memory[part])}" style="'
        f'width: {100 * memory[part] / total:.2f}%; background: {colour}"></span>'
        for part, colour in _COLOURS.items()
    )
    speed = "none yet"
    if last:
        speed = f"{last['tokens_per_s']:.1f} tokens/s, the first after {last['first_s']:.2f} s"
    rows = {
        "on": escape(adapter),
        "memory": f"{_megabytes(gpu_bytes)} now, {_megabytes(total)} with a full context"
        f'<div style="display: flex; width: 20em; height: 0.6em; margin: 0.4em 0">{bars}</div>'
        + ", ".join(f"{part} {_megabytes(memory[part])}" for part in _COLOURS),
        "context": f"{context:,} tokens",
        "last request": speed,
    }
    return f"<b>{escape(name)}</b>{_table(rows)}"


class Stats(dict[str, Any]):
    """A dict of numbers that reads well when it is printed, or is the value of a notebook's cell.

    Units go by names: what ends in `_s` is in seconds, what ends in `bytes` in bytes.
    """

    def __str__(self) -> str:
        rows = self._rows()
        width = max(map(len, rows), default=0)
        return "\n".join(f"{key:{width}}  {value}" for key, value in rows.items())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # IPython's own hook, in a terminal too

    def _repr_html_(self) -> str:
        return _table({escape(key): escape(value) for key, value in self._rows().items()})

    def _rows(self) -> dict[str, str]:
        return {key.replace("_", " "): _readable(key, value) for key, value in self.items()}


def _readable(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        of = f"{key}_s" if key == "load" else key
        return ", ".join(f"{name.replace('_', ' ')} {_readable(of, inner)}" for name, inner in value.items())
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return f"{len(value)} entries"
    if key.endswith("bytes"):
        return _megabytes(value)
    if key.endswith("_per_s"):
        return f"{value:,.1f}"
    if key.endswith("_s"):
        return f"{value:.3f} s"
    return str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _table(rows: Mapping[str, str]) -> str:
    cells = '<tr><th style="text-align: left">{}</th><td style="text-align: left">{}</td></tr>'
    return f"<table>{''.join(cells.format(*row) for row in rows.items())}</table>"

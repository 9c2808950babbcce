"""What commands print: results on stdout; progress, speeds and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from webllm.display import printable

if TYPE_CHECKING:
    from webllm.device import Progress


def emit(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    """A command's result on stdout: the JSON object, or the text for people."""
    typer.echo(json.dumps(result) if as_json else text)


def fail(kind: str, message: str, as_json: bool, status: int = 1) -> int:
    """Tell of an error and return the exit status."""
    if as_json:
        typer.echo(json.dumps({"error": {"type": kind, "message": message}}))
    else:
        typer.echo(f"webllm: {message}", err=True)
    return status


def write(text: str) -> None:
    """A piece of a model's answer on stdout, at once."""
    typer.echo(printable(text) if sys.stdout.isatty() else text, nl=False)


def note(text: str) -> None:
    """A remark on stderr, dimmed where that is possible."""
    typer.echo(typer.style(text, dim=True), err=True)


def speed(tokens: int, timing: Mapping[str, float], ending: str = "") -> None:
    """The line below an answer; `ending` ends it."""
    first, rate = timing["ttft_s"], timing["decode_tokens_per_s"]
    note(f"{tokens} tokens, {rate:.1f} tokens/s, the first after {first:.2f} s{ending}")


def megabytes(size: int) -> str:
    """`98.4 MB`."""
    return f"{size / 1e6:,.1f} MB"


@contextmanager
def progress() -> Iterator[Progress | None]:
    """A progress listener that draws bars on stderr, one a phase; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from webllm.needs import needs_text

    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(event: dict[str, Any]) -> None:
            phase = event["phase"]
            if phase == "memory":  # told before there is anything to draw
                bars.console.print(needs_text(event, event["context"]), style="dim", highlight=False)
                return
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=event["total"])
            bars.update(tasks[phase], completed=event["loaded"])

        yield show

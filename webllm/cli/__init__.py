"""The command line: `webllm COMMAND`. Each command's work is in the library; here are options, output and exit codes.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. With `--json` stdout gets exactly one JSON object, an
error included. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from webllm import __version__
from webllm.cli import bench, chat, doctor, files, generate, page, plan, text, tune
from webllm.cli.output import fail, note
from webllm.cli.running import runtime_folder
from webllm.errors import SoftwareAdapterWarning, WebLLMError

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    name="webllm",
    help="Large language models on your own GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, command, panel in (
    ("chat", chat.chat, "Run a model"),
    ("generate", generate.generate, "Run a model"),
    ("pull", files.pull, "Models on this machine"),
    ("list", files.list_models, "Models on this machine"),
    ("rm", files.rm, "Models on this machine"),
    ("convert", files.convert, "Models on this machine"),
    ("tokenize", text.tokenize, "Look inside"),
    ("detokenize", text.detokenize, "Look inside"),
    ("plan", plan.plan, "Look inside"),
    ("bench", bench.bench, "Look inside"),
    ("doctor", doctor.doctor, "Look inside"),
    ("tune", tune.tune, "Run a model"),
    ("site", page.site, "In the browser"),
    ("demo", page.demo, "In the browser"),
):
    app.command(name, rich_help_panel=panel)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"webllm {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Large language models on your own GPU."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status. arguments: those of the process, if not given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings(), runtime_folder():
        warnings.simplefilter("default", SoftwareAdapterWarning)
        warnings.showwarning = _show_warning
        status = _run(arguments, as_json="--json" in arguments)
    sys.exit(status)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    note(f"webllm: {message}")


def _run(arguments: Sequence[str], as_json: bool) -> int:
    """The exit status; every failure is told once."""
    try:
        status: int = app(arguments, prog_name="webllm", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _wrong_usage(error, as_json)
    except (WebLLMError, OSError) as error:
        return fail(type(error).__name__, str(error), as_json)
    except Exception as error:
        traceback.print_exc()
        return fail(type(error).__name__, f"a bug in webllm: {error}", as_json)
    if status == INTERRUPTED:
        return fail("Interrupted", "interrupted", as_json, INTERRUPTED)
    return status


def _wrong_usage(error: typer.TyperException, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    message, command = error.format_message(), context.command_path if context else "webllm"
    if as_json:
        return fail("UsageError", message, as_json, error.exit_code)
    if message:  # `webllm` alone has shown its help already
        typer.echo(f"{command}: {message}\nTry '{command} --help'.", err=True)
    return error.exit_code

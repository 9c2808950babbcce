"""`webllm site` and `demo`: the chat page, as a folder to publish or at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from webllm.cli.options import Json
from webllm.cli.output import emit, progress
from webllm.errors import WebLLMError


def site(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write.", file_okay=False, show_default=False)
    ],
    model: Annotated[str | None, typer.Option(help="A model to put into it.")] = None,
    as_json: Json = False,
) -> None:
    """Write the chat page as a folder that any web server can publish."""
    from webllm.pull import pull
    from webllm.site import Parts, build_site

    with progress() as on_progress:
        file = None if model is None else pull(model, on_progress)
    path = build_site(out, model=file, parts=Parts.find())
    emit({"path": str(path)}, as_json, str(path))


def demo(
    headless: Annotated[
        bool | None,
        typer.Option("--headless/--window", help="Drive headless Chromium.", show_default="where there is no display"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> int:
    """Serve the chat page with the default model on this machine and open it."""
    try:
        from webllm.demo import run_demo
    except ImportError as error:
        raise WebLLMError(f"the demo needs {error.name}: pip install 'webllm[serve]'") from error
    return run_demo(headless, port)

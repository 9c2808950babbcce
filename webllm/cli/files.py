"""`webllm pull`, `list` and `rm`: models in the cache folder."""

from __future__ import annotations

from typing import Annotated

import typer

from webllm.catalog import CATALOG
from webllm.cli.options import Json, Model
from webllm.cli.output import emit, megabytes, progress


def pull(model: Model, as_json: Json = False) -> None:
    """Fetch a model into the cache folder and print its path.

    The folder is WEBLLM_CACHE, or webllm in the user's cache folder.
    """
    from webllm.pull import pull

    with progress() as on_progress:
        path = pull(model, on_progress)
    emit({"path": str(path)}, as_json, str(path))


def list_models(as_json: Json = False) -> None:
    """List the short names, and which of them are on this machine."""
    from webllm.pull import cached

    paths = {name: cached(name) for name in CATALOG}
    models = [
        {
            "name": entry.name,
            "description": entry.description,
            "bytes": entry.size,
            "licence": entry.licence,
            "path": str(path) if (path := paths[entry.name]) else None,
        }
        for entry in CATALOG.values()
    ]
    lines = (
        f"{e.name}  {megabytes(e.size)}  {e.description}\n  {paths[e.name] or 'not here yet'}" for e in CATALOG.values()
    )
    emit({"models": models}, as_json, "\n".join(lines))


def rm(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A short name (webllm list).", show_default=False)],
    as_json: Json = False,
) -> None:
    """Delete a model from the cache folder. What is not there is as good as deleted: the status is 0 then too."""
    from webllm.pull import remove

    removed = remove(model)
    emit({"removed": removed}, as_json, f"{model} was removed" if removed else f"{model} was not there")

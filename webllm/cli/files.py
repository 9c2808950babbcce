"""`webllm pull`, `list` and `rm`: models in the cache folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from webllm import catalog
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
    """List the short names: what they take, where they come from, and which are on this machine."""
    from webllm.pull import cached

    models = [{**one, "path": _path(cached(one["name"])) if one["tested"] else None} for one in catalog.list_models()]
    emit({"models": models}, as_json, "\n".join(map(_described, models)))


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _described(model: Mapping[str, Any]) -> str:
    size = megabytes(model["bytes"]) if model["tested"] else "untested"
    needs = f"{megabytes(model['memory'])} on the GPU at a context of 4096, {model['licence']}"
    return f"{model['name']}  {size}  {model['description']}\n  {needs}\n  {model['path'] or model['source']}"


def rm(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A short name (webllm list).", show_default=False)],
    as_json: Json = False,
) -> None:
    """Delete a model from the cache folder. What is not there is as good as deleted: the status is 0 then too."""
    from webllm.pull import remove

    removed = remove(model)
    emit({"removed": removed}, as_json, f"{model} was removed" if removed else f"{model} was not there")

"""`webllm pull`, `list`, `rm` and `convert`: models on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from webllm import catalog
from webllm.cli.options import Json, Model
from webllm.cli.output import emit, megabytes, progress
from webllm.cli.running import run

if TYPE_CHECKING:
    from webllm.cache_folder import KeptModel


def pull(model: Model, as_json: Json = False) -> None:
    """Fetch a model into the cache folder and print its path.

    The folder is WEBLLM_CACHE, or webllm in the user's cache folder.
    """
    from webllm.pull import pull

    with progress() as on_progress:
        path = pull(model, on_progress)
    emit({"path": str(path)}, as_json, str(path))


def list_models(as_json: Json = False) -> None:
    """List the short names: what they take, where they come from, which are on this machine. Imported models too."""
    from webllm.cache_folder import kept_model, kept_models

    known = catalog.list_models()
    models = [{**one, "path": _path(kept_model(one["name"]))} for one in known]
    names = [one["name"] for one in known]
    models += [_imported(model) for model in kept_models() if model.name not in names]
    emit({"models": models}, as_json, "\n".join(map(_described, models)))


def _path(model: KeptModel | None) -> str | None:
    return str(model.path) if model and model.complete else None


def _imported(model: KeptModel) -> dict[str, Any]:
    nothing = dict.fromkeys(("source", "revision", "memory", "context", "licence"))
    known = {"name": model.name, "description": "imported", "sha256": model.sha256, "bytes": model.size}
    return {**nothing, **known, "tested": True, "path": _path(model)}


def _described(model: Mapping[str, Any]) -> str:
    size = megabytes(model["bytes"]) if model["tested"] else "untested"
    needs = f"{megabytes(model['memory'])} on the GPU at a context of 4096, {model['licence']}"
    where = model["path"] or model["source"] or "not all of it is here"
    lines = [f"{model['name']}  {size}  {model['description']}", needs if model["memory"] else "", where]
    return "\n  ".join(filter(None, lines))


def rm(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A short name (webllm list).", show_default=False)],
    as_json: Json = False,
) -> None:
    """Delete a model from the cache folder. What is not there is as good as deleted: the status is 0 then too."""
    from webllm.cache_folder import remove

    removed = remove(model)
    emit({"removed": removed}, as_json, f"{model} was removed" if removed else f"{model} was not there")


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A folder in Hugging Face's layout.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", file_okay=False)],
    quant: Annotated[
        Literal["q4", "f16"], typer.Option(help="4 bits and a scale for each 32 weights, or halves.")
    ] = "q4",
    as_json: Json = False,
) -> None:
    """Write a model anew, quantised, as a folder of hashed shards for a static server (in MLC's layout)."""
    from webllm.convert import convert

    with progress() as on_progress:
        path = run(convert(source, out, quant, on_progress))
    emit({"path": str(path)}, as_json, str(path))

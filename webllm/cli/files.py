"""`webllm pull`, `list` and `rm`: models in the cache folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.catalog import CATALOG
from webllm.cli.options import Json, Model
from webllm.cli.output import emit, megabytes, progress

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
    """List the short names, and which of them are on this machine; and the models that were imported."""
    from webllm.cache_folder import kept_model, kept_models

    names = dict.fromkeys([*CATALOG, *(model.name for model in kept_models())])
    models = [_described(model) for name in names if (model := kept_model(name))]
    lines = (
        f"{m['name']}  {megabytes(m['bytes'])}  {m['description']}\n  {m['path'] or 'not here yet'}" for m in models
    )
    emit({"models": models}, as_json, "\n".join(lines))


def _described(model: KeptModel) -> dict[str, Any]:
    entry = CATALOG.get(model.name)
    return {
        "name": model.name,
        "description": entry.description if entry else "imported",
        "bytes": model.size,
        "licence": entry.licence if entry else None,
        "path": str(model.path) if model.complete else None,
    }


def rm(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A short name (webllm list).", show_default=False)],
    as_json: Json = False,
) -> None:
    """Delete a model from the cache folder. What is not there is as good as deleted: the status is 0 then too."""
    from webllm.cache_folder import remove

    removed = remove(model)
    emit({"removed": removed}, as_json, f"{model} was removed" if removed else f"{model} was not there")

"""Model files for a command, opened without a GPU: fetched, read as far as the header, or made of a config.json."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from webllm.cli.options import DEFAULT_QUANT
from webllm.cli.output import progress
from webllm.errors import BadModel

if TYPE_CHECKING:
    from webllm.checkpoint import Checkpoint, Source
    from webllm.checkpoint.gguf import Gguf
    from webllm.device import Progress


@asynccontextmanager
async def header(model: str) -> AsyncIterator[tuple[Gguf, Source]]:
    """A model file's header, and the file, which is open inside the block."""
    from webllm import host
    from webllm.checkpoint.gguf import read_gguf

    with progress() as on_progress:
        source = await host.current().open_source(local(model, on_progress), on_progress)
    try:
        yield await read_gguf(source), source
    finally:
        source.close()


def local(model: str, on_progress: Progress | None) -> str | Path:
    """The model's file, fetched if need be, or its URL. Not in a thread, so that Ctrl-C stops a download."""
    from webllm.pull import pull

    return model if model.startswith(("http://", "https://")) else pull(model, on_progress)


@asynccontextmanager
async def open_checkpoint(model: str, quant: str | None) -> AsyncIterator[Checkpoint]:
    """A model's checkpoint, or what a configuration makes of one. Files are open inside the block.

    quant: of a configuration only; None for `DEFAULT_QUANT`.
    """
    from webllm.checkpoint.gguf_model import checkpoint_from_gguf
    from webllm.synthetic import checkpoint_from_config

    path = _config_file(Path(model))
    if path is not None:
        yield checkpoint_from_config(_read_config(path), quant or DEFAULT_QUANT)
        return
    if quant is not None and Path(model).suffix != ".json":  # a .json that is not there is told below
        raise typer.BadParameter("--quant is for a config.json; this model has its own")
    async with header(model) as (gguf, source):
        yield checkpoint_from_gguf(gguf, source)


def _config_file(path: Path) -> Path | None:
    """The configuration that `path` is, or that it holds where it is a folder without a model."""
    if path.is_dir() and not any(path.glob("*.gguf")):
        path = path / "config.json"
    return path if path.suffix == ".json" and path.is_file() else None


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadModel(f"{path}: no JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadModel(f"{path}: a configuration is a JSON object, this is {type(config).__name__}")
    return config

"""Model files for a command, opened without a GPU: fetched, read as far as the header, or made of a config.json."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from webllm.cli.options import DEFAULT_QUANT
from webllm.cli.output import progress

if TYPE_CHECKING:
    from webllm.checkpoint import Checkpoint, Vocabulary
    from webllm.device import Progress

WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt", ".pth")


def local(model: str, on_progress: Progress | None) -> str | Path:
    """The model's file or folder, fetched if need be, or its URL. Not in a thread, so that Ctrl-C stops a download."""
    from webllm.pull import pull

    return model if model.startswith(("http://", "https://")) else pull(model, on_progress)


@asynccontextmanager
async def opened(model: str, quant: str | None) -> AsyncIterator[Checkpoint]:
    """A model's checkpoint, or what a configuration makes of one. Files are open inside the block.

    quant: as `webllm.load` takes it; of a configuration any that `webllm.synthetic` knows, None for `DEFAULT_QUANT`.
    """
    from webllm.opening import open_checkpoint
    from webllm.quantize import QUANTS, quantised
    from webllm.synthetic import checkpoint_from_config

    path = _config_file(Path(model))
    if path is not None:
        yield checkpoint_from_config(_read_config(path), quant or DEFAULT_QUANT)
        return
    if quant is not None and quant not in QUANTS:
        raise typer.BadParameter(f"--quant {quant} is for a config.json; a model takes {', '.join(QUANTS)}")
    with progress() as on_progress:
        checkpoint = await open_checkpoint(local(model, on_progress), on_progress)
    try:
        yield quantised(checkpoint, quant)
    finally:
        for source in checkpoint.sources:
            await source.aclose()


async def open_vocabulary(model: str) -> Vocabulary | None:
    """A model's vocabulary; its weights may be missing."""
    from webllm import opening

    with progress() as on_progress:
        return await opening.open_vocabulary(local(model, on_progress), on_progress)


def _config_file(path: Path) -> Path | None:
    """The configuration that `path` is, or that it holds where it is a folder without weights."""
    if path.is_dir() and not any(file.suffix in WEIGHTS for file in path.iterdir()):
        path = path / "config.json"
    return path if path.suffix == ".json" and path.is_file() else None


def _read_config(path: Path) -> Mapping[str, Any]:
    from webllm.checkpoint.bounded_json import json_object

    return json_object(path.read_bytes(), str(path))

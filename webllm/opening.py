"""From whatever names a model to its checkpoint: one function for each kind of file reads the headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webllm import host
from webllm.catalog import generation_of
from webllm.checkpoint import Checkpoint, Vocabulary
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf, vocabulary_from_gguf
from webllm.checkpoint.hf_folder import checkpoint_from_folder, refuse_pickle, vocabulary_from_folder
from webllm.device import Progress, Seconds


async def open_checkpoint(
    location: Any, on_progress: Progress | None = None, seconds: Seconds | None = None
) -> Checkpoint:
    """Read a model's headers; its files are open then, and no weight is read.

    location: as `webllm.load` takes it. seconds: gets what the parts took, "source" and "header". Raises a `ModelError`
    or a `FetchError`; then no file stays open.
    """
    seconds = Seconds() if seconds is None else seconds
    refuse_pickle(str(location))
    with seconds.of("source"):
        folder = await host.current().open_folder(location)
        source = None if folder else await host.current().open_source(location, on_progress)
    with seconds.of("header"):
        if folder:
            return await checkpoint_from_folder(folder)
        assert source is not None
        try:
            checkpoint = checkpoint_from_gguf(await read_gguf(source), source)
        except BaseException:
            await source.aclose()
            raise
        own: Mapping[str, Any] = checkpoint.generation
        return replace(checkpoint, generation={**generation_of(source.name), **own})


async def open_vocabulary(location: Any, on_progress: Progress | None = None) -> Vocabulary | None:
    """A model's vocabulary; its weights may be missing. None if it has none."""
    refuse_pickle(str(location))
    if folder := await host.current().open_folder(location):
        return await vocabulary_from_folder(folder)
    source = await host.current().open_source(location, on_progress)
    try:
        return vocabulary_from_gguf(await read_gguf(source))
    finally:
        await source.aclose()

"""From whatever names a model to its checkpoint: one function for each kind of file reads the headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webllm import host
from webllm.catalog import generation_of
from webllm.checkpoint import Checkpoint, Source, Vocabulary
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf, vocabulary_from_gguf
from webllm.checkpoint.gguf_split import joined, other_parts
from webllm.checkpoint.hf_folder import checkpoint_from_folder, refuse_pickle, vocabulary_from_folder
from webllm.checkpoint.mlc import checkpoint_from_mlc
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
        location = await host.current().locate(location, on_progress)
        folder = await host.current().open_folder(location)
        source = None if folder else await host.current().open_source(location, on_progress)
    with seconds.of("header"):
        if folder:
            return await checkpoint_from_mlc(folder) or await checkpoint_from_folder(folder)
        assert source is not None
        checkpoint = await _from_gguf(source, location)
        own: Mapping[str, Any] = checkpoint.generation
        return replace(checkpoint, generation={**generation_of(source.name), **own})


async def _from_gguf(source: Source, location: Any) -> Checkpoint:
    """The checkpoint of a GGUF file, whose other parts are opened too. A failure closes all."""
    sources = [source]
    try:
        gguf = await read_gguf(source)
        parts = [gguf]
        for part in other_parts(gguf, location):
            await sources[-1].pause()
            sources.append(await host.current().open_source(part))
            parts.append(await read_gguf(sources[-1]))
        return checkpoint_from_gguf(joined(parts) if len(parts) > 1 else gguf, *sources)
    except BaseException:
        for one in sources:
            await one.aclose()
        raise


async def open_vocabulary(location: Any, on_progress: Progress | None = None) -> Vocabulary | None:
    """A model's vocabulary; its weights may be missing. None if it has none."""
    refuse_pickle(str(location))
    location = await host.current().locate(location, on_progress)
    if folder := await host.current().open_folder(location):
        return await vocabulary_from_folder(folder)
    source = await host.current().open_source(location, on_progress)
    try:
        return vocabulary_from_gguf(await read_gguf(source))
    finally:
        await source.aclose()

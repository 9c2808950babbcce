"""The models that stay on this machine: in the cache folder natively, in the browser's own store in a page.

    import webllm

    for model in await webllm.cache.list():
        print(model["name"], model["stored_bytes"], "of", model["bytes"])
    await webllm.cache.delete("smollm2-135m-instruct")

A model is known by its name, its key or its URL. `webllm.sync.cache` is the same without await, and
`window.webllm.cache` the same in JavaScript. `on_progress` gets {"phase", "loaded", "total", "tensors", "seconds"}, in
bytes.
"""

from __future__ import annotations

import builtins
from typing import Any

from webllm import host
from webllm.checkpoint import StoredModel
from webllm.device import Progress


async def list() -> builtins.list[StoredModel]:
    """All models that are here, whole or in part; the last used first."""
    return await host.current().Store().list()


async def verify(name: str, on_progress: Progress | None = None) -> bool:
    """Read a model and compare it with its hashes: whether all of it is here and right.

    What is damaged is dropped, and fetched again by the next load. Raises `ModelNotFound` where nothing has this name.
    """
    return await host.current().Store().verify(name, on_progress)


async def delete(name: str) -> bool:
    """Delete a model, or what there is of it; whether there was any.

    Raises `RequestError` in the browser while a page fetches it; natively it waits for that.
    """
    return await host.current().Store().delete(name)


async def export(name: str) -> Any:
    """The model as one file: natively its path in the cache folder, in the browser a JavaScript `File`.

    Raises `ModelNotFound`, also where a part of it is missing.
    """
    return await host.current().Store().export(name)


async def import_(file: Any, name: str | None = None, on_progress: Progress | None = None) -> StoredModel:
    """Keep a copy of a model file under `name`, by which `webllm.load` then finds it.

    file: a path, in the browser a `File` or `Blob`. name: default the file's, without .gguf. Raises `RequestError` for
    a name that is taken or no name of a file, `StorageFull` where there is no room.

    await webllm.cache.import_("tiny.gguf", "tiny")
    llm = await webllm.load("tiny")
    """
    return await host.current().Store().import_(file, name, on_progress)

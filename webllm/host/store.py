"""`webllm.cache` natively: the cache folder, in threads, with progress on the caller's loop."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import hf_hub_url

from webllm.cache_folder import (
    KeptModel,
    OnProgress,
    Progress,
    keep_copy,
    kept_models,
    locked,
    remove,
    sha256_of,
)
from webllm.catalog import CATALOG
from webllm.checkpoint import StoredModel
from webllm.errors import ModelNotFound

T = TypeVar("T")


class CacheStore:
    """See `host.Store`."""

    async def list(self) -> builtins.list[StoredModel]:
        """See `webllm.cache.list`."""
        return [_described(model) for model in await asyncio.to_thread(kept_models)]

    async def verify(self, name: str, on_progress: OnProgress | None = None) -> bool:
        """See `webllm.cache.verify`."""
        model = _find(name)
        return await in_thread(lambda tell: _verify(model, tell), on_progress)

    async def delete(self, name: str) -> bool:
        """See `webllm.cache.delete`."""
        try:
            model = _find(name)
        except ModelNotFound:
            return False
        return await asyncio.to_thread(remove, model.name)

    async def export(self, name: str) -> Path:
        """See `webllm.cache.export`."""
        model = _find(name)
        if not model.complete:
            have = f"{model.stored_bytes:,} of {model.size:,} bytes are here"
            raise ModelNotFound(f"{name}: {have}; webllm.load or `webllm pull` fetches the rest")
        return model.path

    async def import_(self, file: Any, name: str | None = None, on_progress: OnProgress | None = None) -> StoredModel:
        """See `webllm.cache.import_`."""
        path = Path(file)
        name = path.name.removesuffix(".gguf") if name is None else name
        return _described(await in_thread(lambda tell: keep_copy(path, name, tell), on_progress))


def _find(name: str) -> KeptModel:
    """By name, key or URL."""
    models = kept_models()
    for model in models:
        if name in (model.name, model.sha256, _url(model)):
            return model
    known = ", ".join(model.name for model in models) or "none"
    raise ModelNotFound(f"no model {name!r} is stored here; there are: {known}")


def _verify(model: KeptModel, tell: OnProgress | None) -> bool:
    """What is wrong is deleted: a file in the cache folder counts as right."""
    progress = Progress(tell, model.size)
    with locked(model.path.parent):
        if not model.complete:
            return False
        with model.path.open("rb") as file:
            right = sha256_of(file, lambda loaded: progress.tell("verify", loaded)) == model.sha256
        if not right:
            model.path.unlink()
    return right


def _described(model: KeptModel) -> StoredModel:
    return {
        "name": model.name,
        "key": model.sha256,
        "url": _url(model),
        "bytes": model.size,
        "stored_bytes": model.stored_bytes,
        "complete": model.complete,
        "sha256": model.sha256,
        "last_used": model.last_used,
    }


def _url(model: KeptModel) -> str | None:
    if (entry := CATALOG.get(model.name)) is None:
        return None
    return hf_hub_url(entry.repo, entry.filename, revision=entry.revision)


async def in_thread(work: Callable[[OnProgress | None], T], on_progress: OnProgress | None) -> T:
    """`work`, whose progress is told on the caller's loop; where the caller is cancelled, it ends at its next piece."""
    loop, cancelled = asyncio.get_running_loop(), False

    def tell(progress: dict[str, Any]) -> None:
        if cancelled:
            raise asyncio.CancelledError  # from the thread
        if on_progress:
            loop.call_soon_threadsafe(on_progress, progress)

    try:
        return await asyncio.to_thread(work, tell)
    except asyncio.CancelledError:
        cancelled = True
        raise

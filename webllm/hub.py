"""Fetches models from the Hugging Face Hub through `huggingface_hub`: its tokens, cache, mirrors and offline mode.

Native only. What is in the Hub's cache (HF_HOME) is not fetched again; HF_ENDPOINT names a mirror, HF_TOKEN who asks,
HF_HUB_OFFLINE=1 forbids the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2 as httpx
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from webllm.errors import FetchError, ModelNotFound
from webllm.hub_place import HubPlace, endpoint, wanted_files

OnProgress = Callable[[dict[str, Any]], None]

_WAYS = {
    401: "it is private or its name is wrong; set HF_TOKEN to a token that may read it",
    403: "it is gated: accept its terms on the Hub and set HF_TOKEN to your token",
    429: "the Hub has had too many requests from here: wait a while, or set HF_TOKEN",
}


def fetch(place: HubPlace, on_progress: OnProgress | None = None) -> Path:
    """The file or folder on this machine. Raises `ModelNotFound` or `FetchError`, with the way out.

    on_progress: gets {"phase": "download", "loaded", "total" (bytes), "tensors", "seconds"}. A download that was
    interrupted goes on where it stopped.

        path = fetch(HubPlace("mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC"))
    """
    with _named_errors(place):
        sizes = _sizes(place)
        files = wanted_files(place, list(sizes))
        meter = _meter(on_progress, sum(sizes.get(file) or 0 for file in files))
        paths = [
            Path(hf_hub_download(place.repo, file, revision=place.revision, endpoint=endpoint(), tqdm_class=meter))
            for file in files
        ]
    return paths[0] if files[0].endswith(".gguf") else paths[0].parent


def _sizes(place: HubPlace) -> dict[str, int | None]:
    """Files of the repository and their bytes; of what is in the cache where the network is forbidden."""
    if constants.is_offline_mode():
        folder = Path(snapshot_download(place.repo, revision=place.revision, local_files_only=True))
        return {str(path.relative_to(folder).as_posix()): None for path in folder.rglob("*") if path.is_file()}
    info = HfApi(endpoint=endpoint()).model_info(place.repo, revision=place.revision, files_metadata=True)
    return {one.rfilename: one.size for one in info.siblings or ()}


@contextmanager
def _named_errors(place: HubPlace) -> Iterator[None]:
    who = f"{place.repo} ({endpoint()}, revision {place.revision})"
    try:
        yield
    except RevisionNotFoundError as error:
        raise ModelNotFound(f"{who}: no such revision") from error
    except GatedRepoError as error:
        raise FetchError(f"{who}: {_WAYS[403]}") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(f"{who}: the Hub knows no such model, or {_WAYS[401]}") from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the Hub is out of reach"
        raise FetchError(
            f"{who}: {why}, and the Hub's cache has not all of it; fetch it once with a network"
        ) from error
    except EntryNotFoundError as error:
        raise ModelNotFound(f"{who}: {str(error).splitlines()[0][:200]}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise FetchError(f"{who}: HTTP {status}; {_WAYS.get(status, 'try again later')}") from error
    except (OSError, httpx.HTTPError) as error:
        raise FetchError(
            f"{who}: {type(error).__name__}: {str(error)[:200]}; check the network and the disk"
        ) from error


def _meter(on_progress: OnProgress | None, total: int) -> type[tqdm]:
    """A bar that draws nothing and tells `on_progress` what has come of all files."""
    started, done = time.monotonic(), [0]

    class Meter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": StringIO(), "disable": False})  # type: ignore[no-untyped-call]
            self._add(self.n)

        def update(self, n: float | None = 1) -> bool | None:
            self._add(n or 0)
            return bool(super().update(n))

        def _add(self, count: float) -> None:
            done[0] += int(count)
            if on_progress:
                seconds = round(time.monotonic() - started, 3)
                loaded = min(done[0], total)
                on_progress({"phase": "download", "loaded": loaded, "total": total, "tensors": 0, "seconds": seconds})

    return Meter

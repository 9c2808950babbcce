"""Models of several files, in a folder of this machine or of a web server. Native only."""

from __future__ import annotations

from pathlib import Path

from webllm.checkpoint import Source
from webllm.errors import BadModel, FetchError, ModelNotFound
from webllm.host.files import FileSource, HttpSource


class LocalFolder:
    """A folder on disk.

    await LocalFolder("SmolLM2-135M-Instruct").open("model.safetensors")
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._path = Path(path)

    async def read(self, name: str, limit: int) -> bytes | None:
        """See `Folder.read`."""
        path = self._path / name
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise FetchError(f"{path}: cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise too_large(str(path), limit)
        return data

    async def open(self, name: str) -> Source | None:
        """See `Folder.open`."""
        path = self._path / name
        return FileSource(path) if path.is_file() else None


class HttpFolder:
    """What lies below an address that ends with a slash.

    await HttpFolder("https://example.org/SmolLM2-135M-Instruct/").read("config.json", 1 << 20)
    """

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")

    async def read(self, name: str, limit: int) -> bytes | None:
        """See `Folder.read`. Raises `FetchError` where the server fails."""
        url = f"{self.name}/{name}"
        try:
            source = await HttpSource.open(url)
        except ModelNotFound:
            return None
        try:
            if source.size > limit:
                raise too_large(url, limit)
            return await source.read(0, source.size)
        finally:
            await source.aclose()

    async def open(self, name: str) -> Source | None:
        """See `Folder.open`."""
        try:
            return await HttpSource.open(f"{self.name}/{name}")
        except ModelNotFound:
            return None


def too_large(name: str, limit: int) -> BadModel:
    """What is raised for a file that should be small."""
    return BadModel(f"{name}: it has more than the {limit:,} bytes that are read of such a file")

"""Bytes of model files on this machine and on web servers. Native only: the browser has its own in JavaScript."""

from __future__ import annotations

import asyncio
import mmap
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx

from webllm.errors import FetchError, ModelNotFound, Truncated

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)  # seconds; the first is for a silent server, not for the whole file
_SKIP = 1 << 20  # a gap up to this many bytes is read over rather than asked around
_PIECE = 256 << 10
_KEEP = 32 << 20  # bytes of a file on disk that stay in memory behind the last read
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class BytesSource:
    """Bytes at hand.

    await BytesSource(b"GGUF").read(0, 4)  # b"GGUF"
    """

    name = "memory"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; `Truncated` if there are fewer."""
        check_range(self.name, self.size, offset, size)
        return self._data[offset : offset + size]

    async def pause(self) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Nothing to let go of."""

    async def aclose(self) -> None:
        """Nothing to let go of."""


class FileSource:
    """A file on disk, mapped into memory. `read` copies nothing.

        source = FileSource("model.gguf")
        await source.read(0, 4)  # memoryview of b"GGUF"

    Raises `ModelNotFound` where there is no such file. Slices that were handed out stay valid after `close`.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        try:
            with open(path, "rb") as file:
                self.size = file.seek(0, 2)
                # an empty file cannot be mapped
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ModelNotFound(f"{self.name}: {error.strerror}; give the path of a model file") from error
        except OSError as error:
            raise FetchError(f"{self.name}: cannot be read: {error.strerror}") from error
        self._view = memoryview(mapped)
        self._kept = 0  # pages from here on may be in memory

    async def read(self, offset: int, size: int) -> memoryview:
        """Exactly `size` bytes from `offset`; `Truncated` if the file ends before."""
        check_range(self.name, self.size, offset, size)
        if not self._kept <= offset <= self._kept + _KEEP:
            self._let_go(offset - offset % mmap.ALLOCATIONGRANULARITY)
        return self._view[offset : offset + size]

    def _let_go(self, offset: int) -> None:
        """Tell the system that pages before `offset` are not wanted, where it listens: read once, a file of gigabytes
        would count as memory of this process. Slices that were handed out stay right; their pages come back."""
        if offset > self._kept and hasattr(mmap, "MADV_DONTNEED") and isinstance(self._view.obj, mmap.mmap):
            self._view.obj.madvise(mmap.MADV_DONTNEED, self._kept, offset - self._kept)
        self._kept = offset

    async def pause(self) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Let go of the file; its memory is unmapped when the last slice is gone."""
        self._view = memoryview(b"")
        self.size = 0

    async def aclose(self) -> None:
        """See `close`."""
        self.close()


class HttpSource:
    """A file on a web server, read through one streaming response that is reopened only to go elsewhere.

    With a server that knows Range requests a jump costs one new request; without, going back starts the file again
    and going forward reads what lies between.

        source = await HttpSource.open("http://127.0.0.1:8000/model.gguf")
        head = await source.read(0, 1 << 18)
        await source.aclose()
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.name, self.size = url, 0
        self._client = client
        self._response: httpx.Response | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._rest = memoryview(b"")  # came with the last piece, not yet asked for
        self._position = 0  # of the first byte of `_rest`
        self._ranges = True
        self._lock = asyncio.Lock()  # one stream, one reader at a time

    @classmethod
    async def open(cls, url: str, timeout: httpx.Timeout = _TIMEOUT) -> HttpSource:
        """Ask for the file and learn its size. Raises `ModelNotFound` or `FetchError`, naming URL and status."""
        # identity: a compressed body has other offsets than the file
        headers = {"Accept-Encoding": "identity"}
        source = cls(url, httpx.AsyncClient(timeout=timeout, follow_redirects=True, headers=headers))
        try:
            await source._go_to(0)
        except BaseException:
            await source.aclose()
            raise
        return source

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`.

        Raises `Truncated` past the end of the file and `FetchError` when the server fails or the file changed.
        """
        check_range(self.name, self.size, offset, size)
        async with self._lock:
            return await self._read(offset, size)

    async def _read(self, offset: int, size: int) -> bytes:
        near = self._pieces is not None and 0 <= offset - self._position <= (_SKIP if self._ranges else self.size)
        if not near:
            await self._go_to(offset)
        await self._skip(offset - self._position)
        parts = [await self._take(size)]
        while (have := sum(map(len, parts))) < size:
            parts.append(await self._take(size - have))
        return b"".join(parts)

    async def pause(self) -> None:
        """Let the response go; the next read opens another."""
        await self._drop()

    def close(self) -> None:
        """Stop reading. The connection goes with the object; `aclose` ends it at once."""
        self._pieces = None

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        await self._drop()
        await self._client.aclose()

    async def _drop(self) -> None:
        response, self._response, self._pieces = self._response, None, None
        if response is not None:
            with suppress(httpx.HTTPError):
                await response.aclose()

    async def _go_to(self, offset: int) -> None:
        """Open a response that begins at `offset`, or at 0 if the server sends whole files only."""
        await self._drop()
        request = self._client.build_request("GET", self.name, headers={"Range": f"bytes={offset}-"})
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"{self.name}: {_reason(error)}; check the address and the network") from error
        self._response = response
        start, size = self._place(response, offset)
        if self.size not in (0, size):
            raise FetchError(f"{self.name}: the file had {self.size} bytes and now has {size}: load the model again")
        self.size, self._position, self._rest = size, start, memoryview(b"")
        self._pieces = response.aiter_raw(_PIECE)

    def _place(self, response: httpx.Response, offset: int) -> tuple[int, int]:
        """(where the body starts, size of the file), from status and headers."""
        status = response.status_code
        if status in (404, 410):
            raise ModelNotFound(f"{self.name}: the server has no such file (HTTP {status}); check the address")
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if status == 206 and found and int(found[1]) == offset:
            self._ranges = True
            return offset, int(found[2])
        length = response.headers.get("Content-Length", "")
        if status == 200 and length.isdecimal():
            self._ranges = False
            return 0, int(length)
        if status == 416 and response.headers.get("Content-Range") == "bytes */0":
            raise Truncated(f"{self.name}: the file is empty")
        wanted = "200 with a length, or 206 with the range that was asked for"
        raise FetchError(f"{self.name}: the server answered HTTP {status} {response.reason_phrase}; wanted {wanted}")

    async def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(await self._take(size))

    async def _take(self, size: int) -> memoryview:
        """Up to `size` of the next bytes; at least one, unless none is wanted."""
        if not self._rest and size:
            self._rest = memoryview(await self._next_piece())
        piece, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(piece)
        return piece

    async def _next_piece(self) -> bytes:
        if self._pieces is None:
            raise FetchError(f"{self.name}: read after close")
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            problem = "the answer ended"
        except httpx.HTTPError as error:
            problem = _reason(error)
        position = self._position
        await self._drop()
        raise FetchError(f"{self.name}: {problem} at byte {position} of {self.size}; try again")


def check_range(name: str, have: int, offset: int, size: int) -> None:
    """Refuse a read that is not wholly inside a file of `have` bytes."""
    if offset < 0 or size < 0 or offset + size > have:
        raise Truncated(f"{name}: wanted bytes {offset} to {offset + size}, but the file has {have}; fetch it anew")


def _reason(error: Exception) -> str:
    """The error's own words; some of httpx's have none."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

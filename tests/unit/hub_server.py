"""A local server that speaks as the Hugging Face Hub does: listing, resolve, redirect to another place, ETag, Range."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

REPO = "maker/tiny"
COMMIT = "c" * 40
LARGE = 1 << 16  # bytes from which files lie elsewhere, behind a redirect
REFUSALS = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound", 429: "", 500: ""}


@dataclass
class Hub:
    """files: of the one repository. refuse: status that everything gets. cut: bytes after which downloads break, each
    once."""

    files: dict[str, bytes]
    url: str = ""
    refuse: int | None = None
    token: str | None = None
    cut: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range

    @property
    def other(self) -> str:
        """The same server under another name, as the Hub's files lie on other machines."""
        return self.url.replace("127.0.0.1", "localhost")

    def app(self) -> Starlette:
        routes = [
            Route("/api/models/{repo:path}/revision/{revision}", self.listing),
            Route("/{owner}/{name}/resolve/{revision}/{file:path}", self.resolve, methods=["GET", "HEAD"]),
            Route("/elsewhere/{digest}", self.elsewhere, methods=["GET", "HEAD"]),
        ]
        return Starlette(routes=routes)

    def refused(self, request: Request) -> Response | None:
        self.asked.append((request.method, request.url.path, request.headers.get("range")))
        told = request.headers.get("authorization") == f"Bearer {self.token}"
        signed = request.url.path.startswith("/elsewhere/")
        status = self.refuse or (401 if self.token and not told and not signed else None)
        if status is None and not request.url.path.startswith((f"/api/models/{REPO}/", f"/{REPO}/", "/elsewhere/")):
            status = 404
        return None if status is None else self.error(status, REFUSALS[status])

    def error(self, status: int, code: str) -> Response:
        return Response(status_code=status, headers={"X-Error-Code": code, "X-Error-Message": code, "Retry-After": "0"})

    async def listing(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        if request.path_params["revision"] not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        siblings = [{"rfilename": name, "size": len(data), "blobId": digest(data)} for name, data in self.files.items()]
        return JSONResponse({"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "siblings": siblings})

    async def resolve(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        data = self.files.get(request.path_params["file"])
        if data is None:
            return self.error(404, "EntryNotFound")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(data)}"', "Accept-Ranges": "bytes"}
        if len(data) < LARGE:
            return self.body(request, data, headers)
        headers |= {"X-Linked-ETag": f'"{digest(data)}"', "X-Linked-Size": str(len(data))}
        return Response(status_code=302, headers=headers | {"Location": f"{self.other}/elsewhere/{digest(data)}"})

    async def elsewhere(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        data = next(data for data in self.files.values() if digest(data) == request.path_params["digest"])
        return self.body(request, data, {"ETag": f'"{digest(data)}"', "Accept-Ranges": "bytes"})

    def body(self, request: Request, data: bytes, headers: dict[str, str]) -> Response:
        start, status = 0, 200
        if wanted := request.headers.get("range"):
            start, status = int(wanted.removeprefix("bytes=").split("-")[0]), 206
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        headers = headers | {"Content-Length": str(len(data) - start)}
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        stop = start + self.cut.pop(0) if self.cut and len(data) >= LARGE else len(data)

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(start, min(stop, len(data)), 1 << 14):
                yield data[at : min(at + (1 << 14), stop)]

        return StreamingResponse(pieces(), status_code=status, headers=headers)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = uvicorn.Server(uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield hub
    finally:
        server.should_exit = True
        thread.join()

"""A web server on the loopback interface for one static folder: right MIME types, byte ranges, extra headers.

For the demo, the tests and trying a site before publishing it. It knows nothing of what lies in the folder.
Needs `pip install "webllm[serve]"`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, stat_result
from pathlib import Path

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webllm.errors import FetchError

# Python's own table depends on the system's: some have no .mjs or .wasm, and a browser then refuses the file.
MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
    ".gguf": "application/octet-stream",
}

START_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """One answered request, as the log callback gets it."""

    method: str
    path: str  # with the query, as the browser sent it
    status: int
    range: str | None  # the Range header


Log = Callable[[Request], None]


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str  # "http://127.0.0.1:PORT", no slash at the end
    folder: Path


def static_app(folder: Path, *, headers: Mapping[str, str] | None = None, on_request: Log | None = None) -> ASGIApp:
    """Return an ASGI app that serves `folder`.

    headers     are sent with every answer
    on_request  is called after each answer's headers are sent, on the server's thread
    """
    return _Outer(_Files(directory=folder, html=True), {"Cache-Control": "no-cache", **(headers or {})}, on_request)


@contextlib.contextmanager
def serve_in_thread(
    folder: Path, *, port: int = 0, headers: Mapping[str, str] | None = None, on_request: Log | None = None
) -> Iterator[Server]:
    """Serve `folder` on 127.0.0.1 while the block runs; port 0 takes a free one.

    with serve_in_thread(Path("build/site")) as server:
        print(server.url)
    """
    app = static_app(folder, headers=headers, on_request=on_request)
    with _bind(port) as sock:
        server = _Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="webllm-static", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield Server(f"http://127.0.0.1:{sock.getsockname()[1]}", folder)
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Hangs up at its end: a client that has stopped reading would outlive the event loop, half closed."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but no answer is waited for."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _bind(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise FetchError(f"port {port} of 127.0.0.1 cannot be had ({error.strerror}): choose another, or 0") from error
    return sock


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise FetchError(f"the web server did not start within {START_SECONDS:.0f} s")
        time.sleep(0.01)


class _Files(StaticFiles):
    """Starlette's static files, which answer byte ranges, with MIME types that do not depend on the system."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        media_type = MEDIA_TYPES.get(Path(full_path).suffix)
        if isinstance(response, FileResponse):
            response.chunk_size = 1 << 20  # a model is large
            if media_type is not None:
                response.headers["content-type"] = media_type
        return response


class _Outer:
    """Adds headers to every answer, errors too, and reports it."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str], on_request: Log | None) -> None:
        self.app, self.headers, self.on_request = app, headers, on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)
            if message["type"] == "http.response.start" and self.on_request is not None:
                self.on_request(_describe(scope, message["status"]))

        try:
            await self.app(scope, receive, send_more)
        except HTTPException as error:
            await Response(error.detail, error.status_code, error.headers)(scope, receive, send_more)


def _describe(scope: Scope, status: int) -> Request:
    query = scope["query_string"].decode("latin-1")
    path = scope["path"] + (f"?{query}" if query else "")
    return Request(scope["method"], path, status, Headers(scope=scope).get("range"))

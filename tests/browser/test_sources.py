"""Bytes of model files of which nothing is kept: servers with and without Range, servers that fail, picked files."""

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

pytestmark = pytest.mark.browser

SIZE = 6_000_000
CONTENT = bytes(range(251)) * (SIZE // 251 + 1)


class Handler(BaseHTTPRequestHandler):
    """/ranges honours Range, /plain does not, /short breaks off, /shifted sends other bytes, /NUMBER that status."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        asked = self.headers.get("Range", "")
        self.seen.append((self.path, asked))
        if self.path[1:].isdigit():
            return self.answer(int(self.path[1:]), b"")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        body = CONTENT[:SIZE]
        if self.path == "/ranges":
            return self.answer(206, body[start:], {"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}"})
        if self.path == "/shifted":
            return self.answer(206, body[start:], {"Content-Range": f"bytes {start + 4}-{SIZE - 1}/{SIZE}"})
        return self.answer(200, body[: SIZE // 2] if self.path == "/short" else body, length=SIZE)

    def answer(self, status, body, headers=None, length=None):
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range" if self.path == "/shifted" else "")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the browser may have what it wanted
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """Another origin than the page's, as a model hub is."""
    Handler.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def read(page, url):
    """read(location, [[offset, size], ...]) -> [file size, ends of each], or the error's name and text."""
    page.goto(f"{url}/site.json")

    def read(location, ranges):
        return page.evaluate(
            """async ([location, ranges]) => {
                const { openSource, prefetch } = await import("/modules/sources.js");
                prefetch({ url: location }, undefined, false);
                try {
                    const source = await openSource(location);
                    const ends = [];
                    for (const [offset, size] of ranges) {
                        const bytes = await source.read(offset, size);
                        ends.push([bytes.length, bytes[0], bytes.at(-1)]);
                    }
                    source.close();
                    return [source.size, ends];
                } catch ({ name, message }) {
                    return [name, message];
                }
            }""",
            [location, ranges],
        )

    return read


def ends(*ranges):
    return [[size, CONTENT[offset], CONTENT[offset + size - 1]] for offset, size in ranges]


HEADER_THEN_WEIGHTS = ([0, 1000], [1000, 200_000], [100_000, 500_000], [600_000, 1_000_000], [5_000_000, 1_000_000])


@pytest.mark.parametrize("path", ["ranges", "plain"])
def test_reading_forward_gives_the_right_bytes_from_any_server(read, server, path):
    assert read(f"{server}/{path}", HEADER_THEN_WEIGHTS) == [SIZE, ends(*HEADER_THEN_WEIGHTS)]


def test_what_came_is_kept_so_that_header_and_weights_are_one_request(read, server):
    read(f"{server}/ranges", HEADER_THEN_WEIGHTS[:4])
    assert Handler.seen == [("/ranges", "bytes=0-")]


def test_a_jump_forward_costs_one_request_where_the_server_knows_ranges(read, server):
    ranges = [[0, 100], [5_900_000, 100]]
    assert read(f"{server}/ranges", ranges) == [SIZE, ends(*ranges)]
    assert len(Handler.seen) <= 2


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [
        ("404", "ModelNotFound", "HTTP 404"),
        ("503", "FetchError", "HTTP 503"),
        ("short", "FetchError|Truncated", f"of {SIZE}"),
        ("shifted", "FetchError", "the range that was asked for"),
    ],
)
def test_a_failing_server_gives_a_named_error_with_the_address(read, server, path, name, words):
    came, message = read(f"{server}/{path}", [[0, SIZE]])
    assert re.fullmatch(name, came) and f"{server}/{path}" in message and words in message


def test_a_read_past_the_end_is_truncated(read, server):
    name, message = read(f"{server}/ranges", [[SIZE - 10, 20]])
    assert name == "Truncated" and f"has {SIZE}" in message


def test_a_server_that_is_not_there_is_a_fetch_error(read):
    name, message = read("http://127.0.0.1:9/x.gguf", [])
    assert name == "FetchError" and "127.0.0.1:9" in message


def test_a_picked_file_is_read_in_place(page, url):
    page.goto(f"{url}/site.json")
    read = """async () => {
        const { adoptFile, openSource } = await import("/modules/sources.js");
        adoptFile("mine.gguf", new File([Uint8Array.of(1, 2, 3, 4, 5)], "mine.gguf"));
        const source = await openSource("mine.gguf");
        const error = await source.read(3, 3).catch(({ name }) => name);
        return [source.name, source.size, [...(await source.read(1, 3))], error];
    }"""
    assert page.evaluate(read) == ["mine.gguf", 5, [2, 3, 4], "Truncated"]

"""Files on disk and on real web servers of this machine."""

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from webllm.errors import FetchError, ModelNotFound, Truncated
from webllm.host.files import FileSource, HttpSource

DATA = bytes(range(256)) * 20_000  # 5 MB: more than a socket's buffers hold


class RangeHandler(BaseHTTPRequestHandler):
    """Honours Range. `server.requests` collects what was asked; `server.cut` ends bodies early."""

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append((self.path, wanted))
        if self.path != "/model.gguf":
            self.send_error(int(self.path.removeprefix("/")))
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        data = self.server.data
        body = data[start : start + self.server.cut]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the reader has what it wanted
            self.close_connection = True
        if len(body) < len(data) - start:
            self.close_connection = True

    def log_message(self, *args: object) -> None: ...


class QuietFiles(SimpleHTTPRequestHandler):
    def copyfile(self, source, outputfile) -> None:
        try:
            super().copyfile(source, outputfile)
        except OSError:  # the reader has what it wanted
            self.close_connection = True

    def log_message(self, *args: object) -> None: ...


def serve(handler) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests, server.data, server.cut = [], DATA, len(DATA)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ranges():
    yield from serve(RangeHandler)


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "model.gguf").write_bytes(DATA)
    yield from serve(partial(QuietFiles, directory=str(tmp_path)))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "model.gguf").write_bytes(DATA[:1000])
    return tmp_path / "model.gguf"


async def test_a_slice_of_a_file_is_not_copied_and_outlives_the_source(path):
    source = FileSource(path)
    first, second = await source.read(10, 20), await source.read(10, 20)
    assert first.obj is second.obj  # both look at the same mapping
    source.close()
    assert bytes(first) == DATA[10:30]


@pytest.mark.parametrize(("offset", "size"), [(990, 11), (1000, 1), (-1, 5), (0, -1)])
async def test_reading_past_the_ends_of_a_file_is_truncated(path, offset, size):
    source = FileSource(path)
    with pytest.raises(Truncated, match="the file has 1000"):
        await source.read(offset, size)


async def test_an_empty_file_has_size_0_and_nothing_to_read(tmp_path):
    (tmp_path / "empty").touch()
    source = FileSource(tmp_path / "empty")
    assert source.size == 0
    with pytest.raises(Truncated):
        await source.read(0, 1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match=r"nothing\.gguf: No such file"):
        FileSource(tmp_path / "nothing.gguf")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ModelNotFound, match="directory"):
        FileSource(tmp_path)


async def test_a_server_with_ranges_is_asked_once_for_reading_forward_and_once_for_a_jump_back(ranges):
    source = await HttpSource.open(ranges.url + "/model.gguf")
    assert source.size == len(DATA)
    assert await source.read(0, 1000) == DATA[:1000]
    assert await source.read(1500, 300_000) == DATA[1500:301_500]  # over a small gap
    assert await source.read(100, 50) == DATA[100:150]
    await source.aclose()
    assert [wanted for _, wanted in ranges.requests] == ["bytes=0-", "bytes=100-"]


async def test_a_wide_gap_is_asked_around(ranges):
    source = await HttpSource.open(ranges.url + "/model.gguf")
    assert await source.read(4_000_000, 10) == DATA[4_000_000:4_000_010]
    await source.aclose()
    assert [wanted for _, wanted in ranges.requests] == ["bytes=0-", "bytes=4000000-"]


async def test_a_server_without_ranges_gives_the_same_bytes_forwards_and_backwards(plain):
    source = await HttpSource.open(plain.url + "/model.gguf")
    for offset, size in ((0, 100), (3_000_000, 500_000), (50, 100), (len(DATA) - 5, 5)):
        assert await source.read(offset, size) == DATA[offset : offset + size]
    await source.aclose()


async def test_reading_past_the_end_of_a_served_file_is_truncated(plain):
    source = await HttpSource.open(plain.url + "/model.gguf")
    with pytest.raises(Truncated, match=str(len(DATA))):
        await source.read(len(DATA) - 5, 6)
    await source.aclose()


async def test_404_is_a_model_that_was_not_found(ranges):
    with pytest.raises(ModelNotFound, match=r"/404.*HTTP 404"):
        await HttpSource.open(ranges.url + "/404")


async def test_another_status_is_named_with_the_address(ranges):
    with pytest.raises(FetchError, match=r"127\.0\.0\.1.*/503.*HTTP 503"):
        await HttpSource.open(ranges.url + "/503")


async def test_a_server_that_is_not_there_is_a_fetch_error():
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/"):
        await HttpSource.open("http://127.0.0.1:9/model.gguf")


async def test_a_body_that_ends_early_says_where_and_the_next_read_asks_again(ranges):
    ranges.cut = 200_000
    source = await HttpSource.open(ranges.url + "/model.gguf")
    with pytest.raises(FetchError, match=rf"of {len(DATA)}"):
        await source.read(0, 300_000)
    ranges.cut = len(DATA)
    assert await source.read(0, 300_000) == DATA[:300_000]
    await source.aclose()


async def test_a_file_that_changed_its_length_is_refused(ranges):
    source = await HttpSource.open(ranges.url + "/model.gguf")
    await source.read(1000, 10)
    ranges.data = DATA[:-1]
    with pytest.raises(FetchError, match=f"had {len(DATA)} bytes and now has {len(DATA) - 1}"):
        await source.read(0, 10)
    await source.aclose()

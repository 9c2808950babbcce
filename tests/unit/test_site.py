"""The static folder that is published, and the server that the demo and the tests read it through."""

import base64
import gc
import hashlib
import json
import socket
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

from webllm.errors import FetchError, RequestError
from webllm.pieces import hashed
from webllm.site import PYODIDE_FILES, Parts, build_site, short_name
from webllm.static_server import Request, serve_in_thread


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A made-up checkout, complete: each part is there, none is real. So no Python starts from it."""
    monkeypatch.setattr("webllm.site.write_snapshot", lambda pyodide, wheels, out: put(out))
    root = tmp_path / "checkout"
    found = Parts.find(root)
    put(found.page / "index.html", b"<!doctype html>")
    put(found.page / "worker.js")
    put(found.page / "worker.js.map")
    put(found.page / "sw.js", b"// caches")
    put(found.page / "img" / "icon.svg")
    for name in PYODIDE_FILES:
        put(found.pyodide / name)
    put(found.pyodide / "package.json", b'{"version": "314.0.7"}')
    for name in ("webllm-0.1.0-py3", "jinja2-3.1.6-py3", "markupsafe-3.0.3-py3"):
        put(found.wheels / f"{name}-none-any.whl")
    return found


@pytest.fixture
def model(tmp_path):
    return put(tmp_path / "cache" / "SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF" + bytes(96))


def sha256(path):
    """As `openssl dgst -sha256 -binary FILE | base64` gives it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.headers, answer.read()


def status_of(url, **headers):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url, **headers)
    with caught.value as error:
        return error.code


def test_the_manifest_names_what_the_page_has_to_install_and_load(parts, model, tmp_path):
    site = build_site(tmp_path / "site", model=model, parts=parts)
    manifest = json.loads((site / "site.json").read_text())
    assert manifest.pop("files")
    assert manifest == {
        "wheels": [  # each after what it imports
            "markupsafe-3.0.3-py3-none-any.whl",
            "jinja2-3.1.6-py3-none-any.whl",
            "webllm-0.1.0-py3-none-any.whl",
        ],
        "models": {"smollm2-135m-instruct": {"url": f"models/{model.name}", **hashed(model)}},
        "pyodide": "314.0.7",
    }


def test_everything_the_manifest_names_is_in_the_folder(parts, model, tmp_path):
    site = build_site(tmp_path / "site", model=model, parts=parts)
    manifest = json.loads((site / "site.json").read_text())
    assert all((site / "wheels" / name).is_file() for name in manifest["wheels"])
    assert all((site / entry["url"]).is_file() for entry in manifest["models"].values())
    assert (site / "index.html").is_file() and (site / "img" / "icon.svg").is_file()
    assert all((site / "pyodide" / name).is_file() for name in PYODIDE_FILES)


def test_all_that_visitors_load_but_models_is_listed_with_its_hash(parts, model, tmp_path):
    site = build_site(tmp_path / "site", model=model, parts=parts)
    files = json.loads((site / "site.json").read_text())["files"]
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert there - files.keys() == {"site.json", "sw.js", "worker.js.map", f"models/{model.name}"}
    for name, integrity in files.items():
        assert integrity == sha256(site / name)


def test_a_site_with_anything_new_has_a_new_service_worker(parts, tmp_path):
    site = build_site(tmp_path / "site", model=None, parts=parts)
    before = (site / "sw.js").read_text()
    assert before == f'const VERSION="{sha256(site / "site.json")}";// caches'
    put(parts.page / "worker.js", b"newer")
    assert (build_site(site, model=None, parts=parts) / "sw.js").read_text() != before


def test_a_site_without_a_model_is_complete(parts, tmp_path):
    site = build_site(tmp_path / "site", model=None, parts=parts)
    assert json.loads((site / "site.json").read_text())["models"] == {}


def test_building_again_takes_the_new_wheel_and_leaves_the_model_file_as_it_was(parts, model, tmp_path):
    build_site(tmp_path / "site", model=model, parts=parts)
    put(parts.wheels / "webllm-0.1.0-py3-none-any.whl", b"newer")
    site = build_site(tmp_path / "site", model=model, parts=parts)
    assert (site / "wheels" / "webllm-0.1.0-py3-none-any.whl").read_bytes() == b"newer"
    assert model.read_bytes() == b"GGUF" + bytes(96)


@pytest.mark.parametrize(
    ("part", "way_out"),
    [
        (lambda p: p.pyodide / "pyodide.asm.wasm", "npm ci"),
        (lambda p: p.pyodide / "package.json", "npm ci"),
        (lambda p: p.wheels / "jinja2-3.1.6-py3-none-any.whl", "make page-wheels"),
        (lambda p: p.page / "worker.js", "make page"),
    ],
)
def test_a_missing_part_is_named_with_the_command_that_brings_it(parts, tmp_path, part, way_out):
    part(parts).unlink()
    with pytest.raises(FetchError, match=way_out):
        build_site(tmp_path / "site", model=None, parts=parts)
    assert not (tmp_path / "site").exists()  # nothing half-built


@pytest.mark.parametrize("manifest", [None, b"{", b"[]", b'{"name": "mine"}'])
def test_a_folder_that_is_no_site_is_refused_and_left_as_it_was(parts, tmp_path, manifest):
    own = put(tmp_path / "home" / "index.html", b"mine")
    if manifest is not None:
        put(own.with_name("site.json"), manifest)
    before = sorted(own.parent.iterdir())
    with pytest.raises(RequestError, match=r"home is not empty.*a new or an empty folder"):
        build_site(own.parent, model=None, parts=parts)
    assert own.read_bytes() == b"mine" and sorted(own.parent.iterdir()) == before


def test_an_empty_folder_becomes_a_site(parts, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (build_site(tmp_path / "empty", model=None, parts=parts) / "index.html").is_file()


def test_a_site_whose_building_was_broken_off_can_be_built_again(parts, model, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("webllm.site._copy", full)
        build_site(tmp_path / "site", model=model, parts=parts)
    assert (build_site(tmp_path / "site", model=model, parts=parts) / "models" / model.name).is_file()


def test_a_missing_model_is_named(parts, tmp_path):
    with pytest.raises(FetchError, match=r"absent\.gguf.*webllm pull"):
        build_site(tmp_path / "site", model=tmp_path / "absent.gguf", parts=parts)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct"),
        ("tiny-f16.gguf", "tiny"),
        ("stories260K.gguf", "stories260k"),
    ],
)
def test_a_short_name_is_the_file_name_without_its_quantisation(file, name):
    assert short_name(Path(file)) == name


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "www" / "index.html", b"<!doctype html>")
    put(tmp_path / "www" / "model.gguf", bytes(range(100)))
    put(tmp_path / "secret.txt")
    return tmp_path / "www"


def test_a_byte_range_is_answered_with_those_bytes_only(folder):
    with serve_in_thread(folder) as server:
        status, headers, body = get(f"{server.url}/model.gguf", Range="bytes=10-19")
    assert (status, headers["Content-Range"], body) == (206, "bytes 10-19/100", bytes(range(10, 20)))


def test_a_range_past_the_end_is_refused(folder):
    with serve_in_thread(folder) as server:
        assert status_of(f"{server.url}/model.gguf", Range="bytes=100-109") == 416


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("pyodide.mjs", "text/javascript; charset=utf-8"),
        ("worker.js", "text/javascript; charset=utf-8"),
        ("pyodide.asm.wasm", "application/wasm"),
        ("webllm.whl", "application/zip"),
        ("site.json", "application/json"),
        ("index.html", "text/html; charset=utf-8"),
    ],
)
def test_media_types_are_the_ones_browsers_insist_on(folder, name, media_type):
    put(folder / name)
    with serve_in_thread(folder) as server:
        assert get(f"{server.url}/{name}")[1]["Content-Type"] == media_type


def test_the_root_is_the_page_whatever_its_query(folder):
    with serve_in_thread(folder) as server:
        assert get(f"{server.url}/?model=x")[2] == b"<!doctype html>"


@pytest.mark.parametrize("path", ["absent.js", "%2e%2e/secret.txt", "..%2fsecret.txt"])
def test_what_is_not_in_the_folder_is_not_found(folder, path):
    with serve_in_thread(folder) as server:
        assert status_of(f"{server.url}/{path}") == 404


def test_headers_that_were_asked_for_are_sent_with_errors_too(folder):
    with serve_in_thread(folder, headers={"Content-Security-Policy": "default-src 'self'"}) as server:
        assert get(server.url)[1]["Content-Security-Policy"] == "default-src 'self'"
        with pytest.raises(urllib.error.HTTPError) as missing:
            get(f"{server.url}/absent")
    assert missing.value.headers["Content-Security-Policy"] == "default-src 'self'"
    missing.value.close()


def test_every_request_is_logged_with_its_range_and_its_status(folder):
    log = []
    with serve_in_thread(folder, on_request=log.append) as server:
        get(f"{server.url}/model.gguf?v=1", Range="bytes=0-3")
        status_of(f"{server.url}/absent")
    assert log == [Request("GET", "/model.gguf?v=1", 206, "bytes=0-3"), Request("GET", "/absent", 404, None)]


def test_a_port_that_is_taken_is_named(folder):
    with serve_in_thread(folder) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(FetchError, match=str(port)), serve_in_thread(folder, port=port):
            pass


def test_a_client_that_stopped_reading_leaves_nothing_open_behind_the_server(tmp_path):
    put(tmp_path / "large", bytes(64 << 20))
    with warnings.catch_warnings(record=True) as told, socket.socket() as client:
        warnings.simplefilter("always", ResourceWarning)
        with serve_in_thread(tmp_path) as server:
            client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        gc.collect()
    assert [str(warning.message) for warning in told] == []

"""Models on the Hub, against a local server that speaks as it does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.unit.hub_server import COMMIT, LARGE, REPO, Hub, serving
from webllm.errors import FetchError, ModelNotFound, Unsupported
from webllm.host.native import locate, open_folder
from webllm.hub import fetch
from webllm.hub_place import HUB, HubPlace, hub_place, parts_of, wanted_files
from webllm.pull import pull

WEIGHTS = bytes(range(256)) * (LARGE // 64)
FOLDER = {"config.json": b"{}", "tokenizer.json": b"[]", "README.md": b"#", "model.safetensors": WEIGHTS}
FOLDER |= {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x"}
GGUFS = {"README.md": b"#", "tiny.Q4_K_M.gguf": WEIGHTS, "tiny.Q8_0.gguf": b"GGUF8", "tiny.F16.gguf": b"GGUF16"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty cache, and a Hub with a folder."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub(dict(FOLDER))) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_folder_comes_with_the_files_that_are_read_and_no_others(hub: Hub) -> None:
    told: list[dict[str, Any]] = []
    path = pull(REPO, told.append)
    assert {file.name for file in path.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert {event["total"] for event in told} == {len(WEIGHTS) + 4} and told[-1]["loaded"] == len(WEIGHTS) + 4
    assert [event["loaded"] for event in told] == sorted(event["loaded"] for event in told)


def test_a_second_time_nothing_is_downloaded_again(hub: Hub) -> None:
    path = pull(REPO)
    asked = len(hub.asked)
    assert pull(REPO) == path
    assert {method for method, where, _ in hub.asked[asked:] if "/api/" not in where} <= {"HEAD"}


def test_large_files_lie_elsewhere_and_a_broken_download_goes_on(hub: Hub) -> None:
    """The library writes 10 MiB at a time: what came of the last ones is fetched again."""
    hub.files["model.safetensors"] = data = bytes(24 << 20)
    hub.cut = [12 << 20]
    assert (pull(REPO) / "model.safetensors").read_bytes() == data
    ranges = [asked for _, where, asked in hub.asked if "elsewhere" in where and asked]
    assert ranges == [f"bytes={10 << 20}-"]


def test_of_several_gguf_files_the_preferred_one_or_the_named_one_comes(hub: Hub) -> None:
    hub.files = dict(GGUFS)
    assert pull(REPO).name == "tiny.Q4_K_M.gguf"
    assert pull(f"{REPO}:tiny.Q8_0.gguf").read_bytes() == b"GGUF8"
    assert pull(f"{REPO}:f16").read_bytes() == b"GGUF16"
    assert pull(f"{REPO}@{COMMIT}:q8_0").read_bytes() == b"GGUF8"
    with pytest.raises(ModelNotFound, match=r"no IQ1_S; name one, as in maker/tiny:tiny\.Q4_K_M\.gguf"):
        pull(f"{REPO}:IQ1_S")


def test_a_split_file_comes_in_all_its_parts(hub: Hub) -> None:
    hub.files = {f"tiny-{number:05}-of-00003.gguf": b"GGUF%d" % number for number in (1, 2, 3)}
    path = pull(REPO)
    assert path.name == "tiny-00001-of-00003.gguf"
    assert sorted(file.read_bytes() for file in path.parent.iterdir()) == [b"GGUF1", b"GGUF2", b"GGUF3"]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, ModelNotFound, "knows no such model, or it is private or its name is wrong; set HF_TOKEN"),
        (403, FetchError, "it is gated: accept its terms on the Hub and set HF_TOKEN"),
        (404, ModelNotFound, "knows no such model"),
        (429, FetchError, "HTTP 429; the Hub has had too many requests"),
        (500, FetchError, "HTTP 500; try again later"),
    ],
)
def test_a_refusal_is_named_with_the_way_out(hub: Hub, status: int, kind: type[Exception], words: str) -> None:
    hub.refuse = status
    with pytest.raises(kind, match=words) as caught:
        pull(REPO)
    assert REPO in str(caught.value) and hub.url in str(caught.value)


def test_a_token_opens_what_is_private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelNotFound, match="set HF_TOKEN"):
        pull(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert (pull(REPO) / "config.json").is_file()


def test_a_revision_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match=r"revision v9\): no such revision"):
        pull(f"{REPO}@v9")


def test_offline_the_cache_is_enough_and_what_it_lacks_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pull(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert pull(REPO) == path
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set, and the Hub's cache has not all of it"):
        pull("maker/other")
    assert len(hub.asked) == asked


def test_a_hub_out_of_reach_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9"):
        fetch(HubPlace(REPO))


def test_a_repository_of_something_else_is_refused(hub: Hub) -> None:
    hub.files = {"README.md": b"#", "model.onnx": b"x"}
    with pytest.raises(ModelNotFound, match=r"no model that webllm reads is there; it has README\.md, model\.onnx"):
        pull(REPO)


async def test_loading_finds_the_folder_and_tells_how_far_it_is(hub: Hub) -> None:
    told: list[dict[str, Any]] = []
    path = await locate(REPO, told.append)
    await asyncio.sleep(0.01)
    folder = await open_folder(path)
    assert folder is not None and await folder.read("config.json", 100) == b"{}" and told


async def test_a_path_that_is_there_goes_before_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / REPO).mkdir(parents=True)
    (tmp_path / REPO / "config.json").write_text(json.dumps({}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert await locate(REPO) == REPO and pull(REPO) == Path(REPO)
    assert hub.asked == []


PLACES = {
    "org/name": HubPlace("org/name"),
    "org/name:model-q4_0.gguf": HubPlace("org/name", "main", "model-q4_0.gguf"),
    "org/name@v1.0:sub/model.gguf": HubPlace("org/name", "v1.0", "sub/model.gguf"),
    f"{HUB}/mlc-ai/Llama-3.2-1B-q4f16_1-MLC": HubPlace("mlc-ai/Llama-3.2-1B-q4f16_1-MLC"),
    f"{HUB}/org/name/tree/main": HubPlace("org/name"),
    f"{HUB}/org/name/": HubPlace("org/name"),
    **dict.fromkeys(
        [
            f"{HUB}/org/name/resolve/main/model.gguf",
            "https://example.org/org/name",
            "name",
            "models/tiny.gguf",
            "models/config.json",
            "./models/tiny",
            "../models/tiny",
            "/models/tiny",
            "a/b/c",
            "org/..",
            "org/name:",
            "org/name: x",
            "C:\\models\\tiny",
            "",
        ]
    ),
}


@pytest.mark.parametrize("location", PLACES)
def test_a_name_is_a_place_on_the_hub_or_not(location: str) -> None:
    assert hub_place(location) == PLACES[location]


def test_a_place_has_an_address_on_the_mirror_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org/")
    assert HubPlace("org/name").url("a.gguf") == "https://mirror.example.org/org/name/resolve/main/a.gguf"
    assert hub_place("https://mirror.example.org/org/name") == HubPlace("org/name")


def test_parts_that_are_claimed_are_bounded() -> None:
    assert parts_of("x-00001-of-00002.gguf") == ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]
    assert parts_of("x.gguf") == ["x.gguf"] and len(parts_of("x-00001-of-99999.gguf")) == 999


def test_an_mlc_folder_comes_with_its_shards() -> None:
    files = [
        "mlc-chat-config.json",
        "tensor-cache.json",
        "params_shard_0.bin",
        "logs.txt",
        "x/y.json",
        "tokenizer.model",
    ]
    assert wanted_files(HubPlace("a/b"), files) == files[:3]


async def test_a_pickle_in_a_repository_is_refused_before_anything_is_asked(hub: Hub) -> None:
    from webllm.opening import open_checkpoint

    with pytest.raises(Unsupported, match="Python pickle"):
        await open_checkpoint(f"{REPO}:pytorch_model.bin")
    assert hub.asked == []

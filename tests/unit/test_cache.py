"""`webllm.cache` natively: what is in the cache folder, checked, deleted, handed out and taken in."""

import asyncio
import hashlib
import os
import shutil
from dataclasses import replace

import pytest

import webllm.sync
from webllm import cache, catalog
from webllm.cache_folder import cache_folder
from webllm.errors import ChecksumMismatch, FetchError, ModelNotFound, RequestError, StorageFull
from webllm.pull import pull

DATA = b"GGUF" + bytes(range(256)) * 10_000
NAME = "smollm2-135m-instruct"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, no network, and a catalogue whose one model is small."""
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("webllm.pull.constants.is_offline_mode", lambda: True)
    digest = hashlib.sha256(DATA).hexdigest()
    small = replace(catalog.CATALOG[NAME], size=len(DATA), sha256=digest, filename="small.gguf", wheel="no-such==1")
    monkeypatch.setitem(catalog.CATALOG, NAME, small)
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.gguf"
    path.write_bytes(DATA)
    return path


async def test_nothing_is_stored_at_first(folder):
    assert await cache.list() == []
    assert await cache.delete(NAME) is False
    with pytest.raises(ModelNotFound, match="there are: none"):
        await cache.verify("mine")


async def test_an_imported_file_is_listed_loaded_by_name_exported_and_deleted(folder, file):
    events = []
    model = await cache.import_(file, on_progress=events.append)
    assert (model["name"], model["bytes"], model["stored_bytes"]) == ("mine", len(DATA), len(DATA))
    assert model["complete"] and model["url"] is None and model["sha256"] == hashlib.sha256(DATA).hexdigest()
    await asyncio.sleep(0)
    assert events[-1]["phase"] == "import" and events[-1]["loaded"] == events[-1]["total"] == len(DATA)
    assert [m["name"] for m in await cache.list()] == ["mine"]
    file.unlink()
    assert pull("mine").read_bytes() == DATA
    assert await cache.export("mine") == pull("mine")
    assert await cache.delete(model["key"]) is True and await cache.list() == []
    assert list(cache_folder().iterdir()) == []


async def test_a_part_of_a_download_is_listed_and_not_handed_out(folder):
    part = folder / NAME / "small.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1000])
    [model] = await cache.list()
    assert (model["stored_bytes"], model["complete"]) == (1000, False)
    assert "huggingface" in model["url"]
    with pytest.raises(ModelNotFound, match="1,000 of"):
        await cache.export(NAME)
    assert await cache.verify(NAME) is False and part.exists()
    assert await cache.delete(model["url"]) is True and not part.exists()


async def test_verify_drops_what_is_damaged(folder, file):
    await cache.import_(file)
    assert await cache.verify("mine") is True
    with pull("mine").open("r+b") as stored:
        stored.seek(5)
        stored.write(b"!")
    assert await cache.verify("mine") is False
    [model] = await cache.list()
    assert not model["complete"]
    with pytest.raises(ModelNotFound, match="import it again"):
        pull("mine")


async def test_the_catalogues_own_file_can_be_brought_by_hand_and_no_other(folder, file, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(RequestError, match="another name"):
        await cache.import_(other, NAME)
    assert await cache.list() == []
    await cache.import_(file, NAME)
    assert pull(NAME) == folder / NAME / "small.gguf"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "a\\b", "C:x", "x" * 201])
async def test_a_name_that_would_leave_the_folder_is_refused(folder, file, name):
    with pytest.raises(RequestError, match="1 to 200 characters"):
        await cache.import_(file, name)


async def test_a_name_that_is_taken_is_refused(folder, file):
    await cache.import_(file)
    with pytest.raises(RequestError, match="delete it first"):
        await cache.import_(file)


async def test_a_file_that_is_not_there_is_not_found(folder, tmp_path):
    with pytest.raises(ModelNotFound, match="no such file"):
        await cache.import_(tmp_path / "no.gguf")


async def test_a_full_disk_is_told_with_what_could_be_deleted(folder, file, monkeypatch):
    await cache.import_(file, "first")
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(StorageFull, match=r"second needs 3 MB .* has 1 MB .* could be deleted: first \(3 MB\)"):
        await cache.import_(file, "second")
    with pytest.raises(StorageFull, match=f"{NAME} needs"):
        pull(NAME)
    assert [m["name"] for m in await cache.list()] == ["first"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
async def test_a_disk_that_fills_up_while_it_is_written_leaves_nothing(folder, file):
    place = folder / "mine"
    place.mkdir(parents=True)
    (place / "mine.gguf.import").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="no more of mine"):
        await cache.import_(file)
    assert await cache.list() == [] and not (place / "mine.gguf.import").exists()


async def test_a_manifest_that_is_none_or_points_elsewhere_counts_for_nothing(folder, tmp_path):
    for text in ("{", "[]", '{"filename": "../../x", "size": 1, "sha256": "0"}', '{"filename": "x"}'):
        place = folder / "mine"
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.json").write_text(text)
        assert await cache.list() == []


async def test_what_was_used_last_comes_first(folder, file):
    for at, name in enumerate(("one", "two", "three")):
        await cache.import_(file, name)
        path = await cache.export(name)
        os.utime(path, (at, at))
    pull("one")
    assert [m["name"] for m in await cache.list()] == ["one", "three", "two"]


def test_without_await_it_is_the_same(folder, file):
    assert webllm.sync.cache.list() == []
    assert webllm.sync.cache.import_(file)["name"] == "mine"
    assert webllm.sync.cache.verify("mine") is True


def test_errors_of_the_disk_and_of_hashes_are_errors_of_fetching():
    assert issubclass(StorageFull, FetchError) and issubclass(ChecksumMismatch, FetchError)

"""Loads that fail: each error has its name and its way out, and nothing stays behind on the GPU or on disk."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import webllm
from tests.models.reference import Model, Shape, forward, random_model, write_gguf
from webllm import kernels
from webllm.checkpoint.gguf import read_gguf
from webllm.errors import (
    BadModel,
    Closed,
    DeviceLost,
    ModelNotFound,
    NoAdapter,
    NotAModel,
    OutOfMemory,
    RequestError,
    ShaderError,
    SoftwareAdapterWarning,
    Truncated,
    Unsupported,
)
from webllm.host import native
from webllm.host.files import FileSource


@dataclass
class Watched:
    """What loads opened and made: devices, files, GPU buffers."""

    devices: list[Any] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    destroyed: list[Any] = field(default_factory=list)

    @property
    def left(self) -> int:
        """GPU buffers that were made and not destroyed."""
        gone = {id(buffer) for buffer in self.destroyed}
        return sum(id(buffer) not in gone for buffer in self.made)

    def nothing_is_left(self) -> bool:
        """GPU memory is free, and files are closed."""
        bytes_held = sum(device.gpu_bytes for device in self.devices)
        return bytes_held == 0 and self.left == 0 and all(source.size == 0 for source in self.sources)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Looks over the loader's shoulder; what it does stays the same."""
    seen = Watched()
    open_device, open_source = native.open_device, native.open_source

    async def watched_device(*args: Any) -> Any:
        device: Any = await open_device(*args)
        seen.devices.append(device)
        watch_buffers(device._device, seen)
        return device

    async def watched_source(*args: Any) -> Any:
        seen.sources.append(await open_source(*args))
        return seen.sources[-1]

    def watch_buffers(gpu: Any, seen: Watched) -> None:
        create = gpu.create_buffer

        def create_buffer(**options: Any) -> Any:
            buffer = create(**options)
            seen.made.append(buffer)
            destroy = buffer.destroy
            buffer.destroy = lambda: (seen.destroyed.append(buffer), destroy())
            return buffer

        gpu.create_buffer = create_buffer

    monkeypatch.setattr(native, "open_device", watched_device)
    monkeypatch.setattr(native, "open_source", watched_source)
    return seen


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(Shape(layers=2, context=128))


@pytest.fixture(scope="module")
def good(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers that loads: no vocabulary, 120 thousand weights."""
    return write_gguf(model, tmp_path_factory.mktemp("good") / "good.gguf")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "bad.gguf"


def regions(path: Path) -> dict[str, range]:
    """Byte ranges of a file's header, tensor table and data."""
    gguf = asyncio.run(read_gguf(FileSource(path)))
    first_name = gguf.tensors[0].name.encode()
    table = path.read_bytes().index(first_name) - 8
    data = min(tensor.offset for tensor in gguf.tensors)
    return {"header": range(24, table), "table": range(table, data - 32), "data": range(data, path.stat().st_size)}


async def test_the_model_that_these_tests_break_does_load(watched: Watched, good: Path, model: Model) -> None:
    """And frees everything when it is closed."""
    ids = [3, 1, 200, 7]
    async with await webllm.load(good) as llm:
        assert watched.devices[0].gpu_bytes > 500_000
        got = await llm.logits(ids)
        wanted = forward(model, ids)[-1]
        assert np.abs(got - wanted).max() < 5e-3  # the cache has halves
        assert [i async for i in llm.generate(ids, max_tokens=1)] == [int(wanted.argmax())]
    assert watched.nothing_is_left()


@pytest.mark.parametrize(
    "content",
    [b"", b"GG", b"PK\3\4" + bytes(100), b"<html>Not found</html>", b"version https://git-lfs.github.com/spec/v1\n"],
    ids=["empty", "two bytes", "a zip", "a web page", "a Git LFS pointer"],
)
async def test_what_is_no_gguf_is_not_a_model(watched: Watched, where: Path, content: bytes) -> None:
    where.write_bytes(content)
    with pytest.raises(NotAModel, match=r"bad\.gguf.*GGUF"):
        await webllm.load(where)
    assert watched.devices == [] and watched.nothing_is_left()


@pytest.mark.parametrize("part", ["header", "table", "data"])
def test_a_file_that_ends_too_early_is_truncated_wherever_it_ends(
    watched: Watched, good: Path, where: Path, part: str
) -> None:
    """Found before a GPU is opened. The last value of the data counts: one byte less is too few."""
    span = regions(good)[part]
    whole = good.read_bytes()
    for end in {*span[:: max(1, len(span) // 20)], span[-1]}:
        where.write_bytes(whole[:end])
        with pytest.raises(Truncated, match=r"bad\.gguf"):
            asyncio.run(webllm.load(where))
    assert watched.devices == [] and watched.nothing_is_left()


async def test_a_source_that_ends_while_weights_are_read_frees_everything(
    watched: Watched, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may stop sending: the header was whole, and some tensors are on the GPU already."""
    read, most = FileSource.read, good.stat().st_size // 2

    async def cut(self: FileSource, offset: int, size: int) -> memoryview:
        if offset > 0 and offset + size > most:
            raise Truncated(f"{self.name}: the answer ended at byte {most}")
        return await read(self, offset, size)

    monkeypatch.setattr(FileSource, "read", cut)
    with pytest.raises(Truncated, match="the answer ended"):
        await webllm.load(good)
    assert len(watched.made) > 20 and watched.nothing_is_left()


async def test_a_listener_that_fails_frees_everything(watched: Watched, good: Path) -> None:
    """The page's progress bar may throw; so may a person's Ctrl-C."""

    def listener(progress: dict[str, Any]) -> None:
        if progress["tensors"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await webllm.load(good, on_progress=listener)
    assert watched.made and watched.nothing_is_left()


async def test_a_load_after_a_failed_one_works(watched: Watched, good: Path, where: Path) -> None:
    where.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(Truncated):
        await webllm.load(where)
    shutil.copy(good, where)
    async with await webllm.load(where) as llm:
        assert len([i async for i in llm.generate([1, 2, 3], max_tokens=4)]) == 4


async def test_an_unknown_tensor_type_is_named_with_those_there_are(
    watched: Watched, model: Model, where: Path
) -> None:
    values = {"blk.1.ffn_up.weight": np.zeros((172, 72), np.float64)}
    untyped = replace(model, types={n: t for n, t in model.types.items() if n not in values})
    with pytest.raises(
        Unsupported, match=r"'blk\.1\.ffn_up\.weight' is stored as GGML type F64; supported are F32.*Q4_1"
    ):
        await webllm.load(write_gguf(untyped, where, tensors=values))
    assert watched.nothing_is_left()


async def test_an_unknown_architecture_is_named_with_those_there_are(
    watched: Watched, model: Model, where: Path
) -> None:
    other = replace(model, shape=replace(model.shape, arch="mamba"))
    with pytest.raises(Unsupported, match="architecture 'mamba'; supported are llama, qwen2"):
        await webllm.load(write_gguf(other, where))
    assert watched.nothing_is_left()


@pytest.mark.parametrize(
    ("name", "shape"),
    [("blk.1.attn_q.weight", (72, 72)), ("blk.0.attn_norm.weight", (73,)), ("output.weight", (301, 76))],
)
async def test_a_wrong_shape_is_named_with_the_right_one(
    watched: Watched, model: Model, where: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = write_gguf(model, where, tensors={name: np.zeros(shape, np.float32)})
    with pytest.raises(BadModel, match=rf"{name} must be \[.*\] by the metadata, got \[{', '.join(map(str, shape))}\]"):
        await webllm.load(path)
    assert watched.nothing_is_left()


async def test_a_missing_tensor_is_named(watched: Watched, model: Model, where: Path) -> None:
    path = write_gguf(model, where, without=["blk.1.ffn_gate.weight"])
    with pytest.raises(BadModel, match=r"model\.layers\.1\.mlp\.gate_proj\.weight is missing"):
        await webllm.load(path)
    assert watched.nothing_is_left()


async def test_rotary_factors_of_another_type_are_refused(watched: Watched, where: Path) -> None:
    scaled = random_model(Shape(layers=1, factors=(2.0,) * 12))
    untyped = replace(scaled, types={n: t for n, t in scaled.types.items() if n != "rope_freqs.weight"})
    path = write_gguf(untyped, where, tensors={"rope_freqs.weight": np.full(12, 2, np.float16)})
    with pytest.raises(Unsupported, match=r"rope_freqs\.weight is F16; wanted F32"):
        await webllm.load(path)
    assert watched.nothing_is_left()


@pytest.mark.parametrize("factor", [0.0, float("nan"), -2.0])
async def test_rotary_factors_that_make_no_frequency_are_refused(watched: Watched, where: Path, factor: float) -> None:
    scaled = random_model(Shape(layers=1, factors=(2.0,) * 12))
    path = write_gguf(scaled, where, tensors={"rope_freqs.weight": np.full(12, factor, np.float32)})
    with pytest.raises(BadModel, match="finite numbers above 0"):
        await webllm.load(path)
    assert watched.nothing_is_left()


async def test_without_a_tokenizer_ids_work_and_text_says_why_not(good: Path) -> None:
    async with await webllm.load(good) as llm:
        assert len([i async for i in llm.generate([5], max_tokens=2)]) == 2
        with pytest.raises(BadModel, match="hold no tokenizer: pass token ids"):
            llm.tokenizer.encode("Hello")
        with pytest.raises(BadModel, match="hold no tokenizer"):
            await llm.chat.completions.create([{"role": "user", "content": "Hello"}])


async def test_an_adapter_that_is_not_there_is_refused_with_those_that_are(watched: Watched, good: Path) -> None:
    with pytest.raises(NoAdapter, match=r"like 'no such gpu', found: .*Vulkan"):
        await webllm.load(good, adapter="no such gpu")
    assert watched.nothing_is_left()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such-model", r"no model 'no-such-model': give one of the short names \(smollm2-135m-instruct\)"),
        ("/no/such/folder/model.gguf", "no model '/no/such/folder/model.gguf'.*path of a .gguf file"),
    ],
)
async def test_a_model_that_is_not_there_is_not_found(watched: Watched, name: str, words: str) -> None:
    with pytest.raises(ModelNotFound, match=words):
        await webllm.load(name)
    assert watched.devices == []


async def test_a_folder_without_a_model_is_not_a_model(watched: Watched, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"wanted a folder with one \.gguf file, found 0"):
        await webllm.load(tmp_path)
    assert watched.devices == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 129}, "1 to 128.*got 129"),
        ({"context": 0}, "got 0"),
        ({"kv": "int4"}, "f16, f32, int8, got 'int4'"),
        ({"kv": "int8", "exact": True}, "int8 is approximate.*exact=True forbids.*kv='f16'"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused(
    watched: Watched, good: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        await webllm.load(good, **options)
    assert watched.nothing_is_left()


@pytest.fixture
def small_bindings(monkeypatch: pytest.MonkeyPatch, watched: Watched) -> Iterator[None]:
    """Every device says that it binds at most five million bytes."""
    open_device = native.open_device

    async def small(*args: Any) -> Any:
        device: Any = await open_device(*args)
        device.limits = {**device.limits, "maxStorageBufferBindingSize": 5_000_000}
        return device

    monkeypatch.setattr(native, "open_device", small)
    yield


@pytest.mark.usefixtures("small_bindings")
async def test_a_context_that_is_too_large_for_the_gpu_is_refused_before_anything_is_allocated(
    watched: Watched, where: Path
) -> None:
    """60,000 positions of two heads of 24 halves, though the cache starts with 512.

    52,064 positions are 1627 pages of 3072 bytes. One page more is over the limit.
    """
    path = write_gguf(random_model(Shape(layers=1, context=60_000)), where)
    with pytest.raises(
        OutOfMemory, match=r"k\.0 needs 5,760,000 bytes and .* binds at most 5,000,000; .* context=52064 or less fits"
    ) as caught:
        await webllm.load(path, context=60_000)
    assert caught.value.sizes == {"k.0": 5_760_000, "limit": 5_000_000}
    assert "k.0" not in {buffer.label for buffer in watched.made} and watched.nothing_is_left()
    await (await webllm.load(path, context=52_064)).close()


async def test_a_kernel_that_does_not_compile_is_shown_and_everything_freed(
    watched: Watched, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a driver with a compiler bug of its own."""
    module = kernels.module

    def broken(kernel: str, variants: kernels.Variants, edits: kernels.Edits = ()) -> kernels.Module:
        made = module(kernel, variants, edits)
        return replace(made, code=made.code + ("\nfn f() { x + ; }" * (kernel == "embed")))

    monkeypatch.setattr(kernels, "module", broken)
    with pytest.raises(ShaderError, match=r"(?s)kernel 'embed .*line \d+: fn f\(\) \{ x \+ ; \}") as caught:
        await webllm.load(good)
    assert watched.devices[0].info.name in str(caught.value)
    assert (caught.value.kernel or "").startswith("embed ") and (caught.value.line or 0) > 20
    assert watched.nothing_is_left()


async def test_a_closed_model_says_how_to_get_it_back(watched: Watched, good: Path) -> None:
    llm = await webllm.load(good)
    await llm.close()
    await llm.close()  # twice is as good as once
    with pytest.raises(Closed, match=r"was closed; load it again with webllm\.load"):
        llm.generate([1], max_tokens=1)
    with pytest.raises(Closed, match="load it again"):
        await llm.logits([1])
    assert watched.nothing_is_left()


@pytest.fixture
def real_gpu(monkeypatch: pytest.MonkeyPatch, watched: Watched) -> None:
    """The device passes for a real GPU: long chunks, and several steps in flight."""
    open_device = native.open_device

    async def real(*args: Any) -> Any:
        device: Any = await open_device(*args)
        device.info = replace(device.info, software=False)
        return device

    monkeypatch.setattr(native, "open_device", real)


@pytest.mark.usefixtures("real_gpu")
async def test_a_model_may_be_closed_while_it_answers(watched: Watched, good: Path) -> None:
    """By whoever reads the answer: it ends there."""
    llm = await webllm.load(good)
    got = []
    async for token in llm.generate([1, 2], max_tokens=50):
        got.append(token)
        if len(got) == 3:
            await llm.close()
    assert len(got) == 3 and watched.nothing_is_left()


@pytest.mark.usefixtures("real_gpu")
async def test_a_model_that_another_task_closes_ends_its_answer_with_closed(watched: Watched, good: Path) -> None:
    """The reader was waiting for a token that will not come."""
    llm = await webllm.load(good)

    got = []

    async def read() -> None:
        async for token in llm.generate([1, 2], max_tokens=120):
            got.append(token)

    reader = asyncio.create_task(read())
    while len(got) < 3:
        await asyncio.sleep(0)
    await llm.close()
    with pytest.raises(Closed, match="load it again"):
        await reader
    assert watched.devices[0].gpu_bytes == 0


@pytest.mark.usefixtures("real_gpu")
async def test_steps_in_flight_give_the_same_tokens(good: Path, model: Model) -> None:
    """Three at a time, over the ring's end: 70 tokens in a ring of 64."""
    async with await webllm.load(good, kv="f32") as llm:
        got = [i async for i in llm.generate([9, 8, 7], max_tokens=70)]
    logits = forward(model, [9, 8, 7, *got[:-1]])
    assert got == logits.argmax(1)[2:].tolist()


async def test_after_a_lost_gpu_every_call_says_reload_and_reload_brings_the_model_back(
    watched: Watched, good: Path
) -> None:
    """What was held before goes on: the engine is the one that chats have."""
    llm = await webllm.load(good)
    held, wanted = llm.engine, [i async for i in llm.generate([3, 1, 200, 7], max_tokens=9)]
    watched.devices[0]._device.destroy()
    for _ in range(2):
        with pytest.raises(DeviceLost, match=r"went away .* await llm\.reload\(\)"):
            await llm.logits([3, 1])
    with pytest.raises(DeviceLost):
        [i async for i in llm.generate([3, 1, 200, 7], max_tokens=9)]
    await llm.reload()
    assert llm.engine is held and held.cached_tokens == 0
    assert [i async for i in llm.generate([3, 1, 200, 7], max_tokens=9)] == wanted
    await llm.close()
    assert watched.nothing_is_left()


async def test_a_gpu_that_goes_away_under_an_answer_ends_it_by_name(watched: Watched, good: Path) -> None:
    async with await webllm.load(good) as llm:
        with pytest.raises(DeviceLost, match="reload"):
            async for _ in llm.generate([1, 2], max_tokens=50):
                watched.devices[0]._device.destroy()
    assert watched.nothing_is_left()


async def test_a_reload_ends_the_answer_that_runs(watched: Watched, good: Path) -> None:
    """It then has the device for itself; a waiting request gets the new one."""
    async with await webllm.load(good) as llm:
        got = []

        async def read(count: int) -> None:
            async for token in llm.generate([1, 2], max_tokens=count):
                got.append(token)

        reader = asyncio.create_task(read(100))
        while not got:
            await asyncio.sleep(0)
        await llm.reload()
        await reader
        assert 1 <= len(got) < 100
        await read(100 - len(got))
    assert len(watched.devices) == 2 and watched.nothing_is_left()


async def test_what_loading_took_is_told_part_by_part(good: Path) -> None:
    async with await webllm.load(good) as llm:
        parts = llm.stats()["load"]
    steps = {"source", "header", "device", "selftest", "tuning", "program"}
    steps |= {"link", "buffers", "pipelines", "weights", "bindings"}
    assert parts.keys() == steps and 0 < sum(parts.values()) <= llm.load_s


async def test_the_memory_that_loading_takes_is_told_first(good: Path) -> None:
    """The model's context is 128: its cache has room at once and never grows."""
    told: list[dict[str, Any]] = []
    async with await webllm.load(good, on_progress=told.append) as llm:
        held = llm.stats()["gpu_bytes"]
    assert [event["phase"] for event in told[:2]] == ["memory", "weights"]
    assert {"phase", "loaded", "total", "tensors", "seconds"} <= told[0].keys()
    assert (told[0]["loaded"], told[0]["total"], told[0]["at_full_context"]) == (0, held, held)


async def test_an_unknown_power_preference_is_refused(watched: Watched, good: Path) -> None:
    with pytest.raises(RequestError, match="high-performance, low-power, got 'fast'"):
        await webllm.load(good, power_preference="fast")
    assert watched.nothing_is_left()


async def test_a_software_adapter_is_announced_once_unless_it_was_asked_for(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await native.open_device()
    name, software = opened.info.name, opened.info.software
    opened.close()
    if not software:
        pytest.skip("this machine has a GPU")
    native._warn_of_software.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", SoftwareAdapterWarning)
        await (await webllm.load(good, adapter=name)).close()
        assert not seen
        for _ in range(2):
            await (await webllm.load(good)).close()
    assert [warning.category for warning in seen] == [SoftwareAdapterWarning]
    assert "webllm doctor" in str(seen[0].message) and name in str(seen[0].message)

"""The safetensors reader, with the `safetensors` package as the judge: above all of files that lie."""

from __future__ import annotations

import json
import struct
import tracemalloc
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tests.unit.test_gguf import Bytes
from webllm.checkpoint import TensorInfo
from webllm.checkpoint.safetensors import MAX_HEADER, TYPES, read_safetensors
from webllm.errors import BadModel, ModelError, NotAModel, Truncated, Unsupported

MEMORY = 50 << 20  # bytes of Python's memory that a small file may cost, at the most
some = settings(max_examples=1500, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.too_slow])
many = settings(some, max_examples=30_000)


def file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


async def read(data: bytes, size: int | None = None) -> dict[str, TensorInfo]:
    return await read_safetensors(Bytes(data, size))


async def test_what_the_package_writes_is_read() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "é": np.ones((5,), np.float16),
        "empty": np.ones((0, 4), np.int8),
        "scalar": np.array(2.5),
    }
    data = save(arrays, {"made": "here"})
    tensors = await read_safetensors(Bytes(data), number=3)
    for name, array in arrays.items():
        found = tensors[name]
        assert found.shape == array.shape and found.source == 3
        assert data[found.offset : found.offset + found.nbytes] == array.tobytes()
    assert {tensor.dtype for tensor in tensors.values()} == {"F32", "F16", "I8", "F64"}


async def test_only_the_header_is_read() -> None:
    header = {"a": tensor(shape=[1 << 20, 1 << 10], offsets=[0, 1 << 32])}
    source = Bytes(file(header), size=len(file(header)) + (1 << 32))
    assert (await read_safetensors(source))["a"].nbytes == 1 << 32
    assert source.was_read == len(file(header))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", NotAModel, "only 0 bytes"),
        (b"GGUF\3\0\0\0" + bytes(40), NotAModel, "its header would have 14,064,895,815 bytes"),
        (file(b"", length=(100 << 20) + 1) + bytes(64), NotAModel, "104,857,601 bytes"),
        (file(b"{}", length=60), Truncated, "goes on to byte 68, but the file has 10; fetch it anew"),
        (file(b"[1]"), BadModel, "wanted a JSON object, got list"),
        (file(b"{'a'}"), BadModel, "no JSON"),
        (file(b'{"\xff":1}'), BadModel, "not UTF-8"),
        (file(b"[" * 100_000), BadModel, "no JSON"),
        (file(b'{"a":' + json.dumps(tensor()).encode() + b',"a":1}'), BadModel, "'a' occurs twice"),
        (file({"a": tensor("F31")}, bytes(24)), Unsupported, "unknown type 'F31'; the format has BOOL"),
        (file({"a": tensor(["F32"])}, bytes(24)), Unsupported, "unknown type"),
        (file({"a": {"dtype": "F32"}}), BadModel, "must have dtype, shape and data_offsets"),
        (file({"a": 7}), BadModel, "must have dtype, shape and data_offsets, got 7"),
        (file({"a": tensor(shape=[-2, -3])}, bytes(24)), BadModel, "a shape is a list"),
        (file({"a": tensor(shape=[2.0, 3])}, bytes(24)), BadModel, "a shape is a list"),
        (file({"a": tensor(shape=[True, 6])}, bytes(24)), BadModel, "a shape is a list"),
        (file({"a": tensor(shape=[1 << 60, 1 << 60])}, bytes(24)), BadModel, "a shape is a list"),
        (file({"a": tensor(shape=[1] * 9)}, bytes(24)), BadModel, "at most 8 sizes"),
        (file({"a": tensor(shape=[2, 4])}, bytes(24)), BadModel, "takes 32 bytes, its offsets 24"),
        (file({"a": tensor(offsets=[24, 0])}, bytes(24)), BadModel, "a beginning and an end"),
        (file({"a": tensor(offsets=[0, 24, 48])}, bytes(24)), BadModel, "a beginning and an end"),
        (file({"a": tensor(), "b": tensor(offsets=[12, 36])}, bytes(48)), BadModel, "'b' at byte .* overlaps 'a'"),
        (file({"a": tensor(), "b": tensor()}, bytes(24)), BadModel, "overlaps"),
        (file({"a": tensor(offsets=[4, 28])}, bytes(28)), BadModel, "leaves a gap after the header"),
        (file({"a": tensor()}, bytes(25)), BadModel, "1 bytes after the last tensor"),
        (file({"a": tensor()}, bytes(23)), Truncated, "the download was cut off"),
        (file({"__metadata__": {"a": 1}}), BadModel, "__metadata__ must be an object of texts"),
    ],
)
async def test_a_file_that_lies_is_refused_by_name(data: bytes, kind: type[ModelError], words: str) -> None:
    with pytest.raises(kind, match=f"(?s)^test.gguf.*{words}"):
        await read(data)


async def test_a_header_beyond_the_bound_is_refused_before_it_is_read() -> None:
    source = Bytes(file(b"{}", length=MAX_HEADER + 1), size=1 << 40)
    with pytest.raises(NotAModel, match="16,777,216 are read at most"):
        await read_safetensors(source)
    assert source.was_read == 8


GOOD = {
    "__metadata__": {"format": "pt"},
    "a": tensor(),
    "b": tensor("BF16", [4], [24, 32]),
    "c": tensor("U8", [0, 3], [32, 32]),
    "d": tensor("F16", [], [32, 34]),
}
DATA = bytes(34)


def judged(data: bytes) -> dict[str, tuple[list[int], int]] | None:
    """What the package makes of a file: shapes and sizes, or None where it refuses it."""
    try:
        return {name: (list(one["shape"]), len(one["data"])) for name, one in deserialize(data)}
    except SafetensorError:
        return None


async def agree(data: bytes) -> None:
    """The package reads what we read, and we read what it reads, but for what is named here."""
    tracemalloc.start()
    try:
        ours = {name: ([*one.shape], one.nbytes) for name, one in (await read(data)).items()}
    except ModelError as error:
        assert str(error)
        theirs = judged(data)
        # one name twice, types that it has and we do not know, more dimensions than anybody needs, offsets beyond 2^53
        strict = ("occurs twice", "unknown type", "at most 8 sizes", "data_offsets")
        assert theirs is None or any(word in str(error) for word in strict), str(error)
    else:
        assert ours == judged(data)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY


numbers = st.sampled_from([0, 1, 2, 3, 4, 6, 24, 32, 34, 35, -1, 1.5, 1 << 31, 1 << 53, 1 << 64, True, None, "3"])
values = st.one_of(numbers, st.lists(numbers, max_size=4), st.sampled_from(["F32", "BF16", "F4", "f32", {}, [[]]]))


@st.composite
def senseless(draw: st.DrawFn) -> bytes:
    """A good header with other values at some places, names twice, entries that are missing or too many."""
    header: dict[str, Any] = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*GOOD, "e", ""]))
        match draw(st.sampled_from(["field", "entry", "drop", "add", "swap"])):
            case "field" if isinstance(header.get(name), dict):
                header[name][draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))] = draw(values)
            case "entry":
                header[name] = draw(values)
            case "drop":
                header.pop(name, None)
            case "add":
                header[name] = tensor(
                    draw(st.sampled_from([*TYPES])), [draw(st.integers(0, 9))], [32, 32 + draw(st.integers(0, 9))]
                )
            case "swap":
                header = dict(sorted(header.items(), key=lambda item: draw(st.integers(0, 9))))
    text = json.dumps(header).encode()
    if draw(st.integers(0, 9)) == 0:
        text = text[:-1] + b"," + json.dumps(draw(st.sampled_from([*GOOD]))).encode() + b":{}}"
    return file(text + b" " * draw(st.integers(0, 3)), DATA[: draw(st.sampled_from([34, 34, 34, 0, 33]))])


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, gone, or there twice."""
    data = bytearray(file(GOOD, DATA))
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(1, 20))
        match draw(st.sampled_from(["byte", "length", "cut", "drop", "repeat"])):
            case "byte":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "length":
                data[:8] = struct.pack(
                    "<Q", draw(st.sampled_from([0, 1, 2, 300, 1 << 24, 1 << 27, 1 << 40, (1 << 64) - 1]))
                )
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + size]
            case "repeat":
                data[at:at] = data[at : at + size]
    return bytes(data)


async def test_the_file_that_is_spoilt_here_is_good_before() -> None:
    assert (await read(file(GOOD, DATA))).keys() == {"a", "b", "c", "d"}


@some
@given(senseless() | spoilt())
async def test_of_a_spoilt_file_we_and_the_package_think_alike(data: bytes) -> None:
    await agree(data)


@pytest.mark.slow
@many
@given(senseless() | spoilt())
async def test_of_very_many_spoilt_files_we_and_the_package_think_alike(data: bytes) -> None:
    await agree(data)

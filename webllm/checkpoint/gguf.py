"""Reads a GGUF file's header: metadata and the tensor table. It knows nothing of models or of the GPU.

The file may come from anywhere, so nothing is believed before the bytes are there: no allocation and no loop
follows a count that the file merely claims, and every offset is checked before anyone uses it.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from webllm.checkpoint import Source, TensorInfo
from webllm.errors import BadModel, NotAModel, Truncated, Unsupported

# Types that webllm reads: GGUF's number -> (name, values in a block, bytes in a block). A new type is one row here.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    39: ("MXFP4", 32, 17),
    30: ("BF16", 1, 2),
}
# The rest of GGML's types, so that a refusal can name them.
_OTHER_TYPES = {
    **{9: "Q8_1", 15: "Q8_K"},
    **{16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S"},
    **{24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0"},
    **{40: "NVFP4", 41: "Q1_0"},
}

_FIRST_READ = 256 << 10
_MAX_HEADER = 64 << 20  # the largest vocabularies need about 15 MiB
_MAX_ENTRIES = 1 << 16  # metadata entries, and tensors
_MAX_STRING = 16 << 20
_MAX_NAME = 1 << 16
_MAX_ARRAY = 1 << 22
_MAX_ELEMENTS = 1 << 40  # in one tensor
_MAX_ALIGNMENT = 1 << 16

_STRING, _ARRAY, _BOOL = 8, 9, 7
# GGUF's scalar types -> struct's and array's letters
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

T = TypeVar("T")


@dataclass(frozen=True)
class Gguf:
    """The header of one GGUF file.

    tensors carry GGUF's own names; shapes are outermost first, offsets count from the start of the file.
    """

    name: str  # path or URL, for messages
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]


class StringArray(Sequence[str]):
    """The strings of a metadata array, decoded when they are asked for.

    A vocabulary has up to 260 thousand of them: making them all costs seconds where Python is slow, and most
    uses need only a few.
    """

    def __init__(self, data: bytes, starts: array[int]) -> None:
        self._data = data  # GGUF's own layout: 8 bytes of length before each string
        self._starts = starts  # of each string's text, then where one more would start

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._data[self._starts[i] : self._starts[i + 1] - 8].decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        data, starts = self._data, self._starts
        for i in range(len(starts) - 1):
            yield data[starts[i] : starts[i + 1] - 8].decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<StringArray of {len(self)}>"


async def read_gguf(source: Source) -> Gguf:
    """Read and check the header of a GGUF file (versions 2 and 3, little-endian); no weight is read.

    Raises `NotAModel`, `Truncated`, `BadModel` or `Unsupported`, naming `source.name` and what is wrong.

        gguf = await read_gguf(FileSource("model.gguf"))
        gguf.metadata["general.architecture"]  # "llama"
    """
    if source.size < 4:
        raise NotAModel(f"{source.name}: no GGUF file, it has only {source.size} bytes")
    header = _Header(source)
    version, n_tensors, n_entries = await header.parse(_preamble)
    metadata: dict[str, Any] = {}
    for _ in range(n_entries):
        key, value = await header.parse(_entry)
        if key in metadata:
            raise BadModel(f"{source.name}: the metadata key {key!r} occurs twice")
        metadata[key] = value
    raw = [await header.parse(_tensor_row) for _ in range(n_tensors)]
    alignment = _alignment(metadata, source.name)
    start = -(-header.pos // alignment) * alignment
    tensors = tuple(_tensor_info(row, start, alignment, source.name) for row in raw)
    _check_placement(tensors, start, alignment, source)
    return Gguf(source.name, version, metadata, tensors)


class _NeedMore(Exception):
    """The bytes at hand end before `end`, which what is being read needs."""

    def __init__(self, end: int) -> None:
        self.end = end


class _Cursor:
    """Takes values from the header bytes at hand, one after the other."""

    def __init__(self, data: bytes, pos: int, name: str) -> None:
        self.data, self.pos, self.name = data, pos, name

    def skip(self, size: int) -> int:
        """Step over `size` bytes; returns where they start."""
        start, end = self.pos, self.pos + size
        if end > len(self.data):
            raise _NeedMore(end)
        self.pos = end
        return start

    def number(self, letter: str) -> Any:
        form = "<" + letter
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def raw_string(self, limit: int, what: str) -> bytes:
        size = self.number("Q")
        if size > limit:
            raise BadModel(f"{self.name}: {what} claims {size} bytes; at most {limit} are allowed")
        start = self.skip(size)
        return self.data[start : self.pos]

    def label(self, what: str) -> str:
        """A metadata key or a tensor's name: UTF-8, not empty."""
        raw = self.raw_string(_MAX_NAME, what)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise BadModel(f"{self.name}: {what} is not UTF-8: {raw[:40]!r}") from None
        if not text:
            raise BadModel(f"{self.name}: {what} is empty")
        return text


class _Header:
    """The file's beginning, read in pieces that double, and how far it has been understood."""

    def __init__(self, source: Source) -> None:
        self.source, self.data, self.pos = source, b"", 0

    async def parse(self, read: Callable[[_Cursor], T]) -> T:
        """Run `read` at the current position, as often as more bytes are needed; only then step on."""
        while True:
            cursor = _Cursor(self.data, self.pos, self.source.name)
            try:
                value = read(cursor)
            except _NeedMore as need:
                await self._grow(need.end)
            else:
                self.pos = cursor.pos
                return value

    async def _grow(self, end: int) -> None:
        name, size = self.source.name, self.source.size
        if end > size:
            raise Truncated(f"{name}: the header goes on to byte {end}, but the file has {size}; fetch it anew")
        if end > _MAX_HEADER:
            raise BadModel(f"{name}: the header is larger than {_MAX_HEADER >> 20} MiB")
        have = len(self.data)
        want = min(max(end, 2 * have, _FIRST_READ), size, _MAX_HEADER)
        self.data += bytes(await self.source.read(have, want - have))


def _preamble(cursor: _Cursor) -> tuple[int, int, int]:
    """Magic and version; returns (version, number of tensors, number of metadata entries)."""
    _check_magic(cursor)
    version = cursor.number("I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = f"a big-endian file of version {swapped}" if swapped in (1, 2, 3) else f"version {version}"
        raise Unsupported(f"{cursor.name}: this is GGUF {kind}; little-endian versions 2 and 3 are read")
    n_tensors, n_entries = cursor.number("Q"), cursor.number("Q")
    for count, what in ((n_tensors, "tensors"), (n_entries, "metadata entries")):
        if count > _MAX_ENTRIES:
            raise BadModel(f"{cursor.name}: the header claims {count} {what}; at most {_MAX_ENTRIES} are allowed")
    return version, n_tensors, n_entries


def _check_magic(cursor: _Cursor) -> None:
    cursor.skip(4)
    magic = cursor.data[:4]
    if magic != b"GGUF":
        pointer = cursor.data.startswith(b"version https://git-lfs")
        hint = " (a Git LFS pointer: fetch the file itself)" if pointer else ""
        raise NotAModel(f"{cursor.name}: a GGUF file starts with b'GGUF', this one with {magic!r}{hint}")


def _entry(cursor: _Cursor) -> tuple[str, Any]:
    key = cursor.label("a metadata key")
    return key, _value(cursor, cursor.number("I"), key)


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.raw_string(_MAX_STRING, f"the metadata value {key!r}").decode("utf-8", "replace")
    if kind == _ARRAY:
        return _array(cursor, key)
    raise BadModel(f"{cursor.name}: the metadata value {key!r} has the unknown type {kind}")


def _array(cursor: _Cursor, key: str) -> Sequence[Any]:
    kind, count = cursor.number("I"), cursor.number("Q")
    if count > _MAX_ARRAY:
        raise BadModel(f"{cursor.name}: the array {key!r} claims {count} values; at most {_MAX_ARRAY} are allowed")
    if kind == _STRING:
        return _strings(cursor, count, key)
    if kind == _ARRAY:
        raise BadModel(f"{cursor.name}: the array {key!r} holds arrays; only plain values and strings are allowed")
    if kind not in _SCALARS:
        raise BadModel(f"{cursor.name}: the array {key!r} has the unknown element type {kind}")
    values = array("B" if kind == _BOOL else _SCALARS[kind])
    start = cursor.skip(count * values.itemsize)
    values.frombytes(cursor.data[start : cursor.pos])
    return values


def _strings(cursor: _Cursor, count: int, key: str) -> StringArray:
    data, pos, unpack = cursor.data, cursor.pos, struct.Struct("<Q").unpack_from
    begin, have = pos, len(data)
    if pos + 8 * count > have:  # each string has 8 bytes of length, whatever it holds
        raise _NeedMore(pos + 8 * count)
    starts = array("I", [8])
    for i in range(count):
        if pos + 8 > have:
            raise _NeedMore(pos + 8)
        size = unpack(data, pos)[0]
        if size > _MAX_STRING:
            raise BadModel(f"{cursor.name}: string {i} of {key!r} claims {size} bytes; {_MAX_STRING} are allowed")
        pos += 8 + size
        starts.append(pos + 8 - begin)
    if pos > have:
        raise _NeedMore(pos)
    cursor.pos = pos
    return StringArray(data[begin:pos], starts)


@dataclass(frozen=True)
class _Row:
    """A row of the tensor table as it stands in the file: dims innermost first, offset within the data."""

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int


def _tensor_row(cursor: _Cursor) -> _Row:
    name = cursor.label("a tensor's name")
    n_dims = cursor.number("I")
    if n_dims > 4:
        raise BadModel(f"{cursor.name}: tensor {name!r} claims {n_dims} dimensions; at most 4 are allowed")
    dims = tuple(cursor.number("Q") for _ in range(n_dims))
    return _Row(name, dims, cursor.number("I"), cursor.number("Q"))


def _alignment(metadata: Mapping[str, Any], name: str) -> int:
    value = metadata.get("general.alignment", 32)
    if not isinstance(value, int) or not 8 <= value <= _MAX_ALIGNMENT or value & (value - 1):
        raise BadModel(f"{name}: general.alignment must be a power of two from 8 to {_MAX_ALIGNMENT}, got {value!r}")
    return value


def _tensor_info(row: _Row, start: int, alignment: int, name: str) -> TensorInfo:
    if row.kind not in TYPES:
        kind = _OTHER_TYPES.get(row.kind, f"number {row.kind}")
        raise Unsupported(
            f"{name}: tensor {row.name!r} is stored as GGML type {kind}; supported are "
            f"{', '.join(known for known, _, _ in TYPES.values())}. Take a file of one of those quantisations."
        )
    dtype, block, block_bytes = TYPES[row.kind]
    elements, row_length = math.prod(row.dims), row.dims[0] if row.dims else 1
    who = f"{name}: tensor {row.name!r}"
    if not 0 < elements <= _MAX_ELEMENTS:
        raise BadModel(f"{who} of shape {[*row.dims]} has {elements} values; 1 to {_MAX_ELEMENTS} are allowed")
    if row_length % block:
        raise BadModel(f"{who} has rows of {row_length} values, but {dtype} comes in blocks of {block}")
    if row.offset % alignment:
        raise BadModel(f"{who} lies at offset {row.offset}, which is not a multiple of {alignment}")
    return TensorInfo(row.name, row.dims[::-1], dtype, start + row.offset, elements // block * block_bytes)


def _check_placement(tensors: Sequence[TensorInfo], start: int, alignment: int, source: Source) -> None:
    """Names are unique; tensors lie inside the file and apart from each other."""
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise BadModel(f"{source.name}: two tensors are named {tensor.name!r}")
        seen.add(tensor.name)
    end, before = start, "the header"
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset < end:
            raise BadModel(f"{source.name}: tensor {tensor.name!r} at byte {tensor.offset} overlaps {before}")
        gap = tensor.offset > -(-end // alignment) * alignment
        end, before = tensor.offset + tensor.nbytes, repr(tensor.name)
        if end > source.size:
            _past_the_end(tensor, gap, source)


def _past_the_end(tensor: TensorInfo, gap: bool, source: Source) -> None:
    """Tell a file that was cut off from one whose table points somewhere it cannot."""
    where = f"{source.name}: tensor {tensor.name!r} takes bytes {tensor.offset} to {tensor.offset + tensor.nbytes}"
    if gap and tensor.offset > source.size:
        raise BadModel(f"{where}, outside the file, which has {source.size}")
    raise Truncated(f"{where}, but the file has {source.size}; the download was cut off: fetch it anew")

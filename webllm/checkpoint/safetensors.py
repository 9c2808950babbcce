"""Reads a safetensors file's header: names, types, shapes and places of tensors. No weight is read.

The format (github.com/huggingface/safetensors): eight bytes with the length of the header, little-endian; the header,
a JSON object; then the tensors' bytes, little-endian, outermost dimension first, one after another without a gap. The
file may come from anywhere, so nothing is believed before it is checked.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from webllm.checkpoint import Source, TensorInfo
from webllm.checkpoint.bounded_json import json_object
from webllm.errors import BadModel, NotAModel, Truncated, Unsupported

# The types that the format has: name -> bits of a value. Which of them weights may be is not decided here.
TYPES: Mapping[str, int] = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}

MAX_HEADER = 16 << 20  # bytes; models of 100,000 tensors need 13 MB, the format allows 100
_METADATA = "__metadata__"
_MAX_DIMS = 8
_MAX_NUMBER = 1 << 53  # of a shape or an offset: beyond that JavaScript would round


async def read_safetensors(source: Source, number: int = 0) -> dict[str, TensorInfo]:
    """The tensors of a file, by name; their offsets count from the start of the file.

    number: of the source among those of the checkpoint. Raises `NotAModel`, `Truncated`, `BadModel` or `Unsupported`,
    naming `source.name` and what is wrong.

        tensors = await read_safetensors(FileSource("model.safetensors"))
        tensors["lm_head.weight"].shape  # (49152, 576)
    """
    name, size = source.name, source.size
    if size < 8:
        raise NotAModel(f"{name}: no safetensors file, it has only {size} bytes")
    (length,) = struct.unpack("<Q", await source.read(0, 8))
    start = 8 + length
    if length > MAX_HEADER:
        hint = "" if length > size else f", and {MAX_HEADER:,} are read at most"
        raise NotAModel(f"{name}: no safetensors file: its header would have {length:,} bytes{hint}")
    if start > size:
        raise Truncated(f"{name}: the header goes on to byte {start}, but the file has {size}; fetch it anew")
    header = json_object(bytes(await source.read(8, length)), name)
    metadata = header.pop(_METADATA, None)
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(t, str) for t in metadata.values())):
        raise BadModel(f"{name}: {_METADATA} must be an object of texts")
    tensors = {key: _tensor(key, entry, start, number, name) for key, entry in header.items()}
    _check_placement(tensors.values(), start, source)
    return tensors


def _tensor(key: str, entry: Any, start: int, number: int, name: str) -> TensorInfo:
    who = f"{name}: tensor {key[:200]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadModel(f"{who} must have dtype, shape and data_offsets, got {str(entry)[:80]}")
    dtype, shape, offsets = entry["dtype"], _numbers(entry["shape"]), _numbers(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise Unsupported(f"{who} is of the unknown type {str(dtype)[:40]!r}; the format has {', '.join(TYPES)}")
    if shape is None or len(shape) > _MAX_DIMS:
        raise BadModel(f"{who}: a shape is a list of at most {_MAX_DIMS} sizes, got {str(entry['shape'])[:80]}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadModel(f"{who}: data_offsets are a beginning and an end, got {str(entry['data_offsets'])[:80]}")
    bits, (begin, end) = math.prod(shape) * TYPES[dtype], offsets
    if bits != 8 * (end - begin):
        raise BadModel(f"{who} of shape {[*shape]} in {dtype} takes {bits / 8:g} bytes, its offsets {end - begin}")
    return TensorInfo(key, shape, dtype, start + begin, end - begin, number)


def _numbers(value: Any) -> tuple[int, ...] | None:
    """A JSON list of whole numbers from 0; None for anything else."""
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < _MAX_NUMBER for n in value):
        return None
    return tuple(value)


def _check_placement(tensors: Iterable[TensorInfo], start: int, source: Source) -> None:
    """Tensors follow each other without gaps, from the header to the end of the file."""
    end, before = start, "the header"
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            what = "overlaps" if tensor.offset < end else "leaves a gap after"
            raise BadModel(f"{source.name}: tensor {tensor.name[:200]!r} at byte {tensor.offset} {what} {before}")
        end, before = end + tensor.nbytes, repr(tensor.name[:200])
    if end > source.size:
        raise Truncated(
            f"{source.name}: its tensors end at byte {end}, but the file has {source.size}; the download was cut off: "
            "fetch it anew"
        )
    if end < source.size:
        raise BadModel(f"{source.name}: {source.size - end} bytes after the last tensor belong to none")

"""A GGUF file in several parts, as `gguf-split` makes them: NAME-00001-of-00003.gguf and so on.

The first part has the metadata; each says how many parts and tensors there are, and which part it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from webllm.checkpoint.gguf import Gguf
from webllm.errors import BadModel, Unsupported
from webllm.hub_place import parts_of

_MAX_PARTS = 999


def other_parts(gguf: Gguf, location: Any) -> list[str]:
    """Where the other parts of a file lie, in order; [] if it is whole.

    location: of the file, a path or an address. Raises `Unsupported` for a part that is not the first, or without the
    names that parts have.
    """
    count = _number(gguf, "split.count", 0)
    if count < 2:
        return []
    parts = parts_of(str(location))
    if _number(gguf, "split.no", 0) or len(parts) != count or parts[0] != str(location):
        raise Unsupported(
            f"{gguf.name}: this is a part of a model that is split into {count}; give the first one, by its path or "
            f"address, under the name it had: NAME-00001-of-{count:05}.gguf"
        )
    return parts[1:]


def joined(parts: Sequence[Gguf]) -> Gguf:
    """The parts as one header, whose tensors tell their part. Raises `BadModel` where they do not belong together."""
    first = parts[0]
    tensors = [replace(tensor, source=number) for number, part in enumerate(parts) for tensor in part.tensors]
    for number, part in enumerate(parts):
        if (_number(part, "split.no", -1), _number(part, "split.count", 0)) != (number, len(parts)):
            raise BadModel(f"{part.name}: wanted part {number + 1} of {len(parts)} of {first.name}, and it is another")
    if len(tensors) != _number(first, "split.tensors.count", len(tensors)):
        claimed = first.metadata["split.tensors.count"]
        raise BadModel(f"{first.name}: {claimed} tensors are claimed, its parts have {len(tensors)}")
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BadModel(f"{first.name}: two of its parts have a tensor of the same name")
    return replace(first, tensors=tuple(tensors))


def _number(gguf: Gguf, key: str, default: int) -> int:
    value = gguf.metadata.get(key, default)
    if type(value) is not int or not -1 <= value < 1 << 31 or (key == "split.count" and value > _MAX_PARTS):
        raise BadModel(f"{gguf.name}: {key} must be a number of parts or tensors, got {str(value)[:40]}")
    return value

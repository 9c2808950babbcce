"""Checkpoint readers: from a file's header to names, shapes and byte ranges. No weight is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Source(Protocol):
    """Random access to the bytes of one file, wherever it lies."""

    name: str  # path or URL, for messages
    size: int  # bytes

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return exactly `size` bytes from `offset`, or raise `Truncated`."""
        ...

    async def pause(self) -> None:
        """Let go of connections until the next read; for files of which only the header is wanted yet."""
        ...

    def close(self) -> None: ...

    async def aclose(self) -> None:
        """Close, and wait until connections have ended."""
        ...


class Folder(Protocol):
    """A model that consists of several files, wherever they lie."""

    name: str  # path or URL, for messages

    async def read(self, name: str, limit: int) -> bytes | None:
        """The whole of a small file; None where there is none. Raises `BadModel` if it is larger than `limit` bytes."""
        ...

    async def open(self, name: str) -> Source | None:
        """A file of weights; None where there is none."""
        ...


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor's bytes lie.

    shape is outermost first (numpy's order): a linear layer is (out_features, in_features).
    """

    name: str  # the name Hugging Face's checkpoints use
    shape: tuple[int, ...]
    dtype: str  # "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", ...
    offset: int  # absolute, in bytes
    nbytes: int
    source: int = 0  # index into Checkpoint.sources
    pair_rows: bool = False  # q and k of GGUF's `llama`: rotary pairs lie in adjacent rows
    store_as: str | None = None  # the GPU's format where it is not the file's: see `webllm.quantize`


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is built from, independent of the file it came from."""

    kind: str  # "bpe" (byte level) or "spm" (SentencePiece BPE with byte fallback)
    tokens: Sequence[str]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    token_types: Sequence[int] = ()  # GGUF's: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
    pre: str = "default"  # GGUF's name of the pre-tokenizer
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False
    tokenizer_json: str | None = None  # the model's own, for ordinary text alone; else it is made of the above


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk: configuration, tensor table and vocabulary. Weights stay where they are."""

    name: str
    config: Mapping[str, Any]  # keys as in Hugging Face's config.json, "model_type" among them
    tensors: Mapping[str, TensorInfo]
    sources: Sequence[Source]
    vocabulary: Vocabulary | None = None
    chat_template: str | None = None
    stop_ids: frozenset[int] = frozenset()
    generation: Mapping[str, Any] = field(default_factory=dict)  # the file's own sampling defaults

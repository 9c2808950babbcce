"""Converts a llama2.c checkpoint (version 0, float32) and its tokenizer.bin into a GGUF file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray

BOS, EOS = 1, 2


class Shape(NamedTuple):
    """The seven numbers that a checkpoint begins with. A negative vocab_size means an LM head of its own."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int

    def check(self) -> None:
        if self.vocab_size < 0:
            raise ValueError("only checkpoints whose LM head is the embedding are converted")


def convert(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write `out`. q and k stay as they are: llama2.c and GGUF's `llama` both rotate adjacent pairs of rows."""
    data = checkpoint.read_bytes()
    shape = Shape(*struct.unpack_from("<7i", data))
    shape.check()
    writer = GGUFWriter(out, "llama")
    _write_shape(writer, shape)
    _write_vocabulary(writer, tokenizer, shape.vocab_size)
    for name, values in _tensors(np.frombuffer(data, np.float32, offset=28), shape):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_name("stories260K")
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(shape.seq_len)
    writer.add_embedding_length(shape.dim)
    writer.add_feed_forward_length(shape.hidden_dim)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)


def _write_vocabulary(writer: GGUFWriter, path: Path, size: int) -> None:
    pieces = list(_pieces(path.read_bytes()))
    if len(pieces) != size:
        raise ValueError(f"{path} has {len(pieces)} pieces and the checkpoint {size} tokens")
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE if text.startswith("<0x") else TokenType.NORMAL for text, _ in pieces[3:]]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(text.replace(" ", "\u2581") for text, _ in pieces[3:])])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)


def _pieces(data: bytes) -> Iterator[tuple[str, float]]:
    """After the longest piece's length: score, length and bytes of each."""
    at = 4
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        yield data[at + 8 : at + 8 + size].decode(), score
        at += 8 + size


def _tensors(values: NDArray[np.float32], s: Shape) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The checkpoint's tensors in its order: each kind for all layers. The rotary tables after them are not needed."""
    kv_dim = s.dim // s.n_heads * s.n_kv_heads
    yield "token_embd.weight", values[: s.vocab_size * s.dim].reshape(s.vocab_size, s.dim)
    at = s.vocab_size * s.dim
    kinds: dict[str, tuple[int, ...]] = {
        "attn_norm": (s.dim,),
        "attn_q": (s.dim, s.dim),
        "attn_k": (kv_dim, s.dim),
        "attn_v": (kv_dim, s.dim),
        "attn_output": (s.dim, s.dim),
        "ffn_norm": (s.dim,),
        "ffn_gate": (s.hidden_dim, s.dim),
        "ffn_down": (s.dim, s.hidden_dim),
        "ffn_up": (s.hidden_dim, s.dim),
    }
    for kind, dims in kinds.items():
        size = int(np.prod(dims))
        for layer in range(s.n_layers):
            yield f"blk.{layer}.{kind}.weight", values[at : at + size].reshape(dims)
            at += size
    yield "output_norm.weight", values[at : at + s.dim]

"""From a checkpoint to a program: buffers, weights, and the plans `decode`, `decode_long` and `prefill`."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from webllm import models, ops
from webllm.checkpoint import Checkpoint
from webllm.errors import BadModel, RequestError, Unsupported, WebLLMError
from webllm.limits import Limits
from webllm.memory import share_scratch
from webllm.models._rotary import Rotary
from webllm.ops import PAGE, RING, TILE, Builder, Cache, Heads, Recorder, Tensor
from webllm.plan import PIECE_BYTES, Plan, Program, Upload
from webllm.weights import Weights, random_uploads

CHUNK = 1024  # rows of a prefill step: many, so that narrow weights fill the GPU
DEFAULT_CONTEXT = 4096
MAX_LAYERS = 4096
ROOM = 512  # positions that the KV cache has room for at first; it grows with the conversation
KV_BYTES = {"f16": (2, 0), "f32": (4, 0), "int8": (1, 8)}  # of a number; of a position's scales, for each head
ROW_BYTES = 16  # token, position, sequence, emitted
STEP_HEADER = 16
_NOT_WEIGHTS = (
    "rope_freqs.weight",
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attention.bias",
    ".masked_bias",
)  # of tensors that are read elsewhere, or follow from others


@dataclass(frozen=True)
class Settings:
    """What is decided at load. kv: "f16", "f32" or "int8" cache elements.

    chunk: at most so many rows in a prefill step. room: positions that the cache has memory for at first.
    """

    context: int
    kv: str = "f16"
    chunk: int = CHUNK
    room: int = ROOM
    share: bool = True  # False keeps every intermediate readable


def architecture(checkpoint: Checkpoint) -> ModuleType:
    """The module of `webllm.models` for the checkpoint's `model_type`; what it has is a class `Model`.

    Raises `Unsupported` with the list of those there are.
    """
    name = str(checkpoint.config.get("model_type", ""))
    known = sorted(models.known())
    if name not in known:
        raise Unsupported(f"{checkpoint.name}: model_type {name!r}; supported are {', '.join(known)}")
    return import_module(f"webllm.models.{name}")


def context_size(checkpoint: Checkpoint, wanted: int | None) -> int:
    """Positions of the KV cache: `wanted`, or the model's own up to 4096. Raises `RequestError` beyond the model's."""
    most = int(checkpoint.config.get("max_position_embeddings", DEFAULT_CONTEXT))
    if wanted is None:
        return min(most, DEFAULT_CONTEXT)
    if not 1 <= wanted <= most:
        raise RequestError(f"context must be 1 to {most}, the positions that {checkpoint.name} knows; got {wanted}")
    return wanted


def read_model(
    checkpoint: Checkpoint, weights: Weights, context: int, rope_factors: Sequence[float] = ()
) -> tuple[Any, list[Rotary]]:
    """The architecture's `Model`, and each layer's rotary positions, out of whatever a config.json may hold by mistake.

    Raises `BadModel` or `Unsupported`.
    """
    try:
        model = architecture(checkpoint).Model(checkpoint.config, weights)
        layers = range(model.config.num_hidden_layers)
        if len(layers) > MAX_LAYERS:
            raise BadModel(f"the configuration claims {len(layers)} layers; at most {MAX_LAYERS} are allowed")
        for layer in layers:
            model.heads(layer)
        return model, [model.rotary(layer, context, rope_factors) for layer in layers]
    except WebLLMError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise BadModel(f"the configuration makes no sense: {type(error).__name__}: {error}") from error


async def read_rope_factors(checkpoint: Checkpoint) -> tuple[float, ...]:
    """The frequency divisors that a GGUF carries as a tensor, if it does. Raises `Unsupported` unless it is F32."""
    name = (checkpoint.config.get("rope_scaling") or {}).get("factors")
    if name is None:
        return ()
    tensor = checkpoint.tensors[name]
    if tensor.dtype != "F32":
        raise Unsupported(f"{checkpoint.name}: {name} is {tensor.dtype}; wanted F32")
    data = await checkpoint.sources[tensor.source].read(tensor.offset, tensor.nbytes)
    factors = struct.unpack(f"<{tensor.nbytes // 4}f", data)
    if not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise BadModel(f"{checkpoint.name}: {name} must hold finite numbers above 0")
    return factors


def build(
    checkpoint: Checkpoint,
    settings: Settings,
    limits: Limits,
    *,
    rope_factors: Sequence[float] = (),
    random: bool = False,
) -> Program:
    """Record the program of a model.

    rope_factors: see `read_rope_factors`. random: weights are made up on the GPU instead of read. Raises a
    `ModelError` where tensors are missing or contradict the configuration; no GPU is touched.
    """
    builder = Builder(limits)
    raw = builder.buffer("raw", PIECE_BYTES + 4, "staging")
    params = builder.buffer("params", 32, "staging")
    weights = Weights(builder, checkpoint, raw, params)
    model, rotaries = read_model(checkpoint, weights, settings.context, rope_factors)
    config = model.config
    # The widest activation is gate and up, side by side.
    fitting = limits.storage_binding // (8 * config.intermediate_size) // TILE * TILE
    chunk = max(TILE, min(settings.chunk, fitting, -(-settings.context // TILE) * TILE))
    caches, constants = _caches(builder, config.heads, rotaries, settings, chunk)
    result = builder.buffer("result", 4 * RING, "state")

    logits = builder.buffer("logits", 4 * config.vocab_size, "state")

    def decode(short: bool) -> Plan:
        rec = Recorder(builder, rows=1, short=short)
        model.decode(rec, caches, Tensor(rec, logits, (1, config.vocab_size)))
        return rec.plan()

    def tail(choose: Callable[[Tensor, int, int], None]) -> Plan:
        rec = Recorder(builder, rows=1)
        choose(Tensor(rec, logits, (1, config.vocab_size)), caches[0].step, result)
        return rec.plan(result)

    def prefill(rows: int) -> Plan:
        rec = Recorder(builder, rows)
        model.prefill(rec, caches)
        return rec.plan(result)

    plans = {"decode": decode(short=True), "prefill": prefill(chunk), "greedy": tail(ops.next_token)}
    integers = {("row", "int8"), ("row", "packed")}
    if not limits.small and any(integers.intersection(d.variants) for d in plans["decode"].dispatches):
        plans["prefill_few"] = prefill(ops.FEW)
    plans["sample"] = tail(ops.sample)
    if settings.context > ops.SHORT:
        plans["decode_long"] = decode(short=False)
    if not random:
        _check_all_used(checkpoint, weights.unused(), config.tie_word_embeddings)
    uploads = random_uploads(builder, params) if random else weights.uploads
    buffers, errors = tuple(builder.buffers), {} if random else weights.errors
    program = Program(buffers, plans, _in_file_order(uploads), constants, settings.context, errors=errors)
    return share_scratch(program) if settings.share else program


def check_kv(kv: str, exact: bool = False) -> None:
    """Raise `RequestError` if there is no such cache, or if it is approximate and that is forbidden."""
    if kv not in KV_BYTES:
        raise RequestError(f"kv must be one of {', '.join(KV_BYTES)}, got {kv!r}")
    if exact and kv == "int8":
        raise RequestError("a cache of int8 is approximate, and exact=True forbids that; take kv='f16' or 'f32'")


def page_bytes(heads: Heads, kv: str) -> int:
    """Bytes of a page of K or V."""
    number, scales = KV_BYTES[kv]
    return PAGE * heads.kv_heads * (heads.dim * number + scales)


def cache_sizes(program: Program, positions: int) -> dict[str, int]:
    """Bytes of each buffer that grows, by name, with room for so many positions."""
    pages, most = -(-positions // PAGE), -(-program.context // PAGE)
    return {b.name: b.most // most * min(pages, most) for b in program.buffers if b.most}


def first_room(program: Program) -> int:
    """Positions for which the buffers that grow have room before they do; the context where none grows."""
    pages = -(-program.context // PAGE)
    room = PAGE * min((b.size // (b.most // pages) for b in program.buffers if b.most), default=pages)
    return min(room, program.context)


def largest_context(program: Program, limit: int) -> int:
    """Positions at which no buffer that grows is over `limit` bytes."""
    pages = -(-program.context // PAGE)
    return PAGE * min((limit // (b.most // pages) for b in program.buffers if b.most), default=0)


def decode_plan(length: int) -> str:
    """Name of the plan for a step that attends to `length` positions."""
    return "decode" if length <= ops.SHORT else "decode_long"


def prefill_plan(program: Program, rows: int) -> str:
    """Name of the plan for a step of `rows` rows of a prompt."""
    return "prefill_few" if rows <= ops.FEW and "prefill_few" in program.plans else "prefill"


def rope_table(rotary: Rotary, context: int) -> bytes:
    """cos and sin of every angle up to `context`, as two tables whose product gives any position.

    [256 low positions, then 0, 256, 512, ...][frequencies] pairs of f32, computed in f64.
    """
    table = array("f")
    for positions, scale in ((range(256), 1.0), (range(0, context, 256), rotary.scale)):
        for position in positions:
            for frequency in rotary.frequencies:
                angle = position * frequency
                table.extend((scale * math.cos(angle), scale * math.sin(angle)))
    return table.tobytes() or bytes(8)


def step_bytes(records: Sequence[tuple[int, int]], emitted: int = 0) -> bytes:
    """The step buffer's contents for (token, position) records of sequence 0."""
    header = struct.pack("<4I", len(records), 0, 0, 0)
    return header + b"".join(struct.pack("<4I", token, position, 0, emitted) for token, position in records)


def _caches(
    builder: Builder, heads: Heads, rotaries: Sequence[Rotary], settings: Settings, chunk: int
) -> tuple[list[Cache], dict[str, bytes]]:
    """K and V of every layer, what they share, and the contents of the page table and the rotary tables."""
    check_kv(settings.kv)
    page_count = -(-settings.context // PAGE)
    page = page_bytes(heads, settings.kv)
    size, most = page * -(-min(settings.room, settings.context) // PAGE), page * page_count
    step = builder.buffer("step", STEP_HEADER + ROW_BYTES * chunk, "state")
    pages = builder.buffer("pages", 4 * page_count, "constant")
    constants, ropes = {"pages": array("I", range(page_count)).tobytes()}, {}
    for number, rotary in enumerate(dict.fromkeys(rotaries)):
        name = f"rope.{number}" if number else "rope"
        constants[name] = rope_table(rotary, settings.context)
        ropes[rotary] = builder.buffer(name, len(constants[name]), "constant")
    caches = [
        Cache(
            builder.buffer(f"k.{i}", size, "state", most),
            builder.buffer(f"v.{i}", size, "state", most),
            settings.kv,
            step,
            pages,
            ropes[rotary],
            2 * len(rotary.frequencies),
            settings.context,
        )
        for i, rotary in enumerate(rotaries)
    ]
    return caches, constants


def _check_all_used(checkpoint: Checkpoint, unused: Sequence[str], tied: bool) -> None:
    """A tensor that the model has no place for would be left out in silence, and the answers would be wrong."""
    for name in unused:
        if not name.endswith(_NOT_WEIGHTS) and not (name == "lm_head.weight" and tied):
            kind = checkpoint.config.get("model_type")
            raise Unsupported(f"{checkpoint.name}: webllm's {kind} has no place for the tensor {name[:200]!r}")


def _in_file_order(uploads: Sequence[Upload]) -> tuple[Upload, ...]:
    """A server without Range sends the file once, from front to back."""
    return tuple(sorted(uploads, key=lambda upload: (upload.source, upload.offset)))

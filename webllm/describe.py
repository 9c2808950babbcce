"""A program as plain data for people and tests: dispatches, kernels, grids, bytes. No GPU is touched."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from webllm.plan import Dispatch, Plan, Program

_LAYER = re.compile(r"(?:model\.layers|[kv])\.(\d+)(?:\.|$)")
_CACHE = re.compile(r"[kv]\.\d+")
# Parts of a model by what is in the name of a weight that a dispatch binds. A norm belongs to the product after it.
_PART_OF_WEIGHT = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "o_proj",
    "mlp.gate_proj": "gate+up",
    "mlp.up_proj": "gate+up",
    "mlp.down_proj": "down",
    "lm_head": "LM head",
    "embed_tokens": "LM head",
    ".input_layernorm": "qkv",
    ".post_attention_layernorm": "gate+up",
    "model.norm": "LM head",
}
_PRODUCT_AT = {"pack": 1, "sum_parts": -1}  # kernels that prepare or finish the product after or before them
_PART_OF_KERNEL = {
    "embed": "embedding",
    "rope_cache": "attention",
    "act_mul": "gate+up",
    "argmax_tile": "choose",
    "next_token": "choose",
    "score_tile": "choose",
    "gather": "choose",
    "sample": "choose",
}


def describe(program: Program) -> dict[str, Any]:
    """{"plans": {name: ...}, "memory": {...}, "memory_at_first": {...}}, as `webllm plan --json` prints it.

    describe(build(checkpoint, Settings(4096), Limits()))["plans"]["decode"]["dispatches"]
    """
    plans = {name: describe_plan(program, plan) for name, plan in program.plans.items()}
    return {"plans": plans, "memory": memory(program), "memory_at_first": memory(program, grown=False)}


def describe_plan(program: Program, plan: Plan) -> dict[str, Any]:
    """One plan: counts, the bytes of weights it reads, and every dispatch in order under "steps"."""
    return {
        "dispatches": len(plan.dispatches),
        "dispatches_per_layer": max(dispatches_by_layer(program, plan).values(), default=0),
        "kernels": dict(Counter(dispatch.kernel for dispatch in plan.dispatches)),
        "bytes_read": bytes_read(program, plan),
        "steps": [_step(program, dispatch) for dispatch in plan.dispatches],
    }


def bytes_read(program: Program, plan: Plan) -> int:
    """Bytes of the weights that a step of one row reads, each buffer once however many dispatches bind it.

    Of an embedding that is not also the LM head it reads one row, which counts as nothing.
    """
    reading = (dispatch for dispatch in plan.dispatches if dispatch.kernel != "embed")
    bound = {number for dispatch in reading for _, number in dispatch.buffers}
    return sum(program.buffers[i].size for i in bound if program.buffers[i].kind == "weight")


def parts_of(program: Program, plan: Plan) -> list[str]:
    """The part of a model that each dispatch computes: "qkv", "attention", "o_proj", "gate+up", "down", "LM head", ...

    "rest" where neither its kernel nor the weights that it binds tell.
    """
    dispatches = plan.dispatches
    return [_part(program, dispatches[i + _PRODUCT_AT.get(one.kernel, 0)]) for i, one in enumerate(dispatches)]


def _part(program: Program, dispatch: Dispatch) -> str:
    if dispatch.kernel.startswith("attention"):
        return "attention"
    if dispatch.kernel in _PART_OF_KERNEL:
        return _PART_OF_KERNEL[dispatch.kernel]
    names = [program.buffers[number].name for _, number in dispatch.buffers]
    return next((part for key, part in _PART_OF_WEIGHT.items() if any(key in name for name in names)), "rest")


def dispatches_by_layer(program: Program, plan: Plan) -> Counter[int]:
    """Layer -> its dispatches. One that binds scratch only belongs to the layer of the one before it."""
    counts: Counter[int] = Counter()
    layer: int | None = None
    for dispatch in plan.dispatches:
        bound = [program.buffers[number] for _, number in dispatch.buffers]
        found = next((match for buffer in bound if (match := _LAYER.match(buffer.name))), None)
        if found:
            layer = int(found[1])
        elif any(buffer.kind == "weight" for buffer in bound):
            layer = None  # the embedding, the last norm or the LM head
        if layer is not None:
            counts[layer] += 1
    return counts


def memory(program: Program, grown: bool = True) -> dict[str, int]:
    """GPU bytes of a loaded model, with a full context; not grown: before it grows.

    total: with tables, logits and the like, which are "other".
    """
    held = {b: b.largest if grown else b.size for b in program.buffers if b.kind != "staging"}
    parts = {
        "weights": sum(size for buffer, size in held.items() if buffer.kind == "weight"),
        "kv": sum(size for buffer, size in held.items() if _CACHE.fullmatch(buffer.name)),
        "scratch": sum(size for buffer, size in held.items() if buffer.kind == "scratch"),
    }
    total = sum(held.values())
    return {**parts, "other": total - sum(parts.values()), "total": total}


def _step(program: Program, dispatch: Dispatch) -> dict[str, Any]:
    return {
        "kernel": dispatch.kernel,
        "variants": dict(dispatch.variants),
        "grid": [size if isinstance(size, int) else str(size) for size in dispatch.grid],
        "constants": dict(dispatch.constants),
        "buffers": [_binding(program, name, number) for name, number in dispatch.buffers],
    }


def _binding(program: Program, name: str, number: int) -> dict[str, Any]:
    buffer = program.buffers[number]
    return {"binding": name, "number": number, "name": buffer.name, "bytes": buffer.size, "kind": buffer.kind}

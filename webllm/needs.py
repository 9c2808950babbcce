"""What a model needs, known before anything is allocated or downloaded; and which choices need less."""

from __future__ import annotations

from dataclasses import replace

from webllm.catalog import smaller_than
from webllm.checkpoint import Checkpoint
from webllm.describe import memory
from webllm.errors import WebLLMError
from webllm.plan import Program
from webllm.quantize import quantised
from webllm.weights import matrix_bytes

LEAST_CONTEXT = 512


def needs(program: Program, checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes: "download", of all files of weights; on the GPU "weights", "kv" with a full context, and
    "at_full_context": these and what steps need."""
    held = memory(program)
    download = sum(source.size for source in checkpoint.sources)
    return {"download": download, "weights": held["weights"], "kv": held["kv"], "at_full_context": held["total"]}


def needs_text(told: dict[str, int], context: int | None = None) -> str:
    """The same in words.

    "needs 98.4 MB of files; 229.6 MB on the GPU: 96.6 MB of weights, 94.4 MB of KV cache at a context of 4096"
    """
    files, weights, kv, total = (
        f"{told[key] / 1e6:,.1f} MB" for key in ("download", "weights", "kv", "at_full_context")
    )
    at = f" at a context of {context}" if context else ""
    return f"needs {files} of files; {total} on the GPU: {weights} of weights, {kv} of KV cache{at}"


def smaller_choices(program: Program, checkpoint: Checkpoint) -> str:
    """What would need less, for a message: a shorter context, 4 bits where the file has more, a smaller model."""
    told = needs(program, checkpoint)
    choices = []
    if (half := program.context // 2) >= LEAST_CONTEXT:
        choices.append(f"context={half} ({told['kv'] / 2e6:,.1f} MB less)")
    if saved := _saved_by_quantising(checkpoint):
        choices.append(f"quant='q4' ({saved / 1e6:,.1f} MB less)")
    if names := smaller_than(told["at_full_context"]):
        choices.append(f"the model {names[0]!r}")
    return f"it {needs_text(told, program.context)}; smaller would be {' or '.join(choices) or 'another model'}"


def _saved_by_quantising(checkpoint: Checkpoint) -> int:
    """Bytes on the GPU that quant="q4" saves; 0 where the file is quantised."""
    bare = replace(checkpoint, tensors={n: replace(t, store_as=None) for n, t in checkpoint.tensors.items()})
    try:
        smaller = quantised(bare, "q4")
    except WebLLMError:
        return 0
    sizes = (
        sum(matrix_bytes(tensor) for tensor in one.tensors.values() if len(tensor.shape) == 2)
        for one in (checkpoint, smaller)
    )
    return max(0, next(sizes) - next(sizes))

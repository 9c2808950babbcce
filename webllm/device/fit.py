"""Whether a device can hold and run a program, found before anything is allocated or sent."""

from __future__ import annotations

from collections.abc import Mapping

from webllm.errors import OutOfMemory, ShaderError
from webllm.link import Linked
from webllm.plan import Buffer, Program
from webllm.program import largest_context


def check_fit(program: Program, linked: Linked, limits: Mapping[str, int], device: str) -> None:
    """Raise `OutOfMemory` or `ShaderError` where a buffer, grown to its most, or a workgroup is over the limits.

    limits: by WebGPU's names. device: what messages call it.
    """
    most = min(limits["maxStorageBufferBindingSize"], limits["maxBufferSize"])
    over = [buffer for buffer in program.buffers if buffer.largest > most]
    if over:
        largest = max(over, key=lambda buffer: buffer.largest)
        raise OutOfMemory(
            f"{largest.name} needs {largest.largest:,} bytes and {device} binds at most {most:,}; "
            f"{_way_out(program, over, most)}",
            sizes={largest.name: largest.largest, "limit": most},
        )
    threads = limits["maxComputeInvocationsPerWorkgroup"]
    for pipeline in linked.pipelines:
        if pipeline["threads"] > threads:
            raise ShaderError(
                f"kernel {pipeline['label']!r} has workgroups of {pipeline['threads']} invocations and {device} allows "
                f"{threads}: a bug in webllm's choice of kernels",
                kernel=pipeline["label"],
                sizes={"invocations": pipeline["threads"], "limit": threads},
            )


def memory_event(program: Program, seconds: float) -> dict[str, object]:
    """What loading will take, for `on_progress`: bytes on the GPU at first and with a full context."""
    kept = [buffer for buffer in program.buffers if buffer.kind != "staging"]
    return {
        "phase": "memory",
        "loaded": 0,
        "total": sum(buffer.size for buffer in kept),
        "at_full_context": sum(buffer.largest for buffer in kept),
        "tensors": len(program.uploads),
        "seconds": seconds,
    }


def _way_out(program: Program, over: list[Buffer], most: int) -> str:
    """The largest context that fits; where that is not the trouble, another model or device."""
    context = largest_context(program, most)
    if context and all(buffer.most for buffer in over):
        return f"load with a smaller context: context={context} or less fits"
    return "load a smaller model, or use a device with a larger limit"

"""`webllm plan`: what the GPU would be asked to do for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.cli.opening import opened
from webllm.cli.options import AnyQuant, Context, Json, Kv
from webllm.cli.output import emit, megabytes
from webllm.cli.running import run

if TYPE_CHECKING:
    from webllm.limits import Limits

# Those that webllm makes use of.
FEATURES = ("shader-f16", "subgroups", "timestamp-query", "packed_4x8_integer_dot_product")


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL|config.json", help="A model, or only its configuration.")],
    features: Annotated[
        str, typer.Option(metavar="NAMES", help="The device's WebGPU features, as in shader-f16,subgroups.")
    ] = "",
    limits: Annotated[
        str, typer.Option(metavar="default|NAME=N,...", help="The device's WebGPU limits, over the guaranteed ones.")
    ] = "default",
    context: Context = None,
    kv: Kv = "f16",
    quant: AnyQuant = None,
    as_json: Json = False,
) -> None:
    """Show what the GPU would be asked to do for a model. Needs no GPU and no weights."""
    names = read_features(features)
    result = run(_plan(model, quant, read_limits(limits, names), context, kv))
    emit({"model": model, "features": names, **result}, as_json, _plan_text(result))


def read_features(text: str) -> list[str]:
    """WebGPU's names of features, sorted."""
    names = sorted(set(text.replace(",", " ").split()))
    if unknown := [name for name in names if name not in FEATURES]:
        raise typer.BadParameter(f"wanted some of {', '.join(FEATURES)}; got {unknown[0]!r}", param_hint="--features")
    return names


def read_limits(text: str, features: Sequence[str] = ()) -> Limits:
    """`default`, or WebGPU's names with numbers; what is not named has the value that every device has."""
    from webllm.limits import Limits

    least = Limits()
    values = {
        "maxStorageBufferBindingSize": least.storage_binding,
        "maxComputeWorkgroupStorageSize": least.workgroup_storage,
        "maxComputeInvocationsPerWorkgroup": least.threads,
    }
    for pair in text.replace(",", " ").split() if text != "default" else ():
        name, _, value = pair.partition("=")
        if name not in values or not value.isdecimal():
            wanted = ", ".join(f"{known}=N" for known in values)
            raise typer.BadParameter(f"wanted default or some of {wanted}; got {pair!r}", param_hint="--limits")
        values[name] = int(value)
    return Limits.of(values, features)


async def _plan(model: str, quant: str | None, limits: Limits, context: int | None, kv: str) -> dict[str, Any]:
    from webllm.describe import describe
    from webllm.program import Settings, build, context_size, read_rope_factors

    async with opened(model, quant) as checkpoint:
        settings = Settings(context_size(checkpoint, context), kv)
        factors = await read_rope_factors(checkpoint)
        return {"context": settings.context, **describe(build(checkpoint, settings, limits, rope_factors=factors))}


def _plan_text(result: Mapping[str, Any]) -> str:
    lines = []
    for name, one in result["plans"].items():
        counts = f"{one['dispatches']} dispatches, {one['dispatches_per_layer']} a layer"
        lines.append(f"{name}: {counts}, reads {megabytes(one['bytes_read'])} of weights")
        lines += [f"  {count:5}  {kernel}" for kernel, count in one["kernels"].items()]
    for when, memory in (("at first", "memory_at_first"), (f"with a full context of {result['context']}", "memory")):
        lines.append(f"memory {when}:")
        lines += [f"  {name:8} {megabytes(size):>12}" for name, size in result[memory].items()]
    return "\n".join(lines)

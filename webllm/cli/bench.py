"""`webllm bench`: how fast a model is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.cli.opening import opened
from webllm.cli.options import DEFAULT_QUANT, Adapter, AnyQuant, Context, Exact, Json, Kv, PowerPreference, numbers
from webllm.cli.output import emit, note
from webllm.cli.running import run

if TYPE_CHECKING:
    from webllm.bench import Request


def bench(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A model to measure.")] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A config.json, measured with random weights.")
    ] = None,
    quant: AnyQuant = None,
    prompt_tokens: Annotated[str, typer.Option(metavar="N,...", help="Prompt lengths.")] = "128,1024",
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one decode run.")] = 128,
    at_context: Annotated[str, typer.Option(metavar="N,...", help="Positions before the first decoded token.")] = "128",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each measurement.")] = 5,
    context: Context = None,
    kv: Kv = "f16",
    adapter: Adapter = None,
    power_preference: PowerPreference = None,
    exact: Exact = False,
    as_json: Json = False,
) -> None:
    """Measure the speed of a model, or of a configuration with random weights."""
    from webllm.bench import Request

    if (model is None) == (config is None):
        raise typer.BadParameter("give one of MODEL and --config")
    lengths, contexts = numbers(prompt_tokens, "--prompt-tokens"), numbers(at_context, "--at-context")
    request = Request(lengths, decode_tokens, contexts, repeats, kv, context or 0, exact)
    device = (adapter, power_preference)
    result = run(_bench(model or str(config), quant, request, device))
    emit(result, as_json, _bench_text(result))


async def _bench(
    model: str, quant: str | None, request: Request, which: tuple[str | None, str | None]
) -> dict[str, Any]:
    from webllm import bench, host

    async with opened(model, quant) as checkpoint:
        open_device = partial(host.current().open_device, *which)
        random = not checkpoint.sources
        result = await bench.run(open_device, checkpoint, request, random=random, note=note)
    return {"model": model, "quant": quant or DEFAULT_QUANT if random else quant, **result}


def _bench_text(result: Mapping[str, Any]) -> str:
    lines = [f"{result['adapter']}, copies {result['copy_gb_per_s']:.1f} GB/s"]
    for phase in result["results"]:
        rate = f"{phase['tokens_per_s_median']:.1f} ± {phase['tokens_per_s_iqr'] / 2:.1f} tokens/s"
        lines.append(f"{phase['phase']:8} {phase['tokens']:6} tokens at {phase['at_context']:6}: {rate}")
        if phase["gpu_ms"] is not None:
            lines.append(_gpu_text(phase))
    return "\n".join(lines)


def _gpu_text(phase: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{part} {ms:.3f}" for part, ms in phase["gpu_ms_by_part"].items())
    unit = "token" if phase["phase"] == "decode" else "prompt"
    return f"         GPU {phase['gpu_ms']:.3f} ms a {unit}; in passes of their own {parts}"

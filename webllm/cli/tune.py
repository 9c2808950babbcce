"""`webllm tune`: measure which shapes of workgroups are fastest on this GPU for a model, for later loads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from webllm.cli.opening import opened
from webllm.cli.options import Adapter, Exact, Json, Model, PowerPreference, Quant
from webllm.cli.output import emit
from webllm.cli.running import run


def tune(
    model: Model,
    quant: Quant = None,
    adapter: Adapter = None,
    power_preference: PowerPreference = None,
    exact: Exact = False,
    as_json: Json = False,
) -> None:
    """Measure which shapes of workgroups are fastest on this GPU for a model, and keep them for later loads.

    What was kept for this model is measured again. With --json: the table as `webllm.load(tune=...)` takes it.
    """
    result = run(_tune(model, quant, exact, (adapter, power_preference)))
    emit(result["table"] if as_json else result, as_json, _text(result))


async def _tune(model: str, quant: str | None, exact: bool, which: tuple[str | None, str | None]) -> dict[str, Any]:
    from webllm import host
    from webllm import tune as tuner
    from webllm.program import Settings, context_size
    from webllm.selftest import open_tested

    async with opened(model, quant) as checkpoint:
        device, limits = await open_tested(partial(host.current().open_device, *which), exact=exact)
        try:
            settings = Settings(context_size(checkpoint, None))
            measured = await tuner.measure(device, limits, checkpoint, settings)
            table = tuner.recall(device.info, limits) | {one.key: one.best for one in measured}
            tuner.keep(device.info, table)
            file = tuner.file_name(device.info)
            return {"measured": measured, "file": file, "table": tuner.table_json(device.info, table)}
        finally:
            device.close()


def _text(result: Mapping[str, Any]) -> str:
    lines = [f"{'kernel':34}{'rows':>8}{'columns':>8}{'default':>12}{'fastest':>12}{'a step ms':>11}"]
    for one in result["measured"]:
        (kernel, rows, cols), default = one.key, next(iter(one.seconds))
        lines.append(
            f"{kernel:34}{rows:8}{cols:8}{_shape(default):>12}{_shape(one.best):>12}"
            f"{one.seconds[default] * 1e3:9.3f} -> {one.seconds[one.best] * 1e3:.3f}"
        )
    return "\n".join([*lines, f"kept in the cache folder as {result['file']}"])


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"

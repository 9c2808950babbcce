"""`webllm doctor`: what this machine has, and whether every kernel is right on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from webllm.cli.options import Adapter, Json, PowerPreference
from webllm.cli.output import emit, note
from webllm.cli.running import run
from webllm.errors import DeviceError

if TYPE_CHECKING:
    from webllm.device import Device
    from webllm.device.adapters import Adapter as FoundAdapter


def doctor(adapter: Adapter = None, power_preference: PowerPreference = None, as_json: Json = False) -> int:
    """Show the GPUs, and test every kernel on the one that would be used, in every variant that it can run.

    Exit status 1 if a kernel is wrong.
    """
    result = run(_doctor(adapter, power_preference))
    emit(result, as_json, _doctor_text(result))
    return 0 if all(kernel["ok"] for kernel in result["kernels"]) else 1


async def _doctor(adapter: str | None, power_preference: str | None) -> dict[str, Any]:
    from webllm import host
    from webllm.device.native import list_adapters

    async def open_device() -> Device:
        return await host.current().open_device(adapter, power_preference)

    device = await open_device()
    others = (other for other in list_adapters(power_preference) if other.info != device.info)
    adapters = [_adapter(device), *map(_adapter, others)]
    device.close()
    kernels = await _kernels(open_device)
    versions = {name: version(name) for name in ("wgpu", "tokenizers", "numpy")}
    return {"adapters": adapters, "kernels": kernels, "versions": versions}


def _adapter(device: Device | FoundAdapter) -> dict[str, Any]:
    info = device.info
    return {
        "name": info.name,
        "backend": info.backend,
        "software": info.software,
        "driver": info.driver,
        "features": sorted(device.features),
        "limits": dict(sorted(device.limits.items())),
    }


async def _kernels(open_device: Callable[[], Awaitable[Device]]) -> list[dict[str, Any]]:
    """Every kernel and choice of variants: its error against float64, and its speed on the sizes of a real layer."""
    from webllm.selftest import selftest, speeds

    note("testing every kernel")
    results = await selftest(open_device)
    note("measuring")
    device = await open_device()
    try:
        fast = await speeds(device)
    except DeviceError as error:
        note(f"not measured: {error}")
        fast = {}
    finally:
        device.close()
    return [
        {**asdict(result), "ok": result.ok, "gb_per_s": fast.get((result.kernel, result.variants))}
        for result in results
    ]


def _doctor_text(result: Mapping[str, Any]) -> str:
    lines = []
    for number, one in enumerate(result["adapters"]):
        lines += ["not used:"] if number == 1 else []
        kind = ", a CPU that plays GPU: correct, and slow" if one["software"] else ""
        lines += [f"{one['name']} ({one['backend']}{kind})", f"  driver: {one['driver'] or 'unknown'}"]
        lines.append(f"  features: {', '.join(one['features']) or 'none'}")
        lines += [f"  {name}: {value}" for name, value in one["limits"].items()]
    lines += [f"{name} {number}" for name, number in result["versions"].items()]
    lines.append(f"{'':6}{'kernel':18}{'variants':42}{'nmse':>9}{'GB/s':>8}")
    return "\n".join([*lines, *map(_kernel_line, result["kernels"])])


def _kernel_line(one: Mapping[str, Any]) -> str:
    nmse = "-" if one["nmse"] is None else f"{one['nmse']:.1e}"
    speed = "" if one["gb_per_s"] is None else f"{one['gb_per_s']:.1f}"
    mark, variants = "ok" if one["ok"] else "WRONG", " ".join(one["variants"])
    line = f"{mark:6}{one['kernel']:18}{variants:42}{nmse:>9}{speed:>8}"
    return f"{line}\n      {one['error']}" if one["error"] else line

"""`webllm doctor`: what this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from webllm.cli.options import Adapter, Json
from webllm.cli.output import emit
from webllm.cli.running import run

if TYPE_CHECKING:
    from webllm.device import Device


def doctor(adapter: Adapter = None, as_json: Json = False) -> None:
    """Show the GPU that would be used, with its WebGPU features and limits."""
    result = run(_doctor(adapter))
    emit(result, as_json, _doctor_text(result))


async def _doctor(adapter: str | None) -> dict[str, Any]:
    from webllm import host

    device = await host.current().open_device(adapter)
    try:
        adapters = [_adapter(device)]
    finally:
        device.close()
    return {"adapters": adapters, "versions": {name: version(name) for name in ("wgpu", "tokenizers", "numpy")}}


def _adapter(device: Device) -> dict[str, Any]:
    info = device.info
    return {
        "name": info.name,
        "backend": info.backend,
        "software": info.software,
        "driver": info.driver,
        "features": sorted(device.features),
        "limits": dict(sorted(device.limits.items())),
    }


def _doctor_text(result: Mapping[str, Any]) -> str:
    lines = []
    for one in result["adapters"]:
        kind = ", a CPU that plays GPU: correct, and slow" if one["software"] else ""
        lines += [f"{one['name']} ({one['backend']}{kind})", f"  driver: {one['driver'] or 'unknown'}"]
        lines.append(f"  features: {', '.join(one['features']) or 'none'}")
        lines += [f"  {name}: {value}" for name, value in one["limits"].items()]
    return "\n".join([*lines, *(f"{name} {number}" for name, number in result["versions"].items())])

"""The GPUs that wgpu-py finds natively: which there are, and which one is taken."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from webllm.device import AdapterInfo
from webllm.errors import NoAdapter, RequestError

PREFERENCES = ("high-performance", "low-power")
_ORDER = {
    "high-performance": ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "Unknown", "CPU"),
    "low-power": ("IntegratedGPU", "DiscreteGPU", "VirtualGPU", "Unknown", "CPU"),
}


@dataclass(frozen=True)
class Adapter:
    """A GPU that could be opened; features and limits by WebGPU's own names."""

    info: AdapterInfo
    features: frozenset[str]
    limits: Mapping[str, int]


def found(api: ModuleType, power_preference: str | None = None) -> list[Adapter]:
    """Every adapter that webllm can use, the one it takes by itself first."""
    usable = sorted(_usable(api), key=lambda adapter: _rank(adapter, power_preference))
    return [Adapter(describe(a), webgpu_features(a.features), webgpu_limits(a.limits)) for a in usable]


# What the compilers of wgpu-native and Dawn know on every device, and a browser may not.
LANGUAGE = frozenset({"packed_4x8_integer_dot_product"})


def choose(api: ModuleType, wanted: str | None, power_preference: str | None = None) -> Any:
    """wgpu's adapter whose name or backend contains `wanted`; of several the one preferred, a real GPU before a CPU.

    Raises `NoAdapter` with those there are, `RequestError` for an unknown preference.
    """
    adapters = _usable(api)
    fitting = [a for a in adapters if not wanted or wanted.lower() in _title(a).lower()]
    if not fitting:
        there = "; ".join(_title(a) for a in adapters) or "none"
        raise NoAdapter(
            f"wanted a GPU adapter{f' like {wanted!r}' if wanted else ''}, found: {there}. "
            "Install a Vulkan, Metal or D3D12 driver (on Debian without a GPU: mesa-vulkan-drivers)"
        )
    return min(fitting, key=lambda adapter: _rank(adapter, power_preference))


def wanted_name(adapter: str | None) -> str | None:
    """Part of the name that an adapter must have: what the caller says, or WEBLLM_ADAPTER."""
    return adapter or os.environ.get("WEBLLM_ADAPTER") or None


def describe(adapter: Any) -> AdapterInfo:
    """What wgpu says about an adapter."""
    info = adapter.info
    return AdapterInfo(info["device"], info["backend_type"], info["adapter_type"] == "CPU", info["description"])


def webgpu_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """wgpu's limits under WebGPU's names."""
    return {re.sub(r"-(\w)", lambda m: m[1].upper(), name): value for name, value in limits.items()}


def webgpu_features(features: set[str]) -> frozenset[str]:
    """Features by WebGPU's names, those of its language included. wgpu-native says `subgroup` for `subgroups`."""
    return LANGUAGE | {"subgroups" if name == "subgroup" else name for name in features}


def _usable(api: ModuleType) -> list[Any]:
    return [a for a in api.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]


def _rank(adapter: Any, power_preference: str | None) -> int:
    preference = power_preference or PREFERENCES[0]
    if preference not in _ORDER:
        raise RequestError(f"power_preference must be one of {', '.join(PREFERENCES)}, got {power_preference!r}")
    order, kind = _ORDER[preference], adapter.info["adapter_type"]
    return order.index(kind if kind in order else "Unknown")


def _title(adapter: Any) -> str:
    return f"{adapter.info['device']} ({adapter.info['backend_type']}, {adapter.info['adapter_type']})"

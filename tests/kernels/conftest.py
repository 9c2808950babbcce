"""Kernel tests run on every compiler that users meet: naga (wgpu-py) and Tint (Dawn, as in Chromium)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from webllm.device.native import NativeDevice

os.environ.pop("WEBLLM_ADAPTER", None)  # the user's own choice of a GPU is not meant here

# The Vulkan driver under Tint: Chromium's, unless another is named (`make test-all` names one that has f16).
TINT_DRIVER = Path(os.environ.get("WEBLLM_TINT_DRIVER", "/usr/lib/chromium/vk_swiftshader_icd.json"))


@pytest.fixture(scope="session", params=["wgpu", "wgpudawn"])
def device(request: pytest.FixtureRequest) -> Iterator[NativeDevice]:
    """naga on lavapipe (or the real GPU), Tint on SwiftShader: what Chromium uses without a GPU."""
    made = open_native(request.param)
    yield made
    made.close()


def open_native(api: str, **options: bool) -> NativeDevice:
    # The Vulkan loader reads this when an instance is made; each library makes one.
    before = os.environ.pop("VK_DRIVER_FILES", None)
    if api == "wgpudawn" and TINT_DRIVER.is_file():
        os.environ["VK_DRIVER_FILES"] = str(TINT_DRIVER)
    try:
        return NativeDevice(api=dawn() if api == "wgpudawn" else import_module(api), **options)
    finally:
        os.environ.pop("VK_DRIVER_FILES", None)
        if before is not None:
            os.environ["VK_DRIVER_FILES"] = before


@cache
def dawn() -> ModuleType:
    """Dawn without what makes a tiled kernel take SwiftShader's compiler seconds: see `webllm.demo.browser_flags`."""
    extras = import_module("wgpudawn.backends.dawn.extras")
    extras.set_instance_extras(disable_toggles=["use_vulkan_zero_initialize_workgroup_memory_extension"])
    return import_module("wgpudawn")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)

"""`webllm bench` on a device: what the JSON holds, and that its numbers belong together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.kernels.conftest import open_native
from webllm import bench
from webllm.device.native import NativeDevice
from webllm.synthetic import checkpoint_from_config

CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8192,
    "max_position_embeddings": 512,
}
REQUEST = bench.Request(prompt_tokens=[40], decode_tokens=8, at_context=[16], repeats=2)
KEYS = {
    *("config", "kv", "exact", "context", "tuning", "results", "empty_pass_ms", "copy_gb_per_s"),
    *("peak_gpu_bytes", "memory", "adapter", "driver", "versions"),
}
RESULT = {
    *("phase", "tokens", "at_context", "runs_s", "tokens_per_s_median", "tokens_per_s_iqr", "encode_ms", "wait_ms"),
    *("gpu_ms", "gpu_ms_iqr", "gpu_ms_by_part", "gpu_ms_by_kernel", "dispatches", "submits", "awaits"),
}
DECODE = {"weight_gb_per_s", "fraction_of_copy"}
PARTS = {"embedding", "qkv", "attention", "o_proj", "gate+up", "down", "LM head", "choose"}


def run(**options: bool) -> dict[str, Any]:
    async def open_device() -> NativeDevice:
        return open_native("wgpu", **options)

    return asyncio.run(bench.run(open_device, checkpoint_from_config(CONFIG, "q4"), REQUEST))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return run()


def test_the_json_has_the_keys_of_the_contract(measured: dict[str, Any]) -> None:
    assert set(measured) == KEYS
    prefill, decode = measured["results"]
    assert set(prefill) == RESULT and set(decode) == RESULT | DECODE
    versions = measured["versions"]
    assert all(versions[name] for name in ("webllm", "python", "platform", "wgpu"))
    assert versions["pyodide"] is versions["browser"] is None


def test_gpu_time_is_told_as_a_whole_by_part_and_by_kernel(measured: dict[str, Any]) -> None:
    for phase in measured["results"]:
        parts, kernels = phase["gpu_ms_by_part"], phase["gpu_ms_by_kernel"]
        assert 0 < phase["gpu_ms"] < max(phase["runs_s"]) * 1e3 * 2
        assert set(parts) == PARTS and {"embed", "attention_split", "next_token"} <= set(kernels)
        assert sum(parts.values()) == pytest.approx(sum(kernels.values()))
        assert min(parts.values()) >= 0
    assert 0 <= measured["empty_pass_ms"] < measured["results"][1]["gpu_ms"]


def test_without_timestamps_gpu_time_is_null_and_the_rest_is_there() -> None:
    """On what every WebGPU device has."""
    result = run(default_limits=True)
    names = ("gpu_ms", "gpu_ms_iqr", "gpu_ms_by_part", "gpu_ms_by_kernel")
    assert {phase[name] for phase in result["results"] for name in names} == {None}
    assert result["empty_pass_ms"] is None
    assert all(phase["tokens_per_s_median"] > 0 for phase in result["results"])


def test_gpu_memory_is_what_was_planned(measured: dict[str, Any]) -> None:
    """Within a tenth: readback buffers come on top. The context is below the room that the cache has at first."""
    planned = measured["memory"]["total"]
    assert planned > 4e6 and planned <= measured["peak_gpu_bytes"] <= 1.1 * planned

"""The device's verbs natively, on small programs of their own: errors by name, and buffers that grow."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.kernels.conftest import open_native
from webllm import kernels
from webllm.device import native_calls
from webllm.device.native import NativeDevice
from webllm.errors import Closed, DeviceError, DeviceLost, OutOfMemory, ShaderError
from webllm.plan import Buffer, Ceil, Dispatch, Plan, Program

COPY = Dispatch("copy", (("x", 0), ("y", 1)), (Ceil("length", 1), 1, 1), (("SIZE", 2),))


def program(size: int = 64, most: int = 0, dispatch: Dispatch = COPY) -> Program:
    """Copies two vectors of four words from x to y, by as many workgroups as the length says."""
    buffers = (Buffer("x", size, "state", most), Buffer("y", size, "state"))
    return Program(buffers, {"copy": Plan((dispatch,), 1)}, context=64)


@pytest.fixture
def loaded(device: NativeDevice) -> Iterator[Any]:
    made = asyncio.run(device.load(program(), []))
    yield made
    device.unload(made)
    assert device.gpu_bytes == 0


def run(device: NativeDevice, loaded: Any, length: int = 1) -> bytes:
    async def step() -> bytes:
        return await device.submit(loaded, ["copy"], 1, length)

    return asyncio.run(step())


def test_too_large_a_grid_names_the_kernel_and_the_next_step_works(device: NativeDevice, loaded: Any) -> None:
    device.write(loaded, "x", bytes(range(32)))
    with pytest.raises(DeviceError, match=r"kernel 'copy' wants a grid of \[70000, 1, 1\] .* allows 65535") as caught:
        device.submit(loaded, ["copy"], 1, 70_000)
    assert caught.value.kernel == "copy"
    assert caught.value.sizes == {"x": 70_000, "y": 1, "z": 1, "limit": 65_535}
    assert run(device, loaded)[:32] == bytes(range(32))


@pytest.mark.parametrize("offset", [-4, 56, 64])
def test_bytes_beyond_a_buffer_are_refused_with_its_size(device: NativeDevice, loaded: Any, offset: int) -> None:
    with pytest.raises(DeviceError, match="x has 64 bytes, wanted were 12 from") as caught:
        device.write(loaded, "x", bytes(12), offset)
    assert caught.value.sizes == {"x": 64, "wanted": 12, "offset": offset}
    with pytest.raises(DeviceError, match="x has 64 bytes"):
        asyncio.run(device.read(loaded, "x", 12, offset))


def test_a_kernel_with_too_large_a_workgroup_is_refused_by_name(device: NativeDevice) -> None:
    """naga would take it, and the driver would do what it likes."""
    bindings = (("weight_data", 0), ("weight_scales", 0), ("x", 0), ("y", 1))
    variants = (("weight", "q4_0"), ("bias", "none"), ("row", "stored"), ("input", "plain"))
    large = Dispatch("matvec", bindings, (1, 1, 1), (("WG", 1 << 16),), variants)
    with pytest.raises(ShaderError, match=r"kernel 'matvec .*' has workgroups of 65536 invocations") as caught:
        asyncio.run(device.load(program(dispatch=large), []))
    assert caught.value.sizes["invocations"] == 1 << 16 and "matvec" in (caught.value.kernel or "")
    assert device.gpu_bytes == 0


def test_a_kernel_that_does_not_compile_names_its_line(device: NativeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    good = kernels.module("copy", ())
    lines = len(good.code.splitlines())
    bad = replace(good, code=f"{good.code.rstrip()}\nfn broken() {{ nonsense(); }}\n")
    monkeypatch.setattr(kernels, "module", lambda *_: bad)
    with pytest.raises(ShaderError, match=rf"(?s)kernel 'copy' .*line {lines + 1}: fn broken") as caught:
        asyncio.run(device.load(program(), []))
    assert (caught.value.kernel, caught.value.line) == ("copy", lines + 1)
    assert device.gpu_bytes == 0


@pytest.mark.parametrize("sizes", [(1 << 50, 0), (64, 1 << 50)], ids=["at once", "once it has grown"])
def test_too_large_a_buffer_is_refused_before_anything_is_allocated(device: NativeDevice, sizes: Any) -> None:
    with pytest.raises(OutOfMemory, match="x needs 1,125,899,906,842,624 bytes") as caught:
        asyncio.run(device.load(program(*sizes), []))
    assert caught.value.sizes["x"] == 1 << 50
    assert device.gpu_bytes == 0


def test_a_buffer_grows_with_what_is_in_it_and_its_dispatches_go_on(device: NativeDevice) -> None:
    """Twice, while steps are in flight; smaller is ignored."""

    async def work() -> list[bytes]:
        loaded = await device.load(program(most=4096), [])
        device.write(loaded, "x", bytes(range(32)))
        before = device.submit(loaded, ["copy"], 1, 1)
        await device.grow(loaded, {"x": 1024})
        held.append(device.gpu_bytes)
        between = device.submit(loaded, ["copy"], 1, 1)
        await device.grow(loaded, {"x": 512})
        await device.grow(loaded, {"x": 4096})
        device.write(loaded, "x", struct.pack("<I", 77), 4092)
        steps = [await step for step in (before, between, device.submit(loaded, ["copy"], 1, 1))]
        end = await device.read(loaded, "x", 8, 4088)
        device.unload(loaded)
        return [*(step[:32] for step in steps), end]

    held: list[int] = []
    assert asyncio.run(work()) == [bytes(range(32))] * 3 + [struct.pack("<II", 0, 77)]
    assert held == [1024 + 64 + 64] and device.gpu_bytes == 0  # x, y, one readback


def test_growth_beyond_what_there_is_leaves_the_buffer_as_it_was(device: NativeDevice, loaded: Any) -> None:
    device.write(loaded, "x", bytes(range(32)))
    with pytest.raises(DeviceError) as caught:
        asyncio.run(device.grow(loaded, {"x": 1 << 50}))
    assert caught.value.sizes == {"x": 1 << 50}
    assert run(device, loaded)[:32] == bytes(range(32))


MANY = 60_000  # workgroups: long enough for clocks that are rounded to 100 us


def seconds(device: NativeDevice, loaded: Any, *plans: str, length: int = MANY, each: bool = False) -> Any:
    """What `time` says, and what the clock on the wall says."""
    started = time.perf_counter()
    told = asyncio.run(device.time(loaded, plans, 1, length, each=each))
    return told, time.perf_counter() - started


def test_a_step_is_timed_by_the_gpu_and_takes_no_longer_than_the_wait_for_it(device: NativeDevice, loaded: Any) -> None:
    device.write(loaded, "x", bytes(range(32)))
    told, waited = seconds(device, loaded, "copy", "copy", "copy")
    if "timestamp-query" not in device.features:
        assert told is None
        return
    [whole] = told
    assert 0 < whole <= waited + 2e-4
    assert asyncio.run(device.read(loaded, "y", 32)) == bytes(range(32))  # it was run


def test_each_dispatch_is_timed_in_a_pass_of_its_own(device: NativeDevice, loaded: Any) -> None:
    told, waited = seconds(device, loaded, "copy", "copy", "copy", each=True)
    if "timestamp-query" not in device.features:
        assert told is None
        return
    assert len(told) == 3 and min(told) >= 0
    assert 0 < sum(told) <= waited + 6e-4


def test_a_pass_whose_grid_is_zero_is_empty_and_timed(device: NativeDevice, loaded: Any) -> None:
    told, _ = seconds(device, loaded, "copy", length=0, each=True)
    assert told is None if "timestamp-query" not in device.features else len(told) == 1


@pytest.mark.parametrize("api", ["wgpu", "wgpudawn"])
def test_a_device_without_timestamps_says_none(api: str) -> None:
    """On what every WebGPU device has."""
    device = open_native(api, default_limits=True)
    loaded = asyncio.run(device.load(program(), []))
    assert "timestamp-query" not in device.features
    assert asyncio.run(device.time(loaded, ["copy"], 1, 1)) is None
    device.close()


def test_steps_that_nobody_waits_for_are_freed_with_the_program(device: NativeDevice) -> None:
    async def work() -> None:
        loaded = await device.load(program(), [])
        left = [device.submit(loaded, ["copy"], 1, 1) for _ in range(3)]
        assert device.gpu_bytes == 5 * 64
        device.unload(loaded)
        assert device.gpu_bytes == 0
        for step in left:
            with pytest.raises(Closed):
                await step

    asyncio.run(work())


def test_a_step_that_is_not_taken_leaves_its_readback_to_the_next(
    device: NativeDevice, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(encoder: Any) -> int:
        raise RuntimeError("no buffer today")

    with monkeypatch.context() as patch:
        patch.setattr(device._calls, "submit", refused)
        for _ in range(3):
            with pytest.raises(DeviceError, match="no buffer today"):
                run(device, loaded)
    run(device, loaded)
    assert device.gpu_bytes == 3 * 64


@pytest.mark.parametrize("error", [RuntimeError("the buffer could not be mapped"), KeyboardInterrupt()])
def test_a_readback_that_failed_is_freed_and_the_next_step_has_its_own(
    device: NativeDevice, loaded: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(staging: Any, number: int) -> bytes:
        raise error

    device.write(loaded, "x", bytes(range(32)))
    with monkeypatch.context() as patch:
        patch.setattr(device._calls, "read", failing)
        with pytest.raises((DeviceError, KeyboardInterrupt)):
            run(device, loaded)
    assert device.gpu_bytes == 2 * 64
    assert run(device, loaded)[:32] == bytes(range(32))


def test_a_gpu_that_does_not_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_native("wgpu")  # wgpudawn waits in its own way
    loaded = asyncio.run(device.load(program(), []))
    with monkeypatch.context() as patch:
        patch.setattr(native_calls, "_POLLS", 0)
        with pytest.raises(DeviceLost, match="does not answer"):
            run(device, loaded)
    with pytest.raises(DeviceLost, match="does not answer"):
        run(device, loaded)
    device.close()

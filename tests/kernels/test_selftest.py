"""The self-test's cases, one test each: every kernel in every variant, on both compilers."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest

from tests.kernels.conftest import open_native
from webllm import kernels
from webllm.errors import KernelWarning
from webllm.limits import Limits
from webllm.ops import INTEGERS
from webllm.selftest import Result, cases, open_tested, optional, selftest, try_case, worst
from webllm.selftest.cases import Case

CASES = list(cases.all_cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_every_variant_of_a_case_is_right(device: Any, case: Case) -> None:
    results = [r for feature in (None, *optional(device)) for r in asyncio.run(try_case(device, case, feature))]
    assert results
    assert [result for result in results if not result.ok] == []


def limits_of(device: Any) -> Limits:
    """What `open_tested` finds on a device that is open already."""

    async def open_device() -> Any:
        return device

    return asyncio.run(open_tested(open_device))[1]


@pytest.mark.parametrize("broken", ["fn reduce_add(", "subgroupAdd(mine)"], ids=["does not compile", "wrong numbers"])
def test_a_feature_that_fails_its_test_is_not_used_and_the_user_is_told(
    device: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    read = kernels.read
    wrong = {"fn reduce_add(": "fn reduce_add(((", "subgroupAdd(mine)": "2.0 * subgroupAdd(mine)"}[broken]
    monkeypatch.setattr(kernels, "read", lambda name: read(name).replace(broken, wrong))
    monkeypatch.setattr(kernels, "module", kernels.module.__wrapped__)
    with pytest.warns(KernelWarning, match=r"rms_norm fails its self-test with subgroups[^$]*run without it"):
        limits = limits_of(device)
    assert not limits.subgroups
    monkeypatch.undo()
    assert limits_of(device).subgroups


def test_a_case_that_loses_the_gpu_fails_and_the_others_run_on_a_new_device() -> None:
    opened: list[Any] = []

    async def open_device() -> Any:
        opened.append(open_native("wgpu"))
        return opened[-1]

    def lose(lab: Any, rng: Any) -> Any:
        opened[-1]._device.destroy()
        return cases.RMS_NORM.record(lab, rng)

    losing = Case("loses the device", lose, limits={"subgroups": True})
    results = asyncio.run(selftest(open_device, [losing, cases.MATMUL]))
    assert {(result.kernel, result.lost) for result in results} >= {("rms_norm", True), ("matmul", False)}
    assert all(result.ok for result in results if result.kernel == "matmul")
    assert len(opened) > 1


def test_a_feature_whose_test_loses_the_gpu_is_left_out_on_a_new_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every load would fail otherwise."""
    opened: list[Any] = []

    async def open_device() -> Any:
        opened.append(open_native("wgpu"))
        return opened[-1]

    def lose(lab: Any, rng: Any) -> Any:
        opened[0]._device.destroy()
        return cases.RMS_NORM.record(lab, rng)

    monkeypatch.setattr("webllm.selftest.run.RMS_NORM", Case("norm", lose, rows=3))
    with pytest.warns(KernelWarning, match="fails its self-test with subgroups"):
        device, limits = asyncio.run(open_tested(open_device))
    assert (len(opened), device, limits.subgroups) == (2, opened[1], False)
    assert all(result.ok for result in asyncio.run(try_case(device, cases.MATMUL)))
    device.close()


def test_a_case_that_does_not_run_is_laid_to_the_kernels_that_run_in_no_other() -> None:
    good, bad = Result("matvec", (), 1e-15), Result("matvec", (), None, "the compiler died", True)
    alone = Result("import_q3_k", (), None, "the compiler died", True)
    assert worst([[good], [alone, bad]]) == [alone, good]
    assert worst([[alone, bad], [good]]) == [alone, good]
    assert worst([[good], [bad]]) == [bad]  # nothing else can be to blame
    assert worst([[good], [Result("matvec", (), 1e-3)]])[0].nmse == 1e-3


def test_halves_are_used_where_the_gpu_has_them_but_not_if_exact_nor_on_a_cpu(device: Any) -> None:
    assert Limits.of(device.limits, ["shader-f16"]).f16
    assert not Limits.of(device.limits, ["shader-f16"], exact=True).f16
    assert not Limits.of(device.limits, ["shader-f16"], software=True).f16


@pytest.mark.parametrize("device", ["wgpu"], indirect=True)
def test_together_the_cases_run_every_kernel_with_every_choice_of_every_slot(device: Any) -> None:
    """On a device that has all optional features, as lavapipe under naga does."""
    ran: dict[str, set[str]] = {}
    for feature, case in product((None, *optional(device)), CASES):
        for result in asyncio.run(try_case(device, case, feature)):
            ran.setdefault(result.kernel, set()).update(result.variants)
    assert set(ran) == set(kernels.names()) - {"matmul_matrix"}  # no CPU plays matrix units
    for name in ran:
        slots = [slot for slot in kernels.header(kernels.read(name)).uses if kernels.choices(slot)]
        wanted = {f"{slot}.{choice}" for slot in slots for choice in kernels.choices(slot)}
        dense = {f"weight.{choice}" for choice in kernels.choices("weight") if choice not in INTEGERS}
        assert wanted - ran[name] == (dense if name in ("matmul_int8", "matmul_few") else set()), name

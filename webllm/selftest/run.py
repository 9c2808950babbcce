"""Runs the cases on a device, and decides which optional features its kernels may use."""

from __future__ import annotations

import math
import random
import warnings
from array import array
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webllm import kernels
from webllm.device import Device
from webllm.errors import DeviceError, DeviceLost, KernelWarning
from webllm.lab import Lab
from webllm.limits import Limits
from webllm.plan import Dispatch
from webllm.selftest.cases import FEED_FORWARD, MATMUL, RMS_NORM, Case, Check, all_cases

Key = tuple[str, tuple[str, ...]]  # kernel, variants

# Normalised mean squared error of a kernel that computes in f32, and of those that round their inputs by a feature: to
# halves, and to 8 bits, which is 2e-5 for a product and more behind a gate that is nearly closed.
OPTIONAL = ("subgroups", "f16", "matrix", "int8")  # names of `Limits`
WORST = 1e-7
WORST_WITH = {"shader-f16": 1e-6, "packed_4x8_integer_dot_product": 1e-3}
# Whose compilers make many instructions of a product of packed integers.
NO_INTEGER_DOTS = ("Metal",)


@dataclass(frozen=True)
class Result:
    """What a kernel came to in one choice of variants.

    nmse: None where it did not run, for the reason in `error`. lost: whether the GPU went away meanwhile.
    """

    kernel: str
    variants: tuple[str, ...]
    nmse: float | None
    error: str | None = None
    lost: bool = False

    @property
    def key(self) -> Key:
        """What the result is of."""
        return self.kernel, self.variants

    @property
    def ok(self) -> bool:
        """Whether the kernel may be used."""
        return self.nmse is not None and self.nmse <= most_error(self.key)


def most_error(key: Key) -> float:
    """The nmse that a kernel may have."""
    needs = kernels.module(key[0], choices_of(key)).needs
    return max([WORST, *(WORST_WITH.get(need, 0.0) for need in needs)])


async def open_tested(open_device: Callable[[], Awaitable[Device]], *, exact: bool = False) -> tuple[Device, Limits]:
    """A device, and what kernels may use of it: its limits, and those optional features that pass their self-test.

    exact: no approximate kernels. A feature that fails is left out, with a `KernelWarning` that says so; if the GPU
    went away over it, the device is a new one.
    """
    device = await open_device()
    try:
        software, dots = device.info.software, device.info.backend not in NO_INTEGER_DOTS
        limits = Limits.of(device.limits, device.features, software=software, exact=exact, integer_dots=dots)
        for feature in OPTIONAL:
            if not getattr(limits, feature):
                continue
            results = [result for case in _tried(feature, limits) for result in await try_case(device, case, feature)]
            if failed := [result for result in results if not result.ok]:
                limits = _with(limits, {feature: False})
                warnings.warn(_told(device, feature, failed[0]), KernelWarning, stacklevel=2)
            if any(result.lost for result in results):
                device.close()
                device = await open_device()
    except BaseException:
        device.close()
        raise
    return device, limits


def _tried(feature: str, limits: Limits) -> list[Case]:
    """What has to be right for a feature to be used: small cases of the kernels that depend on it most."""
    if feature == "int8":  # of as many rows as a device with these limits multiplies in integers
        most = 1 if limits.small else 70 if limits.integer_tiles else 8
        return [case for rows, case in FEED_FORWARD.items() if rows <= most]
    return [RMS_NORM if feature == "subgroups" else MATMUL]


async def selftest(
    open_device: Callable[[], Awaitable[Device]],
    cases: Iterable[Case] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Run `cases` (default: all) without and with each optional feature that the device has, chosen by it or not.

    One result for each kernel and choice of variants: see `worst`. A case that loses the device fails, and the next one
    gets a new device from `open_device`. note: told each name.
    """
    cases, device = list(all_cases() if cases is None else cases), await open_device()
    runs: list[list[Result]] = []
    try:
        for feature in (None, *optional(device)):
            for case in cases:
                note(f"{case.name}, {feature or 'plain'}")
                runs.append(await try_case(device, case, feature))
                if any(result.lost for result in runs[-1]):
                    device.close()
                    device = await open_device()
    finally:
        device.close()
    return worst(runs)


def worst(runs: Iterable[list[Result]]) -> list[Result]:
    """One result for each kernel and choice of variants, out of all cases in which it ran.

    A case that did not run is laid to those of its kernels that ran in no other, or else to all of them.
    """
    found: dict[Key, Result] = {}
    failed = []
    for run in runs:
        if any(result.nmse is None for result in run):
            failed.append(run)
            continue
        for result in run:
            known = found.get(result.key, result)
            found[result.key] = max(known, result, key=lambda r: r.nmse or 0.0)
    blamed = [[result for result in run if result.key not in found] or run for run in failed]
    found |= {result.key: result for run in blamed for result in run}
    return [found[key] for key in sorted(found)]


def optional(device: Device) -> list[str]:
    """The optional features that the device has, by the names of `Limits`."""
    limits = Limits.of(device.limits, device.features)
    return [feature for feature in OPTIONAL if getattr(limits, feature)]


async def try_case(device: Device, case: Case, feature: str | None = None) -> list[Result]:
    """Run a case with no optional feature but this one.

    One result for each kernel and choice of variants that is tested so; none if the case has nothing of the feature.
    """
    lab, checks = record(device, case, feature)
    names = tested(lab, feature)
    if not names:
        return []
    nmse: float | None = None
    error: DeviceError | None = None
    try:
        nmse = await error_of(device, lab, checks)
    except DeviceError as failure:
        error = failure
    told, lost = str(error) if error else None, isinstance(error, DeviceLost)
    return [Result(kernel, variants, nmse, told, lost) for kernel, variants in names]


def record(device: Device, case: Case, feature: str | None = None) -> tuple[Lab, list[Check]]:
    """A case, ready to run on the device, with no optional feature but this one."""
    limits = Limits.of(device.limits, software=device.info.software)
    limits = _with(limits, {"tiles": 1, "small": False, **case.limits})
    lab = Lab(limits if feature is None else _with(limits, {feature: True}), case.rows, case.short)
    return lab, case.record(lab, random.Random(7))


async def error_of(device: Device, lab: Lab, checks: Sequence[Check]) -> float:
    """Run what was recorded; the largest nmse of its checks. Raises a `DeviceError`."""
    data = await lab.run(device, *(buffer for buffer, _, _ in checks))
    return max(_nmse(_cast(got, kind), wanted()) for got, (_, kind, wanted) in zip(data, checks, strict=True))


def _with(limits: Limits, fields: Mapping[str, Any]) -> Limits:
    return replace(limits, **fields)


def tested(lab: Lab, feature: str | None) -> list[Key]:
    """What the case dispatches; with an optional feature only what uses it, for the rest is not to blame then."""
    program = lab.program()
    dispatches = [*(upload.dispatch for upload in program.uploads), *program.plans["step"].dispatches]
    tested = (d for d in dispatches if (feature is not None) <= bool(kernels.module(d.kernel, d.variants).needs))
    return list(dict.fromkeys(map(key_of, tested)))


def key_of(dispatch: Dispatch) -> Key:
    """What a result is of: ("rms_norm", ("reduce.plain",))."""
    return dispatch.kernel, tuple(f"{slot}.{choice}" for slot, choice in dispatch.variants)


def choices_of(key: Key) -> kernels.Variants:
    """The variants of a key, as a dispatch has them."""
    return tuple((slot, choice) for slot, _, choice in (variant.partition(".") for variant in key[1]))


def _cast(data: bytes, kind: str) -> Sequence[float]:
    numbers = array(kind)
    numbers.frombytes(data)
    return numbers


def _nmse(got: Sequence[float], wanted: Iterable[float]) -> float:
    """Mean squared error over mean square; what lies beyond the numbers wanted is padding. NaN is infinitely wrong."""
    error = square = 0.0
    for g, w in zip(got, wanted, strict=False):
        error += (g - w) ** 2
        square += w * w
    return error / square if math.isfinite(error) else math.inf


def _told(device: Device, feature: str, failed: Result) -> str:
    why = failed.error or f"error {failed.nmse:.1e}"
    return (
        f"{device.info.name}: {failed.kernel} fails its self-test with {feature} ({why}), so models run without it; "
        "a newer driver may help, and `webllm doctor` tests every kernel"
    )

"""Kernels to be edited and tried: each with its files and a self-test case that runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from webllm import kernels
from webllm.device import Device
from webllm.errors import RequestError, ShaderError
from webllm.lab import Lab
from webllm.link import link
from webllm.selftest.cases import Case, all_cases
from webllm.selftest.run import Key, choices_of, error_of, most_error, optional, record, tested
from webllm.selftest.speed import speed_of


@dataclass(frozen=True)
class Entry:
    """A kernel in one choice of variants, and what tries it. files: its WGSL in order, the kernel's own last."""

    kernel: str
    variants: tuple[str, ...]
    files: tuple[str, ...]
    case: str
    feature: str | None


@dataclass(frozen=True)
class Outcome:
    """What an edited kernel came to. gb_per_s: None where no layer has it. most: the nmse that it may have.

    error: why it did not run; then nmse is None. file, line: where, of what does not compile.
    """

    nmse: float | None
    most: float
    gb_per_s: float | None = None
    error: str | None = None
    file: str | None = None
    line: int | None = None


def entries(device: Device) -> list[Entry]:
    """Every kernel in every choice of variants that this device runs, each with the first case that runs it."""
    found: dict[Key, Entry] = {}
    for feature in (None, *optional(device)):
        for case in all_cases():
            lab, _ = record(device, case, feature)
            for key in tested(lab, feature):
                files = tuple(kernels.module(key[0], choices_of(key)).starts)
                found.setdefault(key, Entry(*key, files, case.name, feature))
    return [found[key] for key in sorted(found)]


async def attempt(device: Device, entry: Entry, edits: Mapping[str, str]) -> Outcome:
    """Run a kernel's case with edited files, against its reference, then measure it as `webllm doctor` does.

    edits: text in place of files, named as in `entry.files`. Raises `RequestError` where headers and bindings do not
    fit together any more, and a `DeviceError` other than `ShaderError`; a kernel that never ends loses the device.

        await attempt(device, entry, {"rms_norm": kernels.read("rms_norm").replace("+ EPS", "")})
    """
    key, texts = (entry.kernel, entry.variants), tuple(sorted(edits.items()))
    lab, checks = record(device, _case(entry.case), entry.feature)
    lab.edits = texts
    _check(lab, entry, edits)
    most = most_error(key)
    try:
        nmse = await error_of(device, lab, checks)
        return Outcome(nmse, most, await speed_of(device, key, texts))
    except ShaderError as error:
        return _told(error, lab, most)


def _case(name: str) -> Case:
    for case in all_cases():
        if case.name == name:
            return case
    raise RequestError(f"no self-test case is called {name!r}")


def _check(lab: Lab, entry: Entry, edits: Mapping[str, str]) -> None:
    """Raise `RequestError` for what linking has against the texts."""
    if unknown := edits.keys() - set(entry.files):
        raise RequestError(f"{entry.kernel} has the files {_listed(entry.files)}, not {_listed(sorted(unknown))}")
    try:
        link(lab.program())
    except (KeyError, ValueError) as error:
        raise RequestError(f"the headers do not fit together any more: {error.args[0]}") from None


def _told(error: ShaderError, lab: Lab, most: float) -> Outcome:
    """A compiler's complaint, with the line of its file in place of that of the linked text."""
    program = lab.program()
    dispatches = [*(upload.dispatch for upload in program.uploads), *program.plans["step"].dispatches]
    of = next((d for d in dispatches if d.label == error.kernel), None)
    if error.line is None or of is None:
        return Outcome(None, most, error=str(error))
    file, line = kernels.module(of.kernel, of.variants, lab.edits).place(error.line)
    text = re.sub(rf"\bline {error.line}\b", f"{file}.wgsl, line {line}", str(error), count=1)
    return Outcome(None, most, error=text, file=file, line=line)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)

"""Kernels tried with edited files: what is wrong is told with the file and the line that it is in."""

from __future__ import annotations

import asyncio

import pytest

from webllm import kernels
from webllm.device import Device
from webllm.errors import RequestError
from webllm.playground import Entry, Outcome, attempt, entries

NORM = Entry("rms_norm", ("reduce.plain", "half.f32"), ("lib/reduce.plain", "lib/half.f32", "rms_norm"), "norm", None)


def outcome(device: Device, edits: dict[str, str]) -> Outcome:
    return asyncio.run(attempt(device, NORM, edits))


def test_every_kernel_is_listed_with_its_files_and_a_case(device: Device) -> None:
    found = entries(device)
    assert NORM in found
    missing = set(kernels.names()) - {entry.kernel for entry in found}
    assert [name for name in missing if kernels.header(kernels.read(name)).needs <= device.features] == []
    assert all(entry.files[-1] == entry.kernel for entry in found)


def test_a_kernel_as_it_is_is_right_and_measured(device: Device) -> None:
    result = outcome(device, {})
    assert result.nmse is not None and result.nmse <= result.most
    assert result.gb_per_s is not None and result.gb_per_s > 0


def test_an_edited_kernel_is_what_runs(device: Device) -> None:
    result = outcome(device, {"rms_norm": kernels.read("rms_norm").replace("+ EPS)", "+ EPS + 1.0)")})
    assert result.nmse is not None and result.nmse > 0.01


@pytest.mark.parametrize("file", NORM.files)
def test_what_does_not_compile_is_told_with_the_line_of_its_own_file(device: Device, file: str) -> None:
    lines = kernels.read(file).splitlines()
    result = outcome(device, {file: "\n".join([*lines, "fn broken() { nonsense(); }"])})
    assert (result.nmse, result.file, result.line) == (None, file, len(lines) + 1)
    assert f"{file}.wgsl, line {len(lines) + 1}" in str(result.error)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("rms_norm", "// binding 1", "// bounding 1", "wants bindings"),
        ("rms_norm", "reduce", "nowhere", "no kernel 'lib/nowhere'"),
        ("copy", "", "", "not copy"),
    ],
    ids=["a binding", "a library file", "another kernel's file"],
)
def test_headers_that_do_not_fit_are_refused(device: Device, file: str, old: str, new: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        outcome(device, {file: kernels.read(file).replace(old, new)})

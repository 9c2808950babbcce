"""Kernel files: what their headers say is what their code declares, in every combination of variants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from webllm import kernels, ops

ROOT = Path(__file__).parents[2]
LIBRARY = [f"lib/{path.stem}" for path in sorted((kernels.folder() / "lib").glob("*.wgsl"))]
FILES = [*kernels.names(), *LIBRARY]
DECLARATION = re.compile(r"^@group\((\d+)\) @binding\((\d+)\) var<([^>]*)> (\w+): (.+);$", re.M)
OVERRIDE = re.compile(r"^override (\w+)", re.M)


def slots(name: str) -> set[str]:
    """The slots that a file leaves open, its library files' included."""
    found = set()
    for slot in kernels.header(kernels.read(name)).uses:
        several = kernels.choices(slot)
        found |= {slot} if several else set()
        for file in [f"{slot}.{choice}" for choice in several] or [slot]:
            found |= slots(f"lib/{file}")
    return found


def combinations() -> Iterator[tuple[str, kernels.Variants]]:
    """Every kernel with every choice for its slots."""
    for name in kernels.names():
        names = sorted(slots(name))
        for chosen in product(*(kernels.choices(slot) for slot in names)):
            yield name, tuple(zip(names, chosen, strict=True))


COMBINATIONS = list(combinations())
IDS = [" ".join([name, *(choice for _, choice in variants)]) for name, variants in COMBINATIONS]


def without_comments(code: str) -> str:
    return re.sub(r"//.*", "", code)


@pytest.mark.parametrize("name", FILES)
def test_a_header_lists_the_bindings_that_the_code_declares(name: str) -> None:
    source = kernels.read(name)
    modes = {"storage, read": "read", "storage, read_write": "read_write"}
    declared = [(int(n), who, modes[space], kind) for _, n, space, who, kind in DECLARATION.findall(source)]
    assert [(b.number, b.name, b.access, b.type) for b in kernels.header(source).bindings] == declared


@pytest.mark.parametrize("name", FILES)
def test_every_binding_is_declared_in_the_one_way_that_is_checked(name: str) -> None:
    """One line each, in group 0: otherwise the test above would not see it."""
    source = without_comments(kernels.read(name))
    groups = [group for group, *_ in DECLARATION.findall(source)]
    assert len(groups) == source.count("@binding") and set(groups) <= {"0"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_begins_with_its_own_name(name: str) -> None:
    said = kernels.header(kernels.read(name)).formula.partition(":")[0]
    assert said == name.removeprefix("lib/").replace(".", " ")


@pytest.mark.parametrize("name", kernels.names())
def test_a_kernel_says_what_it_computes_on_which_grid_and_why(name: str) -> None:
    header = kernels.header(kernels.read(name))
    assert header.formula.partition(": ")[2] and header.grid and header.why


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_uses_is_there(name: str) -> None:
    """Slots and library files, or one file of a slot."""
    files = {file.removeprefix("lib/") for file in LIBRARY}
    there = files | {file.partition(".")[0] for file in files}
    assert set(kernels.header(kernels.read(name)).uses) <= there


def test_every_library_file_is_used() -> None:
    used = {slot for name in FILES for slot in kernels.header(kernels.read(name)).uses}
    assert {file.removeprefix("lib/").partition(".")[0] for file in LIBRARY} <= used


@pytest.mark.parametrize(("name", "variants"), COMBINATIONS, ids=IDS)
def test_a_kernel_binds_no_more_buffers_than_every_device_has(name: str, variants: kernels.Variants) -> None:
    """Eight storage buffers is WebGPU's default limit. `module` itself refuses two with one number or one name."""
    assert 1 <= len(kernels.module(name, variants).bindings) <= 8


@pytest.mark.parametrize(("name", "variants"), COMBINATIONS, ids=IDS)
def test_every_override_of_a_module_is_used_in_it(name: str, variants: kernels.Variants) -> None:
    code = without_comments(kernels.module(name, variants).code)
    unused = [o for o in OVERRIDE.findall(code) if len(re.findall(rf"\b{o}\b", code)) < 2]
    assert not unused


@pytest.mark.parametrize(("name", "variants"), COMBINATIONS, ids=IDS)
def test_every_binding_of_a_module_is_used_in_it(name: str, variants: kernels.Variants) -> None:
    """A declaration, and at least one use: a buffer that nobody reads is a binding wasted."""
    module = kernels.module(name, variants)
    code = without_comments(module.code)
    unused = [b for b in module.bindings if len(re.findall(rf"(?<!\.)\b{b}\b", code)) < 2]  # not `.x` of a vector
    assert not unused


@pytest.mark.parametrize("slot", sorted({slot for name in kernels.names() for slot in slots(name)}))
def test_the_files_of_a_slot_are_interchangeable(slot: str) -> None:
    """The functions that a kernel calls are in each file that it may be given, with the same parameters and results."""
    called: set[str] = set()
    for name in (name for name in FILES if slot in kernels.header(kernels.read(name)).uses):
        files = ops.INTEGERS if slot == "weight" and name in ("matmul_int8", "matmul_few") else kernels.choices(slot)
        functions = [functions_of(f"lib/{slot}.{choice}") for choice in files]
        all_names = {name_of(f) for choice in kernels.choices(slot) for f in functions_of(f"lib/{slot}.{choice}")}
        here = {f for f in all_names if re.search(rf"\b{f}\(", kernels.read(name))}
        assert here <= {name_of(f) for f in set.intersection(*functions)}, name
        called |= here
    assert called


def functions_of(file: str) -> set[str]:
    return set(re.findall(r"^fn \w+\(.*\).*\{", without_comments(kernels.read(file)), re.M))


def name_of(function: str) -> str:
    return re.findall(r"\w+", function)[1]


def test_an_unknown_kernel_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no kernel 'softmax'.*attention_split"):
        kernels.read("softmax")


def test_two_files_that_claim_one_binding_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a": "// a: x\n// binding 0 x read array<f32>\n// uses b\n",
        "lib/b": "// b: y\n// binding 0 y read array<f32>\n",
    }
    monkeypatch.setattr(kernels, "read", files.__getitem__)
    with pytest.raises(ValueError, match="share a number"):
        kernels.module.__wrapped__("a", ())


def load_generator() -> Any:
    spec = spec_from_file_location("make_kernels", ROOT / "docs" / "make_kernels.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_kernel_page_is_what_the_headers_give() -> None:
    made = load_generator()
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert made.page(text) == text, "run: python docs/make_kernels.py"


def test_the_kernel_page_keeps_what_a_person_wrote_around_the_tables() -> None:
    made = load_generator()
    page = made.page(f"before\n{made.BEGIN} -->\nstale\n{made.END}\nafter\n")
    assert page.startswith("before\n") and page.endswith("after\n") and "stale" not in page and "| `matvec` |" in page

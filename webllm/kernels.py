"""Kernel sources: finds the .wgsl files, reads their headers and puts library files in front.

A kernel is one file; what it shares with others lies in `lib/`, named in its header by `uses`. A
slot with several implementations has one library file each (`lib/weight.q4_1.wgsl`,
`lib/weight.q8_0.wgsl`), all with the same functions; a dispatch says which by its variants.
Nothing is replaced inside a file: numbers are `override` constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

Variants = tuple[tuple[str, str], ...]
Edits = tuple[tuple[str, str], ...]  # file, without folder and ending, and the text to take in its place

_BINDING = re.compile(r"^// binding (\d+) (\w+)\s+(read|read_write)\s+(\S+)\s*(.*)$", re.M)
_FIELD = re.compile(r"^// (grid|uses|needs|why)\s+(.*)$", re.M)
_THREADS = re.compile(r"@workgroup_size\((\w+)\)")


@dataclass(frozen=True)
class Binding:
    """One storage buffer of a kernel, as its header gives it."""

    number: int
    name: str
    access: str  # "read" or "read_write"
    type: str
    shape: str


@dataclass(frozen=True)
class Header:
    """The comment block at the top of a .wgsl file."""

    formula: str
    bindings: tuple[Binding, ...]
    uses: tuple[str, ...]
    needs: frozenset[str]  # WebGPU features without which the file does not compile
    grid: str
    why: str


@dataclass(frozen=True)
class Module:
    """A complete WGSL module without `enable` lines, its bindings by name, and the WebGPU features that it needs."""

    code: str
    bindings: Mapping[str, Binding]
    needs: frozenset[str]
    starts: Mapping[str, int]  # each file, in order: the line of `code` that it begins at, from 1

    def place(self, line: int) -> tuple[str, int]:
        """The file that a line of `code` is from, and its number there; both from 1."""
        file = [name for name, start in self.starts.items() if start <= line][-1]
        return file, line - self.starts[file] + 1

    def threads(self, constants: Mapping[str, float]) -> int:
        """Invocations of a workgroup, with these values of its `override` constants."""
        (size,) = _THREADS.findall(self.code)
        return int(size) if size.isdecimal() else int(constants[size])


def folder() -> Path:
    """Where the .wgsl files lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "_kernels_wgsl"
    return installed if installed.is_dir() else package.parent / "kernels_wgsl"


def names() -> list[str]:
    """Names of all kernels."""
    return sorted(path.stem for path in folder().glob("*.wgsl"))


def choices(slot: str) -> list[str]:
    """The implementations of a library slot: `choices("weight")` -> ["bf16", "f16", ...]; [] if it has one."""
    return sorted(path.name.split(".")[1] for path in (folder() / "lib").glob(f"{slot}.*.wgsl"))


def header(source: str) -> Header:
    """Read the header of a kernel or library file."""
    fields = dict(_FIELD.findall(source))
    bindings = (Binding(int(n), name, access, kind, shape) for n, name, access, kind, shape in _BINDING.findall(source))
    return Header(
        formula=source.split("\n", 1)[0].removeprefix("// "),
        bindings=tuple(bindings),
        uses=tuple(fields.get("uses", "").split()),
        needs=frozenset(fields.get("needs", "").split()),
        grid=fields.get("grid", ""),
        why=fields.get("why", ""),
    )


@cache
def read(name: str) -> str:
    """The text of `kernels_wgsl/NAME.wgsl`."""
    path = folder() / f"{name}.wgsl"
    if not path.is_file():
        raise KeyError(f"no kernel {name!r} in {folder()}; there are: {', '.join(names())}")
    return path.read_text(encoding="utf-8")


@cache
def module(kernel: str, variants: Variants, edits: Edits = ()) -> Module:
    """Put the library files that `kernel` uses in front of it. edits: texts in place of files, to be tried.

    >>> module("matvec", (("weight", "q4_1"), ("input", "plain"), ("bias", "none"))).bindings["x"].number
    3
    """
    chosen, edited = dict(variants), dict(edits)
    files: dict[str, str] = {}

    def visit(name: str) -> None:
        text = edited.get(name) or read(name)
        for slot in header(text).uses:
            file = f"lib/{slot}.{chosen[slot]}" if slot in chosen else f"lib/{slot}"
            if file not in files:
                visit(file)
        files[name] = text

    visit(kernel)
    headers = [header(text) for text in files.values()]
    bindings = [b for h in headers for b in h.bindings]
    by_name = {b.name: b for b in bindings}
    if len({b.number for b in bindings}) < len(bindings) or len(by_name) < len(bindings):
        raise ValueError(f"{kernel} {chosen}: two bindings share a number or a name: {bindings}")
    needs = frozenset[str]().union(*(h.needs for h in headers))
    lines = accumulate((text.count("\n") + 1 for text in files.values()), initial=1)
    return Module("\n".join(files.values()), by_name, needs, dict(zip(files, lines, strict=False)))

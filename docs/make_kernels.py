"""Writes the tables of docs/kernels.md from the headers of the .wgsl files: `python docs/make_kernels.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from webllm import kernels

PAGE = Path(__file__).with_name("kernels.md")
BEGIN = "<!-- Made by docs/make_kernels.py from here"
END = "<!-- to here. -->"


def page(text: str) -> str:
    """`text` with what lies between the two marker lines made anew. Raises `ValueError` if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    marker, _, rest = rest.partition("\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} must hold the lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}{marker}\n\n{tables()}\n{end}{after}"


def tables() -> str:
    """The kernels, then the library files that they use."""
    library = sorted(path.stem for path in (kernels.folder() / "lib").glob("*.wgsl"))
    first = _table(("Kernel", "Computes", "Buffers", "Grid", "Uses", "Why"), map(_kernel, kernels.names()))
    second = _table(("Library file", "What", "Buffers", "Needs", "Why"), map(_library, library))
    return f"{first}\n## Library files\n\n{second}"


def _kernel(name: str) -> list[str]:
    header = kernels.header(kernels.read(name))
    uses = ", ".join(_code(slot) for slot in header.uses)
    return [_code(name), _formula(header), _bindings(header), _code(header.grid), uses, header.why]


def _library(name: str) -> list[str]:
    header = kernels.header(kernels.read(f"lib/{name}"))
    needs = ", ".join(map(_code, sorted(header.needs)))
    return [_code(name), header.formula.partition(": ")[2], _bindings(header), needs, header.why]


def _formula(header: kernels.Header) -> str:
    text = header.formula.partition(": ")[2]
    return _code(text) if " = " in text else text


def _bindings(header: kernels.Header) -> str:
    """One line a buffer: number, name, type and shape; what is written in bold."""
    lines = []
    for binding in header.bindings:
        name = f"**{binding.name}**" if binding.access == "read_write" else binding.name
        lines.append(f"{binding.number} {name} {_code(binding.type)} {binding.shape}".strip())
    return "<br>".join(lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

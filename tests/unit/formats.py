"""The formats table of docs/models.md, of the tables that the tests run through."""

from __future__ import annotations

from webllm.checkpoint.gguf import TYPES
from webllm.checkpoint.mlc import QUANTS
from webllm.weights import DENSE, FORMATS, IMPORTS, SCALED, Import

GGUF = [name for name, _, _ in TYPES.values()]  # tests/kernels/test_rows.py, test_linear.py
SAFETENSORS = list(DENSE)  # tests/models/test_hf_folder.py
MLC = list(QUANTS)  # tests/models/test_mlc.py, tests/unit/test_mlc.py


def table() -> str:
    """What each kind of file may hold, and what that is on the GPU."""
    lines = ["| file | type in it | on the GPU | bits a weight there |", "|---|---|---|---|"]
    lines += [_line("GGUF", name, IMPORTS[name]) for name in GGUF]
    lines += [_line("safetensors", name, IMPORTS[name]) for name in SAFETENSORS]
    return "\n".join(lines + [_mlc(name) for name in MLC])


def _line(file: str, name: str, how: Import) -> str:
    form = FORMATS[how.format]
    return f"| {file} | {name} | {how.format} | {8 * (form.unit_bytes + form.scale_bytes) / 32:g} |"


def _mlc(name: str) -> str:
    kind = QUANTS[name] or {"q0f16": "F16", "q0f32": "BF16", "q0bf16": "BF16"}[name]
    return _line("MLC", name, SCALED.get(kind) or IMPORTS[kind])

"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_QUANT = "q4"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A short name, a .gguf file, a folder (with one, or with safetensors), or a URL.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Context = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Positions of the KV cache.", show_default="the model's, up to 4096"),
]
Kv = Annotated[Literal["f16", "f32", "int8"], typer.Option(help="Numbers of the KV cache; int8 is approximate.")]
Adapter = Annotated[str | None, typer.Option(metavar="SUBSTRING", help="Part of the name of the GPU to use.")]
PowerPreference = Annotated[
    Literal["high-performance", "low-power"] | None,
    typer.Option(help="Which GPU, where there are several.", show_default="high-performance"),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Forbid what is approximate (activations or a cache of 8 bits, halves).")
]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="At most so many new tokens.", show_default="until the context is full"),
]
Ids = Annotated[str | None, typer.Option(metavar="1,2,3", help="Token ids.")]
IdsFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, readable=True, help="A file with token ids, or a JSON array of them."),
]
Quant = Annotated[
    Literal["q4", "q4_sym", "q8", "f16", "f32"] | None,
    typer.Option(
        help="What becomes of weights in F32, F16 or BF16 while they are loaded.", show_default="as in the file"
    ),
]
AnyQuant = Annotated[
    Literal["q4", "q4_sym", "q4_1", "q5", "q8", "q2_k", "q4_k", "q6_k", "f16", "f32"] | None,
    typer.Option(
        help="As for chat; a config.json may be given any.", show_default=f"as in the file, or {DEFAULT_QUANT}"
    ),
]


def read_ids(ids: str | None, file: Path | None) -> list[int]:
    """Token ids from whichever of the two options was given."""
    if (ids is None) == (file is None):
        raise typer.BadParameter("give one of --ids and --ids-file")
    if file is None:
        return numbers(ids or "", "--ids")
    return numbers(
        file.read_text(encoding="utf-8", errors="replace").strip().removeprefix("[").removesuffix("]"), "--ids-file"
    )


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers between commas or spaces."""
    words = text.replace(",", " ").split()
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise typer.BadParameter(f"wanted whole numbers, as in 1,2,3; {error}", param_hint=option) from error

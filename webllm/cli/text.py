"""`webllm tokenize` and `detokenize`: a vocabulary is enough, no tensors and no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from webllm.cli.opening import open_vocabulary
from webllm.cli.options import Ids, IdsFile, Json, Model, read_ids
from webllm.cli.output import emit
from webllm.cli.running import run

if TYPE_CHECKING:
    from webllm.tokenizer import Tokenizer


def tokenize(
    model: Model,
    text: Annotated[str, typer.Option(help="The text.", show_default=False)],
    special: Annotated[
        bool, typer.Option("--special", help="Recognise special tokens; add bos and eos where the model wants them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn text into token ids."""
    ids = run(_tokenizer(model)).encode(text, special)
    emit({"ids": ids}, as_json, ",".join(map(str, ids)))


def detokenize(
    model: Model,
    ids: Ids = None,
    ids_file: IdsFile = None,
    special: Annotated[bool, typer.Option("--special", help="Show special tokens too.")] = False,
    as_json: Json = False,
) -> None:
    """Turn token ids into text."""
    wanted = read_ids(ids, ids_file)
    text = run(_tokenizer(model)).decode(wanted, special)
    emit({"text": text}, as_json, text)


async def _tokenizer(model: str) -> Tokenizer:
    from webllm import host
    from webllm.tokenizer import Tokenizer

    return Tokenizer(await open_vocabulary(model), host.current().encoder)

"""The native tokenizer library: Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer

from webllm.errors import BadModel


def rust_encoder(tokenizer_json: str) -> Callable[[str], list[int]]:
    """A function from text to ids. Raises `BadModel` if the library refuses the vocabulary.

    rust_encoder(text_of_tokenizer_json)("Hello")  # [19556]
    """
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises nothing more precise
        raise BadModel(f"the model's vocabulary makes no tokenizer: {error}") from error

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return encode

"""The text of a tokenizer.json for a `Vocabulary`, which the platform's tokenizer library then runs.

Both libraries (the Rust `tokenizers`, and npm's `@huggingface/tokenizers` in the page) get this same text. It holds
ordinary tokens only: special ones are found by `webllm.tokenizer`, and no text can be merged into one.
Patterns are spelt out as `Split` steps, because the libraries' own shorthands (ByteLevel's regular expression,
Digits) disagree about Unicode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from webllm.checkpoint import Vocabulary
from webllm.errors import Unsupported

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6  # GGUF's token types; 1 is a normal token

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_AFTER_DIGITS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_LETTERS}|\p{{N}}{{1,3}}|{_AFTER_DIGITS}"
_QWEN2 = rf"{_LETTERS}|\p{{N}}|{_AFTER_DIGITS}"

# GGUF's name of a pre-tokenizer -> the patterns that cut the text, one after the other
_PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (GPT2,),
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "qwen2": (_QWEN2,),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "llama-v3": (_LLAMA3,),
}
_NFC = ("qwen2",)  # these compose characters first
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")  # a word that is a token is taken without merging
_LONGEST_PIECE = 256  # trained vocabularies have none that is longer; cutting one up costs its length squared


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """The tokenizer.json text for `vocabulary`, without added tokens, post-processor and decoder.

    Raises `Unsupported` for a pre-tokenizer that is not known.
    """
    parts = _byte_level(vocabulary) if vocabulary.kind == "bpe" else _sentencepiece(vocabulary)
    frame: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    return json.dumps({**frame, **parts, "post_processor": None, "decoder": None}, ensure_ascii=False)


def _byte_level(vocabulary: Vocabulary) -> dict[str, Any]:
    pre = vocabulary.pre
    if pre not in _PATTERNS:
        raise Unsupported(f"the tokenizer's pre-tokenizer is {pre!r}; supported are {', '.join(_PATTERNS)}")
    cuts = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in _PATTERNS[pre]]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokens = _ordinary_tokens(vocabulary, (UNKNOWN, CONTROL, USER_DEFINED, UNUSED))
    pairs = (merge.partition(" ")[::2] for merge in vocabulary.merges)
    merges = [[left, right] for left, right in pairs if left in tokens and right in tokens and left + right in tokens]
    return {
        "normalizer": {"type": "NFC"} if pre in _NFC else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, to_bytes]},
        "model": _bpe(tokens, merges, ignore_merges=pre in _WHOLE_WORDS),
    }


def _sentencepiece(vocabulary: Vocabulary) -> dict[str, Any]:
    pieces = _ordinary_tokens(vocabulary, (UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE))
    ranked = sorted(_splits(pieces, vocabulary))
    merges = [[left, right] for *_, left, right in ranked]
    tokens = _ordinary_tokens(vocabulary, (CONTROL, USER_DEFINED, UNUSED))
    unknown = None if vocabulary.unk_id is None else vocabulary.tokens[vocabulary.unk_id]
    if unknown is not None:
        tokens.setdefault(unknown, vocabulary.unk_id or 0)
    model = _bpe(tokens, merges, unk_token=unknown, byte_fallback=True, fuse_unk=True)
    return {"normalizer": None, "pre_tokenizer": None, "model": model}


def _splits(pieces: Mapping[str, int], vocabulary: Vocabulary) -> Iterator[tuple[float, int, int, int, str, str]]:
    """Every way to make a piece out of two, with its sorting key: best score first, as SentencePiece merges."""
    for piece, number in pieces.items():
        for cut in range(1, len(piece) if len(piece) <= _LONGEST_PIECE else 1):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                yield -vocabulary.scores[number], number, pieces[left], pieces[right], left, right


def _ordinary_tokens(vocabulary: Vocabulary, without: tuple[int, ...]) -> dict[str, int]:
    """Token text -> id, without the types in `without`; the first of two equal texts counts."""
    tokens: dict[str, int] = {}
    types = vocabulary.token_types or [1] * len(vocabulary.tokens)
    for number, (text, kind) in enumerate(zip(vocabulary.tokens, types, strict=True)):
        if kind not in without:
            tokens.setdefault(text, number)
    return tokens


def _bpe(tokens: Mapping[str, int], merges: list[list[str]], **options: object) -> dict[str, Any]:
    defaults = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {**defaults, **options, "vocab": tokens, "merges": merges}

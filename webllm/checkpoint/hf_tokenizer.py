"""From a tokenizer.json to a `Vocabulary`: byte-level BPE, and SentencePiece's BPE with byte fallback.

The tokenizer libraries run the file themselves, but for ordinary text only: special tokens are found by
`webllm.tokenizer`, so that no text becomes one by accident, and they are taken out of what the libraries get.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from webllm.checkpoint import Vocabulary
from webllm.errors import BadModel, Unsupported
from webllm.tokenizer_json import BYTE, CONTROL, GPT2, USER_DEFINED

_NORMAL = 1
_MAX_ID = 1 << 20
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")

_Object = Mapping[str, Any]


def vocabulary_of(tokenizer: _Object, settings: _Object, config: _Object, name: str) -> Vocabulary:
    """The vocabulary of a tokenizer.json.

    settings: the tokenizer_config.json, {} where there is none. config: the model's config.json; its ids count where
    settings name no token. name: for messages. Raises `Unsupported` for other kinds of tokenizers, `BadModel` where the
    file contradicts itself.
    """
    model, added = _model(tokenizer, name), _added(tokenizer, name)
    texts = {number: text for text, number in _ids(model["vocab"], name).items()} | {
        n: t for n, (t, _) in added.items()
    }
    ids = {text: number for number, text in texts.items()}
    steps = [*_steps(tokenizer.get("pre_tokenizer")), *_steps(tokenizer.get("decoder"))]
    spm = not any(step.get("type") == "ByteLevel" for step in steps)
    tokens = [texts.get(number, "") for number in range(max(texts, default=-1) + 1)]
    bos, eos = (_end(f"{which}_token", settings, config, ids, name) for which in ("bos", "eos"))
    first, last = _ends(tokenizer, settings)
    return Vocabulary(
        kind="spm" if spm else "bpe",
        tokens=tokens,
        token_types=[added[i][1] if i in added else _type_of(text, spm) for i, text in enumerate(tokens)],
        bos_id=bos,
        eos_id=eos,
        unk_id=ids.get(model.get("unk_token") or ""),
        add_bos=bos is not None and first in (True, tokens[bos]),
        add_eos=eos is not None and last in (True, tokens[eos]),
        add_space_prefix=spm and any(map(_adds_prefix, [*_steps(tokenizer.get("normalizer")), *steps])),
        tokenizer_json=_ordinary(tokenizer, model, {text for text, _ in added.values()}),
    )


def token_text(value: Any) -> str | None:
    """A token as tokenizer_config.json names it: a text, or an object with its content."""
    value = value.get("content") if isinstance(value, Mapping) else value
    return well_formed(value) if isinstance(value, str) else None


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which JSON may have and UTF-8 has not, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def _model(tokenizer: _Object, name: str) -> _Object:
    model = tokenizer.get("model")
    if not isinstance(model, Mapping):
        raise BadModel(f"{name}: a tokenizer has a model, got {str(model)[:40]}")
    vocab, merges, kind = model.get("vocab"), model.get("merges"), model.get("type", "BPE")
    if kind != "BPE":
        raise Unsupported(f"{name}: a tokenizer of type {str(kind)[:40]!r}; supported is BPE")
    if (
        not isinstance(vocab, Mapping)
        or not isinstance(merges, list)
        or not isinstance(model.get("unk_token"), str | None)
    ):
        raise BadModel(f"{name}: the tokenizer's model needs a vocab, merges, and an unk_token of text or null")
    return model


def _ids(vocab: _Object, name: str) -> dict[str, int]:
    ids = {well_formed(text): _id(number, name) for text, number in vocab.items()}
    if len(set(ids.values())) < len(vocab):
        raise BadModel(f"{name}: the vocabulary gives one id to two tokens")
    return ids


def _id(number: Any, name: str) -> int:
    if type(number) is not int or not 0 <= number < _MAX_ID:
        raise BadModel(f"{name}: a token's id is a number from 0 to {_MAX_ID - 1}, got {str(number)[:40]}")
    return number


def _added(tokenizer: _Object, name: str) -> dict[int, tuple[str, int]]:
    """Id -> (text, type) of the tokens that stand beside the model's own."""
    added = {}
    for token in _objects(tokenizer.get("added_tokens")):
        text = token_text(token)
        if not text:
            raise BadModel(f"{name}: an added token has no content: {str(token)[:80]}")
        added[_id(token.get("id"), name)] = text, CONTROL if token.get("special") else USER_DEFINED
    return added


def _type_of(text: str, spm: bool) -> int:
    return BYTE if spm and _BYTE_TOKEN.fullmatch(text) else _NORMAL


def _end(key: str, settings: _Object, config: _Object, ids: Mapping[str, int], name: str) -> int | None:
    """The id of bos or eos, whichever `key` says."""
    if key in settings:
        text = token_text(settings[key])
        if text is not None and text not in ids:
            raise BadModel(f"{name}: the vocabulary has no {text[:40]!r}, which tokenizer_config.json calls {key}")
        return None if text is None else ids[text]
    number = config.get(f"{key}_id")
    number = number[0] if isinstance(number, list) and number else number
    return number if type(number) is int and number in ids.values() else None


def _ends(tokenizer: _Object, settings: _Object) -> tuple[str | bool, str | bool]:
    """What every text begins and ends with, as texts of tokens; True for bos and eos themselves."""
    for step in _steps(tokenizer.get("post_processor")):
        if step.get("type") == "TemplateProcessing":
            template = [*_objects(step.get("single"))]
            tokens = [_objects_of(piece, "SpecialToken").get("id") for piece in template]
            around = [token if isinstance(token, str) else "" for token in tokens] or [""]
            return around[0], around[-1] if len(around) > 1 else ""
    return settings.get("add_bos_token") is True, settings.get("add_eos_token") is True


def _adds_prefix(step: _Object) -> bool:
    """Whether a step of normalising or cutting up puts a space before the text."""
    if step.get("type") == "Metaspace":
        return bool(step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never") != "never")
    return step.get("type") == "Prepend"


def _ordinary(tokenizer: _Object, model: _Object, added: set[str]) -> str:
    """The file's text without added tokens, the decoder, and what is done to whole texts."""
    products = {_product(merge) for merge in model["merges"]} if added & model["vocab"].keys() else set()
    without = added - products - {model.get("unk_token")}
    vocab = {text: number for text, number in model["vocab"].items() if text not in without}
    steps = [spelt for step in _steps(tokenizer.get("pre_tokenizer")) for spelt in _spelt_out(step)]
    made: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": tokenizer.get("normalizer"),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if steps else None,
        "post_processor": None,
        "decoder": None,
        "model": {**model, "vocab": vocab, "dropout": None},
    }
    return json.dumps(made, ensure_ascii=False)


def _product(merge: Any) -> str:
    """What a merge makes: of "a b", or of ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge if isinstance(merge, list) else ()
    return "".join(part for part in parts if isinstance(part, str))


def _spelt_out(step: _Object) -> Iterator[_Object]:
    """The libraries' shorthands as patterns: they disagree about Unicode where they have their own."""
    if step.get("type") == "Digits":
        yield _split(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
    elif step.get("type") == "ByteLevel" and step.get("use_regex", True) and not step.get("add_prefix_space"):
        yield _split(GPT2)
        yield {**step, "use_regex": False}
    else:
        yield step


def _split(pattern: str) -> _Object:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _steps(part: Any) -> Iterator[_Object]:
    """The steps of a part of a tokenizer.json: of a sequence its members, of anything else itself."""
    if not isinstance(part, Mapping):
        return
    if part.get("type") != "Sequence":
        yield part
    for key in _SEQUENCES if part.get("type") == "Sequence" else ():
        for step in _objects(part.get(key)):
            yield from _steps(step)


def _objects(value: Any) -> Iterator[_Object]:
    """The objects in what should be a list of them."""
    return (one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else iter(())


def _objects_of(value: _Object, key: str) -> _Object:
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}

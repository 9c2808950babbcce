"""Text to token ids and back.

Ordinary text is cut up by the platform's tokenizer library, which comes in as a function. Special tokens and
decoding are done here, so that they are the same everywhere and no text becomes a special token by accident.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

from webllm.checkpoint import Vocabulary
from webllm.errors import BadModel, RequestError
from webllm.tokenizer_json import BYTE, CONTROL, UNKNOWN, USER_DEFINED, tokenizer_json

EncoderFactory = Callable[[str], Callable[[str], list[int]]]

_SPACE = "\u2581"  # SentencePiece's visible space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary, GPT-2's way.

    Printable characters of Latin-1 stand for themselves; the other bytes take U+0100 onwards, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_characters()


class Tokenizer:
    """Encodes and decodes with one model's vocabulary.

    encoder_factory: takes the text of a tokenizer.json and returns a function from text to ids; called when text is
    encoded for the first time. Raises `BadModel` where the model has no vocabulary.

        tokenizer = Tokenizer(checkpoint.vocabulary, rust_encoder)
        tokenizer.decode(tokenizer.encode("Hello"))  # "Hello"
    """

    def __init__(self, vocabulary: Vocabulary | None, encoder_factory: EncoderFactory) -> None:
        if vocabulary is None:
            raise BadModel("the model's files hold no tokenizer: pass token ids, or load a file that has a vocabulary")
        self.vocabulary = vocabulary
        self._factory = encoder_factory
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        ids = {i for i, kind in enumerate(vocabulary.token_types) if kind in (UNKNOWN, CONTROL)}
        # some converters forget to mark these two as control tokens
        self.special_ids = frozenset(ids | {i for i in (self.bos_id, self.eos_id) if i is not None})

    @cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Text -> id of the tokens that only a template or `special=True` may produce."""
        return self._texts(self.special_ids)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`.

        special=False: all of it is ordinary text; "<|im_end|>" becomes the letters of that word. No bos is added.
        special=True: special tokens are recognised, and bos and eos are added where the vocabulary says so, but not
        where the text already has them. User-defined tokens are recognised always.
        """
        if not isinstance(text, str):
            raise RequestError(f"encode: text must be a str, got {type(text).__name__}")
        ids: list[int] = []
        for part, token in _split(_well_formed(text), self._all_tokens if special else self._user_tokens):
            ids += self._encode_text(part) if token is None else [token]
        return self._with_ends(ids) if special else ids

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of `ids`; special tokens are left out unless `special`. Broken UTF-8 becomes U+FFFD.

        Raises `RequestError` for an id outside the vocabulary.
        """
        stream = self.stream(special)
        return "".join([stream.push(i) for i in ids]) + stream.flush()

    def stream(self, special: bool = False) -> StreamDecoder:
        """A decoder that takes one id after the other."""
        return StreamDecoder(self, special)

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for; for a special token, its name's."""
        if not 0 <= id < self.vocab_size:
            raise RequestError(f"token id {id} is outside the vocabulary, which has ids 0 to {self.vocab_size - 1}")
        text, types = self.vocabulary.tokens[id], self.vocabulary.token_types
        kind = types[id] if types else 1
        if id in self.special_ids:
            return text.encode()
        if self.vocabulary.kind == "spm":
            byte = _BYTE_TOKEN.fullmatch(text) if kind == BYTE or not types else None
            return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE, " ").encode()
        try:
            return text.encode() if kind == USER_DEFINED else bytes([_BYTES[c] for c in text])
        except KeyError:  # a token that is written as plain text
            return text.encode()

    @cached_property
    def _encoder(self) -> Callable[[str], list[int]]:
        return self._factory(self.vocabulary.tokenizer_json or tokenizer_json(self.vocabulary))

    def _texts(self, ids: Iterable[int]) -> dict[str, int]:
        return {text: i for i in sorted(ids, reverse=True) if (text := self.vocabulary.tokens[i])}

    @cached_property
    def _user_tokens(self) -> _Splitter:
        kinds = enumerate(self.vocabulary.token_types)
        return _splitter(self._texts(i for i, kind in kinds if kind == USER_DEFINED and i not in self.special_ids))

    @cached_property
    def _all_tokens(self) -> _Splitter:
        return _splitter({**self._user_tokens[1], **self.special_tokens})

    def _encode_text(self, text: str) -> list[int]:
        if self.vocabulary.kind == "spm" and self.vocabulary.tokenizer_json is None:
            # each stretch of text gets the prefix, also after a special token: llama.cpp does so
            text = (" " + text if self.vocabulary.add_space_prefix else text).replace(" ", _SPACE)
        return self._encoder(text)

    def _with_ends(self, ids: list[int]) -> list[int]:
        bos, eos = self.bos_id, self.eos_id
        if self.vocabulary.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        if self.vocabulary.add_eos and eos is not None and ids[-1:] != [eos]:
            ids = [*ids, eos]
        return ids


class StreamDecoder:
    """Decodes a stream of ids; a character comes out when its last byte is there.

    out = "".join(stream.push(i) for i in ids) + stream.flush()  # the same as decode(ids)
    """

    def __init__(self, tokenizer: Tokenizer, special: bool) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        # encoding put a space before the text; it does not belong to it
        self._strip = tokenizer.vocabulary.kind == "spm" and tokenizer.vocabulary.add_space_prefix

    def push(self, id: int) -> str:
        """The text that becomes certain with this token; often "" within a character."""
        data = self._tokenizer.token_bytes(id)
        if id in self._tokenizer.special_ids and not self._special:
            return ""
        if self._strip and data:
            self._strip, data = False, data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never finished, else ""."""
        return self._utf8.decode(b"", True)


_Splitter = tuple[re.Pattern[str] | None, Mapping[str, int]]


def _splitter(tokens: Mapping[str, int]) -> _Splitter:
    longest_first = sorted(tokens, key=len, reverse=True)
    return (re.compile("|".join(map(re.escape, longest_first))) if tokens else None), tokens


def _split(text: str, splitter: _Splitter) -> Iterator[tuple[str, int | None]]:
    """Cut `text` at the splitter's tokens: (ordinary text, None) and (token's text, its id), nothing empty."""
    pattern, tokens = splitter
    start = 0
    for match in pattern.finditer(text) if pattern else ():
        if match.start() > start:
            yield text[start : match.start()], None
        yield match[0], tokens[match[0]]
        start = match.end()
    if start < len(text):
        yield text[start:], None


def _well_formed(text: str) -> str:
    """`text` with lone surrogates, which JavaScript strings may have, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

"""What holds for any text and any ids: encoding, decoding, and streams of ids, whatever the vocabulary's kind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_tokenizer import byte_level, from_file, sentencepiece
from webllm.checkpoint import Vocabulary
from webllm.host.encoder import rust_encoder
from webllm.pull import cached
from webllm.tokenizer import Tokenizer, _byte_characters


def whole_bytes() -> Tokenizer:
    """Every byte has a token, as in all trained byte-level vocabularies; with special and user-defined tokens."""
    characters = list(_byte_characters())
    tokens = ["<|end|>", "<tool>", "<s>", *characters, "ab", "Ġab", "<|"]
    types = [3, 4, 3] + [1] * (len(tokens) - 3)
    merges = ["a b", "Ġ ab", "< |"]
    return Tokenizer(Vocabulary("bpe", tokens, merges, token_types=types, pre="gpt-2", bos_id=2), rust_encoder)


TOKENIZERS = {
    "byte level": whole_bytes(),
    "byte level, few letters": byte_level(),
    "SentencePiece": sentencepiece(),
}
COMPLETE = ["byte level", "SentencePiece"]  # those that can spell any text

# Texts with what is hard: pieces of special tokens, spaces, lone surrogates, characters of one to four bytes.
pieces = st.sampled_from(
    ["<|end|>", "<|", "|>", "end", "<s>", "<tool>", "</s>", "<0x41>", " ", "  ", "\u2581", "\n", "ab", "Ġ", "\ufffd"]
)
texts = st.lists(pieces | st.text(max_size=4) | st.characters(categories=["Cs"]), max_size=12).map("".join)
surely = settings(max_examples=200, deadline=None)


def well_formed(text: str, kind: str = "byte level") -> str:
    """Lone surrogates become U+FFFD; two that make a character become that character.

    SentencePiece writes a space as U+2581 and cannot tell the two apart.
    """
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\u2581", " ") if kind == "SentencePiece" else text


@surely
@given(texts, st.sampled_from(COMPLETE))
def test_any_text_comes_back(text: str, kind: str) -> None:
    """But for user-defined tokens, all of it is ordinary text."""
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == well_formed(text, kind)


@surely
@given(texts, st.sampled_from([*TOKENIZERS]))
def test_no_text_becomes_a_special_token(text: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text)
    special = tokenizer.special_ids - {tokenizer.vocabulary.unk_id}
    assert not special & set(ids)


@surely
@given(texts, st.sampled_from(COMPLETE))
def test_with_special_tokens_any_text_comes_back_too(text: str, kind: str) -> None:
    """A bos in front is added where the vocabulary says so; a text's own is not doubled."""
    tokenizer = TOKENIZERS[kind]
    if kind == "SentencePiece":
        tokenizer = sentencepiece(add_space_prefix=False)
    ids = tokenizer.encode(text, special=True)
    if tokenizer.vocabulary.add_bos:
        assert ids[:1] == [tokenizer.bos_id]
        wanted = well_formed(text, kind)
        assert tokenizer.decode(ids, special=True) in (wanted, "<s>" + wanted)
    else:
        assert tokenizer.decode(ids, special=True) == well_formed(text)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Tokenizer, list[int]]:
    """Ids in any order, so that characters are cut, mixed and never finished."""
    tokenizer = TOKENIZERS[draw(st.sampled_from([*TOKENIZERS]))]
    ids = st.integers(0, tokenizer.vocab_size - 1)
    return tokenizer, draw(st.lists(ids, max_size=30))


@surely
@given(streams(), st.booleans())
def test_a_stream_of_any_ids_gives_what_decoding_them_gives(case: tuple[Tokenizer, list[int]], special: bool) -> None:
    tokenizer, ids = case
    stream = tokenizer.stream(special)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids, special)
    kept = b"".join(tokenizer.token_bytes(i) for i in ids if special or i not in tokenizer.special_ids)
    if tokenizer.vocabulary.add_space_prefix:
        kept = kept.removeprefix(b" ")
    assert tokenizer.decode(ids, special) == kept.decode("utf-8", "replace")


@surely
@given(texts, st.data())
def test_a_text_s_ids_cut_anywhere_give_the_text(text: str, data: st.DataObject) -> None:
    """One stream over both parts, as when an answer goes on."""
    kind = data.draw(st.sampled_from(COMPLETE))
    tokenizer, wanted = TOKENIZERS[kind], well_formed(text, kind)
    ids = tokenizer.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    stream = tokenizer.stream()
    first = "".join([stream.push(i) for i in ids[:cut]])
    assert wanted.startswith(first)
    assert first + "".join([stream.push(i) for i in ids[cut:]]) + stream.flush() == wanted


async def test_a_trained_vocabulary_gives_any_text_back() -> None:
    """But for bytes that its training never saw, which it has no tokens for: 0xF1 and some control characters."""
    path = cached("smollm2-135m-instruct")
    if path is None:
        pytest.skip("the default model is not in the cache folder: run `make model`")
    tokenizer = await from_file(path)
    unknown = bytes(byte for name, byte in _byte_characters().items() if name not in set(tokenizer.vocabulary.tokens))
    assert len(unknown) < 30

    @surely
    @given(texts)
    def check(text: str) -> None:
        spelt = well_formed(text).encode().translate(None, unknown)
        assert tokenizer.decode(tokenizer.encode(text)) == spelt.decode("utf-8", "replace")

    check()

"""Encoding and decoding, against llama.cpp's vectors and small vocabularies made here."""

import json
import os
from pathlib import Path

import pytest

from webllm.checkpoint import Vocabulary
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import vocabulary_from_gguf
from webllm.errors import BadModel, RequestError, Unsupported
from webllm.host.encoder import rust_encoder
from webllm.host.files import FileSource
from webllm.tokenizer import Tokenizer
from webllm.tokenizer_json import tokenizer_json

GOLDEN = Path(os.environ.get("WEBLLM_GOLDEN") or Path(__file__).parents[2] / "../shared/golden")
VECTORS = GOLDEN / "tokenizer-vectors"
DATA = Path(__file__).parents[1] / "data"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason=f"no folder {VECTORS}: set WEBLLM_GOLDEN to one that has llama.cpp's tokenizer vectors"
)

LETTERS = [chr(c) for c in range(0x21, 0x7F)] + ["Ġ", "Ċ"]


def byte_level(*more: str, **options: object) -> Tokenizer:
    """Printable ASCII, space and newline; the merges "a b" and "Ġ ab"; then control, user-defined and `more` tokens."""
    tokens = ["<|end|>", "<tool>", "<s>", *LETTERS, "ab", "Ġab", *more]
    settings = {
        "kind": "bpe",
        "tokens": tokens,
        "merges": ["a b", "Ġ ab"],
        "token_types": [3, 4, 3] + [1] * (len(tokens) - 3),
        "pre": "gpt-2",
        "bos_id": 2,
    }
    return Tokenizer(Vocabulary(**{**settings, **options}), rust_encoder)


def sentencepiece(**options: object) -> Tokenizer:
    """unk, bos, eos, all bytes, then a, b, the visible space, "ab", and a word."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *bytes_,
        "a",
        "b",
        "\u2581",
        "ab",
        "\u2581ab",
        "<",
        "/",
        "s",
        ">",
        "</",
        "</s",
        "s>",
    ]
    settings = {
        "kind": "spm",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)],
        "token_types": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 0,
        "add_bos": True,
        "add_space_prefix": True,
    }
    return Tokenizer(Vocabulary(**{**settings, **options}), rust_encoder)


def texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.vocabulary.tokens[i] for i in ids]


async def from_file(path: Path) -> Tokenizer:
    return Tokenizer(vocabulary_from_gguf(await read_gguf(FileSource(path))), rust_encoder)


@needs_vectors
@pytest.mark.parametrize("family", ["gpt-2", "llama-spm"])
async def test_ids_and_texts_equal_llama_cpps_vectors(family):
    tokenizer = await from_file(VECTORS / f"ggml-vocab-{family}.gguf")
    inputs = (VECTORS / f"ggml-vocab-{family}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = (VECTORS / f"ggml-vocab-{family}.gguf.out").read_text().splitlines()
    assert len(outputs) == 46
    for text, line in zip(inputs, outputs, strict=False):  # the separator also follows the last text
        ids = [int(number) for number in line.split()]
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text


def test_text_that_looks_like_a_special_token_is_spelt_out():
    tokenizer = byte_level()
    ids = tokenizer.encode("a<|end|>")
    assert texts(tokenizer, ids) == ["a", *"<|end|>"]
    assert tokenizer.decode(ids) == "a<|end|>"


def test_special_recognises_special_tokens():
    tokenizer = byte_level()
    assert texts(tokenizer, tokenizer.encode("ab<|end|> ab", special=True)) == ["ab", "<|end|>", "Ġab"]


def test_user_defined_tokens_are_always_recognised():
    tokenizer = byte_level()
    assert texts(tokenizer, tokenizer.encode("a<tool>b")) == ["a", "<tool>", "b"]


def test_the_longest_of_two_special_tokens_wins():
    tokenizer = byte_level("<s>>", token_types=[3, 4, 3] + [1] * (len(LETTERS) + 2) + [3])
    assert texts(tokenizer, tokenizer.encode("<s>>", special=True)) == ["<s>>"]


def test_no_merge_makes_a_special_token():
    tokenizer = sentencepiece()
    assert texts(tokenizer, tokenizer.encode("</s>")) == ["\u2581", "</s", ">"]


def test_bos_is_added_to_special_text_only_and_never_twice():
    tokenizer = byte_level(add_bos=True)
    assert texts(tokenizer, tokenizer.encode("ab")) == ["ab"]
    assert texts(tokenizer, tokenizer.encode("ab", special=True)) == ["<s>", "ab"]
    assert texts(tokenizer, tokenizer.encode("<s>ab", special=True)) == ["<s>", "ab"]


def test_bos_is_not_added_where_the_vocabulary_does_not_say_so():
    assert texts(byte_level(), byte_level().encode("ab", special=True)) == ["ab"]


def test_sentencepiece_prefixes_a_space_after_special_tokens_too():
    tokenizer = sentencepiece()
    assert texts(tokenizer, tokenizer.encode("ab</s>ab", special=True)) == ["<s>", "\u2581ab", "</s>", "\u2581ab"]


def test_sentencepiece_spells_unknown_characters_in_bytes():
    tokenizer = sentencepiece()
    ids = tokenizer.encode("é")
    assert texts(tokenizer, ids) == ["\u2581", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids) == "é"


def test_decoding_leaves_special_tokens_out_unless_asked():
    tokenizer = byte_level()
    ids = tokenizer.encode("a<|end|>b<tool>", special=True)
    assert tokenizer.decode(ids) == "ab<tool>"
    assert tokenizer.decode(ids, special=True) == "a<|end|>b<tool>"


def test_a_stream_gives_a_character_with_its_last_byte():
    tokenizer = sentencepiece()
    stream = tokenizer.stream()
    llama = tokenizer.encode("🦙b")[1:]  # without the prefix: four bytes, then b
    assert [stream.push(i) for i in llama] == ["", "", "", "🦙", "b"]
    assert stream.flush() == ""


def test_a_stream_that_stops_within_a_character_ends_with_a_replacement():
    tokenizer = sentencepiece()
    stream = tokenizer.stream()
    assert stream.push(tokenizer.encode("é")[1]) == ""
    assert stream.flush() == "\ufffd"


def test_a_token_knows_its_bytes():
    tokenizer = byte_level()
    found = {text: tokenizer.token_bytes(tokenizer.vocabulary.tokens.index(text)) for text in ("Ġab", "Ċ", "<tool>")}
    assert found == {"Ġab": b" ab", "Ċ": b"\n", "<tool>": b"<tool>"}
    assert sentencepiece().token_bytes(3 + 0xC3) == b"\xc3"


@pytest.mark.parametrize("id", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_refused(id):
    with pytest.raises(RequestError, match=rf"{id} is outside the vocabulary.*0 to 100"):
        byte_level().decode([id])


def test_text_must_be_text():
    with pytest.raises(RequestError, match="bytes"):
        byte_level().encode(b"ab")


def test_lone_surrogates_do_not_stop_the_tokenizer():
    tokenizer = sentencepiece()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_a_model_without_a_vocabulary_is_named():
    with pytest.raises(BadModel, match="no tokenizer"):
        Tokenizer(None, rust_encoder)


def test_an_unknown_pre_tokenizer_is_named_with_the_known_ones():
    with pytest.raises(Unsupported, match=r"'tekken'.*smollm.*qwen2"):
        byte_level(pre="tekken").encode("a")


def test_a_vocabulary_that_the_library_refuses_is_a_bad_model():
    with pytest.raises(BadModel, match="makes no tokenizer"):
        rust_encoder("{}")


def test_merges_of_tokens_that_do_not_exist_are_left_out():
    tokenizer = byte_level(merges=["q zz", "broken", "a b"])
    assert texts(tokenizer, tokenizer.encode("abq")) == ["ab", "q"]


def test_the_text_for_the_library_holds_no_special_token():
    model = json.loads(tokenizer_json(byte_level().vocabulary))
    assert model["added_tokens"] == []
    assert not {"<|end|>", "<tool>", "<s>"} & set(model["model"]["vocab"])


@pytest.mark.parametrize(
    ("pre", "wanted"),
    [("gpt-2", ["11", "11"]), ("smollm", ["1", "1", "1", "1"]), ("llama-bpe", ["11", "1", "1"])],
)
def test_each_family_cuts_digits_its_own_way(pre, wanted):
    # a merge to "11" works within a cut only: all digits together, one by one, or in threes
    tokenizer = byte_level("11", merges=["1 1"], pre=pre)
    assert texts(tokenizer, tokenizer.encode("1111")) == wanted


def test_qwen2_composes_characters_first():
    tokens = [*LETTERS, "Ã", "©", "Ì", "\u0143", "Ã©"]
    vocabulary = Vocabulary(kind="bpe", tokens=tokens, merges=["Ã ©"], pre="qwen2")
    tokenizer = Tokenizer(vocabulary, rust_encoder)
    assert texts(tokenizer, tokenizer.encode("e\u0301")) == ["Ã©"]


async def test_smollm2_prompts_have_the_ids_that_transformers_gives(smollm2):
    cases = json.loads((DATA / "smollm2-135m-instruct.json").read_text(encoding="utf-8"))["cases"]
    tokenizer = await from_file(smollm2)
    for case in cases:
        text = tokenizer.decode(case["prompt_ids"], special=True)
        assert tokenizer.encode(text, special=True) == case["prompt_ids"]
        assert tokenizer.decode(case["greedy_ids"], special=True) == case["greedy_text"]


@pytest.fixture
def smollm2() -> Path:
    from webllm.pull import cached

    path = cached("smollm2-135m-instruct")
    if path is None:
        pytest.skip("SmolLM2 is not in the cache folder: webllm pull smollm2-135m-instruct")
    return path

"""`webllm convert`: a folder of floats becomes hashed shards that compute the same, as nearly as 4 bits can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import webllm
from tests.models.mlc_folder import quantise as plain
from tests.models.test_hf_folder import DATA, NAMES, error, expected, logits_of
from tests.unit.test_hf_folder import TOKENIZER
from webllm.cli import main
from webllm.convert import convert, quantise
from webllm.errors import RequestError, Unsupported


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("quant", "worst"), [("f16", 5e-3), ("q4", 0.8)])
async def test_what_is_converted_computes_what_its_source_does(
    name: str, quant: str, worst: float, tmp_path: Path
) -> None:
    wanted = expected(name)
    folder = await convert(DATA / name, tmp_path / "out", quant)
    got = await logits_of(folder, wanted["ids"], wanted["positions"])
    assert error(got, np.array(wanted["logits"])) < worst
    assert (
        sum(file.stat().st_size for file in folder.glob("*.bin")) < (DATA / name / "model.safetensors").stat().st_size
    )


async def test_tokenizer_template_stops_and_sampling_come_along(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for file in (DATA / "tiny-llama").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0].content }}"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    out = await convert(source, tmp_path / "out")
    async with await webllm.load(source) as before, await webllm.load(out) as after:
        assert after.tokenizer.encode("ab 12") == before.tokenizer.encode("ab 12")
        assert after.checkpoint.chat_template == "{{ messages[0].content }}"
        assert after.checkpoint.stop_ids == before.checkpoint.stop_ids
        assert after.context == before.context


def test_least_squares_loses_less_than_the_largest_over_seven() -> None:
    values = np.random.default_rng(3).standard_t(5, (40, 100)).astype(np.float32)
    words, scales = quantise(values)
    codes = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).reshape(40, -1)
    assert codes.max() <= 14
    made = ((codes.astype(np.float32) - 7) * np.repeat(scales.astype(np.float32), 32, axis=1))[:, :100]
    usual = plain(values, "q4")[2]
    assert ((made - values) ** 2).sum() < 0.92 * ((usual - values) ** 2).sum()


async def test_what_cannot_be_converted_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(RequestError, match="this folder is not empty"):
        await convert(DATA / "tiny-llama", tmp_path / "full")
    with pytest.raises(RequestError, match="quant must be one of q4, f16, got 'q9'"):
        await convert(DATA / "tiny-llama", tmp_path / "out", "q9")
    source = tmp_path / "in"
    source.mkdir()
    for file in (DATA / "tiny-llama").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(Unsupported, match="'bert'; converted are llama, qwen2"):
        await convert(source, tmp_path / "out")
    assert not (tmp_path / "out" / "mlc-chat-config.json").exists()


def test_the_command_prints_where_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(DATA / "tiny-llama"), str(tmp_path / "out"), "--json"])
    assert ended.value.code == 0 and json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "out")

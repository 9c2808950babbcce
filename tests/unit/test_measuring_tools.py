"""tests/bench/: what the tools make of results that were measured elsewhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import load_time, plot, sizes

PARTS = {"qkv": 0.3, "attention": 0.2, "something new": 0.1, "LM head": 0.4}


def result(phase: str, **changes: Any) -> dict[str, Any]:
    """As `webllm bench --json` prints it, as much of it as is drawn."""
    one = {"phase": phase, "tokens": 128, "at_context": 128, "tokens_per_s_median": 800.0, "gpu_ms": 1.1}
    one |= {"encode_ms": 0.4, "wait_ms": 0.7, "gpu_ms_by_part": PARTS, **changes}
    versions = {"pyodide": None, "wgpu": "0.32.0"}
    return {"model": "tests/tiny.json", "quant": "q4", "adapter": "Paper", "versions": versions, "results": [one]}


def test_a_step_is_split_by_part_and_what_is_left_is_gaps() -> None:
    split = plot.split(PARTS, 1.1)
    assert list(split) == ["qkv", "attention", "LM head", "rest", "gaps"]
    assert split["rest"] == pytest.approx(0.1) and split["gaps"] == pytest.approx(0.1)


def test_parts_that_add_up_to_more_than_the_step_are_scaled_to_it() -> None:
    split = plot.split(PARTS, 0.5)
    assert sum(split.values()) == pytest.approx(0.5) and split["qkv"] == pytest.approx(0.15)
    assert "gaps" not in split


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_results_become_a_picture(tmp_path: Path, ending: str) -> None:
    """Of native and of Chromium's, in two files of lines."""
    page = {**result("prefill", gpu_ms=3.0), "versions": {"pyodide": "314"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(result("decode")) + "\n")
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(page)}\n{json.dumps(result('decode'))}\n")
    out = tmp_path / f"out.{ending}"
    plot.main([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--out", str(out)])
    if ending == "png":
        assert out.read_bytes().startswith(b"\x89PNG")
        return
    text = out.read_text()
    assert all(word in text for word in ("tiny q4", "native, at 128", "Chromium, 128 tokens", "attention", "1.25 ms"))


def test_results_without_timestamps_are_told_and_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(result("decode", gpu_ms=None, gpu_ms_by_part=None)))
    with pytest.raises(SystemExit, match="no timestamps"):
        plot.main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out.svg")])


def test_what_a_page_showed_becomes_a_line_for_first_navigations_and_one_for_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = tmp_path / "shown.jsonl"
    runs = [{"s": {"page": 0.1, "total": total}} for total in (9.0, 3.0, 4.0)]
    shown.write_text(json.dumps({"model": "tiny", "adapter": {"name": "Paper"}, "versions": {}, "runs": runs}))
    load_time.main(["--from", str(shown)])
    first, following = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["load"], first["repeats"], first["median_and_iqr_s"]["total"]) == ("first navigation", 1, [9.0, 0.0])
    assert (following["load"], following["repeats"]) == ("next navigation", 2)
    assert following["median_and_iqr_s"]["total"][0] == 3.5 and following["adapter"] == {"name": "Paper"}


def test_sizes_are_those_of_the_shortest_form_that_is_sent(tmp_path: Path) -> None:
    (tmp_path / "text.js").write_bytes(b"x" * 10_000)
    (tmp_path / "packed.gz").write_bytes(hashlib.shake_128(b"noise").digest(256))
    told = sizes.sizes(tmp_path, ["text.js", "packed.gz"])
    assert told["text.js"]["raw"] == 10_000 and told["text.js"]["brotli"] < told["text.js"]["gzip"] < 100
    assert told["packed.gz"] == {"raw": 256, "gzip": 256, "brotli": 256}
    assert told["total"]["raw"] == 10_256

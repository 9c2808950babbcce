"""The table of measured shapes: what is read from it, what is refused, and what is left at its default."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_program import built, config, tiny
from webllm import tune
from webllm.device import AdapterInfo
from webllm.errors import RequestError, TuningWarning
from webllm.limits import Limits
from webllm.program import Settings
from webllm.synthetic import checkpoint_from_config
from webllm.tune import Measured, file_name, keep, read_table, recall, shapes_of, table_json

INFO = AdapterInfo("Some GPU", "Vulkan", False, "1.2")
KEY = ("matvec q4_0 none stored plain", 896, 4864)
TABLE = {KEY: (8, 64)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_measured_shape_is_taken_and_others_stay() -> None:
    limits = Limits(tuned=TABLE)
    assert limits.matvec_shape(896, 4864, kernel=KEY[0]) == (8, 64)
    for rows, cols, kernel in [(896, 4864, "matvec q8_0 none stored plain"), (896, 4896, KEY[0]), (912, 4864, KEY[0])]:
        assert limits.matvec_shape(rows, cols, kernel=kernel) == Limits().matvec_shape(rows, cols)


@pytest.mark.parametrize("threads", [16, 64, 128, 256, 384, 1024])
@pytest.mark.parametrize(("rows", "cols"), [(1, 4), (64, 64), (896, 4864), (4096, 4096), (151936, 896)])
def test_every_shape_to_try_is_another_one_that_kernels_take(threads: int, rows: int, cols: int) -> None:
    limits = Limits(threads=threads)
    default = limits.matvec_shape(rows, cols)
    shapes = [default, *limits.shapes_around(*default)]
    assert [per for per, _ in limits.shapes_around(*default, least=16) if per < 16] == []
    assert len(set(shapes)) == len(shapes) <= 5
    for per, wide in shapes:
        assert per in (4, 8, 16, 32) and per <= wide <= threads and wide.bit_count() == 1


def test_a_program_is_built_with_the_table_and_tells_it() -> None:
    limits = Limits()
    default = shapes_of(built(tiny(), limits, context=2048))
    table = {key: limits.shapes_around(*shape)[-1] for key, shape in default.items()}
    assert table != default
    assert shapes_of(built(tiny(), replace(limits, tuned=table), context=2048)) == table


def test_a_shape_with_fewer_rows_than_a_kernel_must_have_is_passed_over() -> None:
    """A product that is packed shares a factor among 16."""
    limits = Limits(tuned=TABLE)
    assert limits.matvec_shape(896, 4864, least=16, kernel=KEY[0]) == Limits().matvec_shape(896, 4864, least=16)


def test_a_table_goes_through_json_unchanged() -> None:
    data = json.loads(json.dumps(table_json(INFO, TABLE)))
    assert read_table(data, INFO, Limits()) == TABLE


def row(**changes: Any) -> dict[str, Any]:
    return {"kernel": KEY[0], "rows": 896, "cols": 4864, "shape": [8, 64], **changes}


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda data: [data],
    "unknown key": lambda data: {**data, "more": 1},
    "missing key": lambda data: {"matvec": data["matvec"]},
    "another adapter": lambda data: {**data, "adapter": "x" * 10_000},
    "another version": lambda data: {**data, "webllm": None},
    "rows that are text": lambda data: {**data, "matvec": "abc"},
    "too many rows": lambda data: {**data, "matvec": [row()] * 1001},
    "a row that is none": lambda data: {**data, "matvec": [None]},
    "a row with more": lambda data: {**data, "matvec": [row(code="import os")]},
    "a kernel that is a list": lambda data: {**data, "matvec": [row(kernel=[])]},
    "rows that are true": lambda data: {**data, "matvec": [row(rows=True)]},
    "a shape of three": lambda data: {**data, "matvec": [row(shape=[8, 64, 1])]},
    "a shape of text": lambda data: {**data, "matvec": [row(shape=["8", "64"])]},
    "a shape of truths": lambda data: {**data, "matvec": [row(shape=[True, 64])]},
    "no such rows": lambda data: {**data, "matvec": [row(shape=[5, 64])]},
    "no power of two": lambda data: {**data, "matvec": [row(shape=[8, 96])]},
    "too many threads": lambda data: {**data, "matvec": [row(shape=[8, 1 << 60])]},
    "negative threads": lambda data: {**data, "matvec": [row(shape=[8, -64])]},
    "fewer threads than rows": lambda data: {**data, "matvec": [row(shape=[16, 8])]},
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_table_that_is_none_is_refused_by_name(spoil: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(RequestError, match=r"tuning") as error:
        read_table(spoil(table_json(INFO, TABLE)), INFO, Limits())
    assert len(str(error.value)) < 300


def test_what_was_kept_is_recalled_for_the_same_adapter_and_driver_only() -> None:
    assert recall(INFO, Limits()) == {}
    keep(INFO, TABLE)
    assert recall(INFO, Limits()) == TABLE
    assert recall(replace(INFO, driver="1.3"), Limits()) == {}


def test_the_newest_rows_are_kept_of_more_than_are_read() -> None:
    newest = {(KEY[0], rows, 32): (8, 64) for rows in range(tune.MOST_ROWS, 0, -1)}
    keep(INFO, TABLE | newest)
    assert [*recall(INFO, Limits())] == [*newest]


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000, b"{}", b" " * (1 << 21)])
def test_a_spoilt_file_is_left_aside_with_a_warning(cache: Path, data: bytes) -> None:
    cache.mkdir()
    (cache / file_name(INFO)).write_bytes(data)
    with pytest.warns(TuningWarning, match=r"tuning-some-gpu-\w+\.json in the cache folder is left aside"):
        assert recall(INFO, Limits()) == {}


def test_a_cache_folder_that_cannot_be_written_is_told(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.warns(TuningWarning, match="cannot be kept"):
        keep(INFO, TABLE)


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(cache: Path) -> None:
    (cache / file_name(INFO) / "a folder in its place").mkdir(parents=True)
    with pytest.warns(TuningWarning, match="cannot be kept"):
        keep(INFO, TABLE)
    assert [path.name for path in cache.iterdir()] == [file_name(INFO)]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({(4, 64): 1.0, (8, 64): 0.9}, (8, 64)),
        ({(4, 64): 1.0, (8, 64): 0.99}, (4, 64)),
        ({(4, 64): 1.0, (8, 64): 1.1}, (4, 64)),
        ({(4, 64): 1.0}, (4, 64)),
    ],
)
def test_the_default_stays_unless_another_is_clearly_faster(
    seconds: dict[tuple[int, int], float], best: tuple[int, int]
) -> None:
    assert Measured(KEY, seconds).best == best


def test_what_is_timed_are_layers_beyond_any_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few as that takes: a large model need not be on the GPU twice."""
    checkpoint = tiny(num_hidden_layers=6)
    layer = sum(t.nbytes for name, t in checkpoint.tensors.items() if name.startswith("model.layers.0."))
    monkeypatch.setattr(tune, "ENOUGH_BYTES", 2 * layer + 1)
    program = tune._program(Limits(), checkpoint, Settings(256))
    assert sum(dispatch.label.startswith("matvec_glu") for dispatch in program.plans["decode"].dispatches) == 3


def test_kernels_with_a_packed_result_are_tried_with_the_rows_they_must_have_only() -> None:
    checkpoint = checkpoint_from_config(config("smollm2-135m"), "q4_1")
    default, *others = tune._programs(Limits(int8=True), checkpoint, Settings(256))
    packed = {key: shape for key, shape in shapes_of(default).items() if key[0].startswith("matvec_glu q4_1 packed")}
    assert packed
    for key, shape in packed.items():
        tried = [shape, *Limits(int8=True).shapes_around(*shape, least=16)]
        assert [*tune._tried(key, [default, *others])] == tried

"""Plans as data: grid sizes, pieces of uploads, buffers by number and by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webllm.plan import PIECE_BYTES, Buffer, Ceil, Dispatch, Plan, Program, Upload, renumber, renumber_upload

BUFFERS = (Buffer("w", 64, "weight"), Buffer("x", 16, "scratch"), Buffer("y", 16, "state"), Buffer("z", 16, "state"))
ADD = Dispatch("add", (("a", 0), ("b", 1), ("y", 2)), (1, 1, 1))


def upload(rows: int, row_bytes: int) -> Upload:
    return Upload(0, 0, rows, row_bytes, (), ADD)


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_a_grid_covers_the_rows_of_the_step_and_no_more(rows: int, groups: int) -> None:
    assert Ceil("rows", 64)(rows, 999) == groups


@pytest.mark.parametrize(("length", "groups"), [(1, 1), (128, 1), (129, 2)])
def test_a_grid_can_follow_the_length_of_the_text(length: int, groups: int) -> None:
    assert Ceil("length", 128)(999, length) == groups


def test_a_grid_prints_as_a_person_would_write_it() -> None:
    assert [str(Ceil("rows", 64)), str(Ceil("length", 1))] == ["ceil(rows/64)", "length"]


@given(st.integers(1, PIECE_BYTES // 2))
def test_a_piece_fits_the_staging_buffer_and_the_largest_grid(row_bytes: int) -> None:
    rows = upload(10**9, row_bytes).rows_per_piece
    assert rows * row_bytes <= PIECE_BYTES and rows <= 65535


@given(st.integers(1, PIECE_BYTES // 2))
def test_a_piece_has_an_even_number_of_rows(row_bytes: int) -> None:
    """Rows of 18-byte blocks may end within a word, and two rows share a word of scales."""
    assert upload(10**9, row_bytes).rows_per_piece % 2 == 0


def test_renumbering_moves_bindings_and_the_result() -> None:
    moved = renumber(Plan((ADD,), result=2), {0: 7, 1: 8, 2: 9})
    assert moved.dispatches[0].buffers == (("a", 7), ("b", 8), ("y", 9))
    assert moved.result == 9
    assert renumber(Plan((ADD,)), {0: 7, 1: 8, 2: 9}).result is None


def test_renumbering_an_upload_moves_its_bindings_alone() -> None:
    before = upload(3, 20)
    moved = renumber_upload(before, {0: 7, 1: 8, 2: 9})
    assert moved.dispatch.buffers == (("a", 7), ("b", 8), ("y", 9))
    assert (moved.rows, moved.row_bytes, moved.nbytes) == (3, 20, 60)


def test_bytes_are_added_up_by_kind() -> None:
    assert Program(BUFFERS, {}).bytes_by_kind() == {"weight": 64, "scratch": 16, "state": 32}


def test_a_buffer_is_found_by_its_name() -> None:
    assert Program(BUFFERS, {}).index("z") == 3


def test_an_unknown_buffer_is_refused_by_its_name() -> None:
    with pytest.raises(KeyError, match="no buffer 'logits'"):
        Program(BUFFERS, {}).index("logits")

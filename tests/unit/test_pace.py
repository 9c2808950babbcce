"""How large the next prefill step is, from what the last one took."""

from __future__ import annotations

import pytest

from webllm.ops import TILE
from webllm.pace import BUDGET_S, Pace


def test_the_first_step_is_one_tile() -> None:
    pace = Pace(1024)
    assert (pace.known, pace.rows) == (False, TILE)


def test_on_a_fast_device_the_second_step_is_as_large_as_any() -> None:
    """20 ms a tile are 320 ms for 16."""
    pace = Pace(1024)
    pace.took(TILE, 0.02)
    assert (pace.known, pace.rows) == (True, 1024)


def test_what_a_few_rows_take_says_nothing_of_a_tile() -> None:
    pace = Pace(1024)
    pace.took(TILE - 1, 0.001)
    assert (pace.known, pace.rows) == (False, TILE)
    pace.took(2 * TILE, 0.8)
    pace.took(8, 0.001)
    assert pace.rows == 2 * TILE


def test_a_tile_that_is_not_full_counts_for_nothing() -> None:
    """It may have taken next to no time, or as much as a full one."""
    pace = Pace(1024)
    pace.took(2 * TILE - 1, 0.5)
    assert pace.rows == 2 * TILE


@pytest.mark.parametrize(("tile_s", "tiles"), [(1.0, 1), (1.2, 1), (6.0, 1), (0.48, 2), (0.12, 8), (1e-9, 16)])
def test_a_step_takes_no_longer_than_the_budget_but_one_tile_at_least(tile_s: float, tiles: int) -> None:
    pace = Pace(1024)
    pace.took(2 * TILE, 2 * tile_s)
    assert pace.rows == tiles * TILE
    assert tiles == 1 or tiles * tile_s <= BUDGET_S


def test_it_follows_the_newest_measurement() -> None:
    """Attention makes later steps of a long prompt slower."""
    pace = Pace(1024)
    sizes = []
    for seconds in (0.06, 0.2, 0.1):
        pace.took(TILE, seconds)
        sizes.append(pace.rows // TILE)
    assert sizes == [16, 5, 10]


def test_a_program_with_less_room_than_a_tile_gets_no_more() -> None:
    pace = Pace(4)
    pace.took(4, 0.01)
    assert pace.rows == 4

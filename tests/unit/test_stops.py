"""Stop strings: however the text is cut into pieces, the same comes out, and nothing of a stop does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webllm.stops import StopFinder

LETTERS = st.text("abc", max_size=6)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Stops, and a text in pieces. Stops are cut from the text or from each other, so that they overlap everywhere."""
    word = (
        "".join(draw(st.permutations("abcd"))) if draw(st.booleans()) else draw(st.text("abc", min_size=2, max_size=6))
    )
    starts = st.integers(0, len(word) - 1)
    inner = draw(st.lists(st.tuples(starts, st.integers(1, len(word))), max_size=4))
    stops = [*draw(st.lists(st.text("abc", min_size=1, max_size=4), max_size=2)), *(word[i:][:n] for i, n in inner)]
    text = draw(LETTERS) + word + draw(LETTERS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return stops, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def told(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """All that is shown, and the stop that was found."""
    finder = StopFinder(stops)
    shown = "".join([finder.push(piece) for piece in pieces])
    return shown + finder.flush(), finder.found


@given(cases())
def test_any_pieces_give_what_the_whole_gives(case: tuple[list[str], list[str]]) -> None:
    stops, pieces = case
    assert told(stops, pieces) == told(stops, ["".join(pieces)])


@given(cases())
def test_nothing_of_a_stop_leaks(case: tuple[list[str], list[str]]) -> None:
    """What is shown is the text up to the stop that was found, and holds no stop."""
    stops, pieces = case
    shown, found = told(stops, pieces)
    assert "".join(pieces).startswith(shown + (found or ""))
    assert not any(stop in shown for stop in stops)


@given(cases())
def test_a_stop_in_the_text_is_always_found(case: tuple[list[str], list[str]]) -> None:
    stops, pieces = case
    assert (told(stops, pieces)[1] is not None) == any(stop in "".join(pieces) for stop in stops)


@given(cases())
def test_without_a_stop_all_of_the_text_comes_out(case: tuple[list[str], list[str]]) -> None:
    stops, pieces = case
    shown, found = told(stops, pieces)
    assert found is not None or shown == "".join(pieces)


def test_text_is_held_back_only_while_it_may_begin_a_stop() -> None:
    finder = StopFinder(["END"])
    assert [finder.push(piece) for piece in ("all E", "N", "E", "ND")] == ["all ", "", "EN", ""]
    assert finder.found == "END"


def test_of_two_stops_the_one_that_is_whole_first_counts() -> None:
    """Generation ends as soon as it may: "bc" is there a letter before "abcd"."""
    assert told(["abcd", "bc"], ["xabcd"]) == ("xa", "bc")


def test_of_two_stops_that_end_together_the_longer_counts() -> None:
    assert told(["bc", "abc"], ["xabc"]) == ("x", "abc")


def test_after_a_stop_nothing_more_is_shown() -> None:
    finder = StopFinder(["."])
    assert finder.push("One. Two.") == "One"
    assert finder.push(" Three.") == "" and finder.flush() == ""


@pytest.mark.parametrize("stops", [[], [""]])
def test_no_stop_and_an_empty_stop_let_everything_through(stops: list[str]) -> None:
    assert told(stops, ["ab", "c"]) == ("abc", None)

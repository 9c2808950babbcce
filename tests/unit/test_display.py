"""What people see: in a notebook (an IPython shell with a kernel), on a terminal, and where nobody looks."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output

from webllm import display
from webllm.types import ChatCompletionChunk, ChunkChoice, Delta, Usage, shown_completion

MEGABYTE = 1_000_000


def event(phase: str, loaded: int) -> dict[str, Any]:
    return {"phase": phase, "loaded": loaded, "total": MEGABYTE, "tensors": 0, "seconds": 0.0}


def tell(listener: Any) -> None:
    for phase in ("memory", "download", "weights"):
        listener(event(phase, 0))
        listener(event(phase, MEGABYTE))


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A notebook's shell, in its third cell."""
    shell = InteractiveShell.instance()
    shell.kernel = SimpleNamespace()
    shell.execution_count = 3
    yield shell
    InteractiveShell.clear_instance()


def test_a_listener_is_told_and_no_bar_is_drawn(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []
    with display.progress(seen.append) as listener:
        tell(listener)
    assert [progress["phase"] for progress in seen[::2]] == ["memory", "download", "weights"]
    assert capsys.readouterr() == ("", "")


def test_by_default_a_notebook_shows_a_bar_for_each_phase(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    with display.progress(None) as listener:
        tell(listener)
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert [line.split("\r")[-1].split("|")[0] for line in lines] == ["download: 100%", "weights: 100%"]
    assert "1.00M/1.00M" in lines[-1]


@pytest.mark.parametrize("on_progress", [None, False], ids=["default", "off"])
def test_a_script_whose_errors_go_to_a_file_shows_none(on_progress: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with display.progress(on_progress) as listener:
        assert listener is None


def test_false_shows_none_in_a_notebook_either(shell: InteractiveShell) -> None:
    with display.progress(False) as listener:
        assert listener is None


def test_on_a_terminal_what_is_quick_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with display.progress(None) as listener:
        tell(listener)
    assert terminal.getvalue() == ""


def test_without_tqdm_a_load_is_silent(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with display.progress(None) as listener:
        assert listener is None


def grown(*pieces: str) -> CapturedIO:
    with capture_output() as captured, display.GrowingAnswer() as shown:
        for piece in pieces:
            shown.add(piece)
    return captured


def test_an_answer_is_printed_where_there_is_no_notebook_without_control_characters() -> None:
    assert grown("Pa", "ris\x1b[2J").stdout == "Paris\ufffd[2J\n"


def test_in_a_notebook_an_answer_grows_in_one_place(shell: InteractiveShell) -> None:
    first, *_, last = grown("**Pa", "ris**").outputs
    assert first.transient == last.transient and last.update
    assert last.data == {"text/html": "<p><strong>Paris</strong></p>\n", "text/plain": "**Paris**"}


def test_an_answer_that_is_stopped_stays(shell: InteractiveShell) -> None:
    with capture_output() as captured, pytest.raises(KeyboardInterrupt), display.GrowingAnswer() as shown:
        shown.add("Pa")
        raise KeyboardInterrupt
    assert captured.outputs[-1].data["text/plain"] == "Pa"


def answer(cell: int | None) -> Any:
    def chunk(delta: Delta, **more: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk("id", 1, "model", [ChunkChoice(delta, **more)], Usage(2, 2, 4))

    chunks = [chunk(Delta("", "assistant")), chunk(Delta("*Paris*")), chunk(Delta(), finish_reason="length")]
    return shown_completion(chunks, cell)


def test_the_cell_that_showed_an_answer_does_not_show_it_again(shell: InteractiveShell) -> None:
    data, _ = shell.display_formatter.format(answer(cell=3))
    assert data == {}


def test_a_later_cell_shows_it_rendered(shell: InteractiveShell) -> None:
    data, _ = shell.display_formatter.format(answer(cell=2))
    assert data["text/html"] == "<p><em>Paris</em></p>\n"
    assert answer(cell=2).choices[0].finish_reason == "length"
    assert answer(cell=2).to_dict()["choices"][0]["message"]["content"] == "*Paris*"


@pytest.mark.parametrize("markdown", [True, False])
def test_html_of_a_model_is_text(markdown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not markdown:
        monkeypatch.setitem(sys.modules, "markdown_it", None)
    hostile = "<script>alert(1)</script> `<b>` ![x](http://example.org/x.png) [y](javascript:alert(1))"
    shown = display.answer_html(hostile)
    assert "&lt;script&gt;" in shown and "&lt;b&gt;" in shown
    assert not any(text in shown for text in ("<script", "<b>", "<img", 'href="javascript'))


def test_a_model_s_own_names_are_escaped() -> None:
    memory = {"weights": 3 * MEGABYTE, "kv": MEGABYTE, "scratch": 0, "other": 0, "total": 4 * MEGABYTE}
    shown = display.model_html("<i>", "<u>", memory, 2 * MEGABYTE, 512, {"tokens_per_s": 12.34, "first_s": 0.5})
    assert "<b>&lt;i&gt;</b>" in shown and "&lt;u&gt;" in shown
    assert "2.0 MB now, 4.0 MB with a full context" in shown and "width: 75.00%" in shown
    assert "12.3 tokens/s, the first after 0.50 s" in shown


def test_stats_are_a_dict_that_reads_well(shell: InteractiveShell) -> None:
    load = {"source": 0.25, "header": 1.0}
    numbers = {"model": "<i>", "gpu_bytes": MEGABYTE, "load": load, "seed": None, "decode_tokens_per_s": 9.0}
    stats = display.Stats(numbers)
    assert stats["load"] == load and repr(stats).startswith("{'model'")
    assert str(stats).splitlines() == [
        "model                <i>",
        "gpu bytes            1.0 MB",
        "load                 source 0.250 s, header 1.000 s",
        "seed                 none",
        "decode tokens per s  9.0",
    ]
    data, _ = shell.display_formatter.format(stats)
    assert data["text/plain"] == str(stats)
    assert '<td style="text-align: left">&lt;i&gt;</td>' in data["text/html"]

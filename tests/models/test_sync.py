"""webllm.sync: blocking calls on the default model, and Ctrl-C while they block."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import webllm
from webllm.device.native import NativeDevice
from webllm.errors import Closed, RequestError

ROOT = Path(__file__).parents[2]
CAPITAL, POEM = 0, 1  # of the golden file's cases


@pytest.fixture(scope="module")
def llm(smollm2_file: Path) -> Iterator[webllm.sync.LLM]:
    with webllm.sync.load(smollm2_file, context=512, exact=True) as loaded:
        yield loaded


def ask(case: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "user", "content": case["prompt"]}]


def text_of(case: dict[str, Any]) -> str:
    return str(case["greedy_text"]).removesuffix("<|im_end|>")


def test_tokens_come_from_a_plain_iterator(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    case = golden[CAPITAL]
    assert [*llm.generate(case["prompt_ids"], max_tokens=64)] == case["greedy_ids"]


def test_a_chat_answers_whole_and_in_pieces(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    case = golden[CAPITAL]
    whole = llm.chat.completions.create(ask(case), temperature=0)
    pieces = [*llm.chat.completions.create(ask(case), temperature=0, stream=True)]
    assert whole.choices[0].message.content == text_of(case)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text_of(case)


def test_what_needs_no_waiting_is_that_of_the_model(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    assert llm.tokenizer.decode(llm.tokenizer.encode("Hello, world")) == "Hello, world"
    assert llm.logits(golden[CAPITAL]["prompt_ids"]).argmax() == golden[CAPITAL]["greedy_ids"][0]
    assert (llm.context, llm.stats()["model"]) == (512, llm.name)


async def test_it_works_where_a_loop_runs(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    """As in a notebook's cell."""
    case = golden[CAPITAL]
    assert asyncio.get_running_loop().is_running()
    assert llm.chat.completions.create(ask(case), temperature=0).choices[0].message.content == text_of(case)


def test_two_threads_are_answered_one_after_the_other(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    got: dict[int, list[int]] = {}

    def run(number: int) -> None:
        got[number] = [*llm.generate(golden[number]["prompt_ids"], max_tokens=8)]

    threads = [threading.Thread(target=run, args=(number,)) for number in (CAPITAL, POEM)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    assert got == {number: golden[number]["greedy_ids"][:8] for number in (CAPITAL, POEM)}


def test_a_stream_that_is_left_and_kept_lets_the_next_in(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    """And goes on afterwards."""
    poem, capital = golden[POEM], golden[CAPITAL]
    stream = llm.generate(poem["prompt_ids"])
    got = [next(stream)]
    assert [*llm.generate(capital["prompt_ids"], max_tokens=64)] == capital["greedy_ids"]
    got += [next(stream) for _ in range(5)]
    assert got == poem["greedy_ids"][:6]


def test_another_thread_interrupts(llm: webllm.sync.LLM, golden: list[dict[str, Any]]) -> None:
    reasons = []
    for chunk in llm.chat.completions.create(ask(golden[POEM]), temperature=0, stream=True):
        if chunk.choices[0].delta.content:
            threading.Thread(target=llm.interrupt).start()
        reasons.append(chunk.choices[0].finish_reason)
    assert reasons[-1] == "abort" and len(reasons) < 20


def test_errors_are_raised_where_the_call_is(llm: webllm.sync.LLM) -> None:
    with pytest.raises(RequestError, match="one at least"):
        llm.chat.completions.create([])
    with pytest.raises(RequestError, match="unknown option"):
        llm.chat.completions.create([{"role": "user", "content": "Hi"}], unheard_of=1)


def test_progress_is_told_in_the_thread_that_waits(smollm2_file: Path) -> None:
    threads = []
    llm = webllm.sync.load(
        smollm2_file, context=64, on_progress=lambda progress: threads.append(threading.current_thread())
    )
    llm.close()
    assert set(threads) == {threading.current_thread()}
    with pytest.raises(Closed):
        llm.generate([1])


def test_an_error_of_the_caller_s_progress_ends_the_load(smollm2_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    closed, close = threading.Event(), NativeDevice.close

    def on_progress(progress: dict[str, Any]) -> None:
        told.append(progress)
        if len(told) == 3:
            raise ZeroDivisionError

    def closing(device: NativeDevice) -> None:
        close(device)
        closed.set()

    monkeypatch.setattr(NativeDevice, "close", closing)
    with pytest.raises(ZeroDivisionError):
        webllm.sync.load(smollm2_file, context=64, on_progress=on_progress)
    assert closed.wait(60)
    assert len(told) == 3  # of 273 tensors


class Program:
    """A Python program whose lines are read as they come."""

    def __init__(self, code: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put("the end")

    def line(self) -> str:
        return self._lines.get(timeout=100)

    def press_ctrl_c(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        try:
            return self._process.wait(timeout=100)
        finally:
            self._process.kill()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()


ANSWERS = """
    import json, os, webllm.sync

    capital, poem = json.loads(os.environ["CASES"])
    llm = webllm.sync.load(os.environ["MODEL"], context=512, exact=True)
    for stream in (False, True):
        try:
            print("begins")
            answer = llm.chat.completions.create(poem["messages"], stream=stream, temperature=0)
            for chunk in answer if stream else ():
                print("chunk")
            print("ended by itself")
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        print([*llm.generate(capital["ids"], max_tokens=64)])
"""


def test_ctrl_c_ends_the_answer_and_the_model_stays_usable(smollm2_file: Path, golden: list[dict[str, Any]]) -> None:
    """Once while a whole answer is waited for, once within a stream."""
    cases = json.dumps([{"messages": ask(golden[n]), "ids": golden[n]["prompt_ids"]} for n in (CAPITAL, POEM)])
    program = Program(ANSWERS, CASES=cases, MODEL=str(smollm2_file))
    assert program.line() == "begins"
    program.press_ctrl_c()
    assert program.line() == "KeyboardInterrupt"
    assert json.loads(program.line()) == golden[CAPITAL]["greedy_ids"]
    assert [program.line(), program.line(), program.line()] == ["begins", "chunk", "chunk"]
    program.press_ctrl_c()
    while (line := program.line()) == "chunk":
        continue
    assert line == "KeyboardInterrupt"
    assert json.loads(program.line()) == golden[CAPITAL]["greedy_ids"]
    assert (program.line(), program.end()) == ("the end", 0)


def test_ctrl_c_that_nobody_catches_ends_the_program_without_another_word(
    smollm2_file: Path, golden: list[dict[str, Any]]
) -> None:
    program = Program(
        """
        import os, webllm.sync
        llm = webllm.sync.load(os.environ["MODEL"], context=512)
        print("begins")
        llm.chat.completions.create([{"role": "user", "content": "Count to a thousand."}])
        """,
        MODEL=str(smollm2_file),
    )
    assert program.line() == "begins"
    program.press_ctrl_c()
    assert program.line() == "the end"
    assert program.end() != 0  # by the signal, as a rule; Python forgets it where a thread ran exec() meanwhile

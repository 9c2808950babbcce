"""In a real Jupyter kernel: the stop button, which is an interrupt of the cell that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.slow  # two loads; test_sync.py has the same with a plain SIGINT

ROOT = Path(__file__).parents[2]
CAPITAL, POEM = 0, 1  # of the golden file's cases
WITH_AWAIT = """
stream = await llm.chat.completions.create({messages!r}, stream=True, temperature=0)
async for chunk in stream:
    print(chunk.choices[0].delta.content, flush=True)
"""
SHOWN_WITH_AWAIT = "await llm.chat.show({messages!r}, temperature=0)"
WHOLE_WITH_AWAIT = "print('begins', flush=True); await llm.chat.completions.create({messages!r}, temperature=0)"
BLOCKING = """
for chunk in llm.chat.completions.create({messages!r}, stream=True, temperature=0):
    print(chunk.choices[0].delta.content, flush=True)
"""
SHOWN_BLOCKING = "llm.chat.show({messages!r}, temperature=0)"
WHOLE_BLOCKING = "print('begins', flush=True); llm.chat.completions.create({messages!r}, temperature=0)"


class Notebook:
    """Runs cells in a kernel."""

    def __init__(self) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(ROOT))
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=100)

    def run(self, code: str, stop_at: str | None = None) -> tuple[str, str | None]:
        """What a cell prints, and the name of its error. stop_at: press the stop button when this is printed."""
        cell = self._client.execute(code)
        printed, error, stopped = "", None, False
        while True:
            message = self._client.get_iopub_msg(timeout=100)
            content: dict[str, Any] = message["content"]
            if message["parent_header"].get("msg_id") != cell:
                continue
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed += content["text"]
            if message["msg_type"] in ("display_data", "update_display_data"):
                printed = content["data"]["text/plain"]  # of an answer that grows
            if message["msg_type"] == "error":
                error = content["ename"]
            if content.get("execution_state") == "idle":
                return printed, error
            if stop_at is not None and stop_at in printed and not stopped:
                self._manager.interrupt_kernel()
                stopped = True

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    notebook = Notebook()
    yield notebook
    notebook.close()


@pytest.mark.parametrize(
    ("load", "answers", "tokens"),
    [
        (
            "await webllm.load",
            [WITH_AWAIT, SHOWN_WITH_AWAIT, WHOLE_WITH_AWAIT],
            "[token async for token in llm.generate({ids}, max_tokens=64)]",
        ),
        ("webllm.sync.load", [BLOCKING, SHOWN_BLOCKING, WHOLE_BLOCKING], "[*llm.generate({ids}, max_tokens=64)]"),
    ],
    ids=["await", "sync"],
)
def test_a_stopped_cell_leaves_the_model_usable(
    notebook: Notebook, smollm2_file: Path, golden: list[dict[str, Any]], load: str, answers: list[str], tokens: str
) -> None:
    loading = f"import webllm; llm = {load}({str(smollm2_file)!r}, context=512, exact=True)"
    assert notebook.run(loading) == ("", None)
    poem = [{"role": "user", "content": golden[POEM]["prompt"]}]
    for answer in answers:
        printed, error = notebook.run(answer.format(messages=poem), stop_at="\n")
        assert error in ("KeyboardInterrupt", "CancelledError")
        assert len(printed.splitlines()) < 20
        printed, error = notebook.run(f"print({tokens.format(ids=golden[CAPITAL]['prompt_ids'])})")
        assert error is None
        assert json.loads(printed) == golden[CAPITAL]["greedy_ids"]

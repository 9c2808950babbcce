"""What the page's worker calls, without a page: calls by number, JSON both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.test_engine import CONTEXT, FakeDevice, ask, continuation, letters, make_engine
from webllm import browser_api

TELL = [ord(letter) - 0x20 for letter in "Tell"]


class FakeModel:
    """As much of an `LLM` as the calls here need."""

    name = "fake"

    def __init__(self) -> None:
        self.device = FakeDevice()
        self.engine = make_engine(self.device, 3)
        self.chat = self
        self.completions = letters(self.engine)

    def generate(self, ids: list[int], max_tokens: int | None = None) -> Any:
        return self.engine.generate(ids, max_tokens)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    loaded: Any = FakeModel()
    monkeypatch.setattr(browser_api, "_loaded", [loaded])
    yield loaded
    assert not browser_api._calls


async def call(number: int, method: str, /, **arguments: Any) -> Any:
    return json.loads(await browser_api.call(number, method, json.dumps(arguments), lambda event: None))


async def test_a_waiting_stream_that_is_left_does_not_end_the_running_answer(model: FakeModel) -> None:
    running = asyncio.create_task(call(1, "generate", ids=TELL, max_tokens=30))
    waiting = asyncio.create_task(call(2, "chat", messages=ask("Then"), stream=True))
    while model.device.decoded < 5:
        await asyncio.sleep(0)
    assert await call(3, "cancel", number=2) == {"value": None}
    assert await waiting == {"value": None}
    assert await running == {"value": continuation(TELL, 30)}


async def test_a_running_stream_that_is_left_ends_and_the_next_is_right(model: FakeModel) -> None:
    running = asyncio.create_task(call(1, "chat", messages=ask("Then"), stream=True))
    waiting = asyncio.create_task(call(2, "generate", ids=TELL, max_tokens=30))
    while model.device.decoded < 5:
        await asyncio.sleep(0)
    await call(3, "cancel", number=1)
    assert await running == {"value": None}
    assert await waiting == {"value": continuation(TELL, 30)}
    assert model.device.decoded < CONTEXT // 2


async def test_leaving_a_call_that_has_ended_does_nothing(model: FakeModel) -> None:
    assert await call(1, "generate", ids=TELL, max_tokens=3) == {"value": continuation(TELL, 3)}
    assert await call(2, "cancel", number=1) == {"value": None}


async def test_a_refused_request_comes_back_by_its_name(model: FakeModel) -> None:
    error = (await call(1, "chat", messages=[]))["error"]
    assert error["type"] == "RequestError" and "one at least" in error["message"]


async def test_an_interrupt_by_a_page_ends_the_running_answer_only_if_it_is_its_own(model: FakeModel) -> None:
    running = asyncio.create_task(call(1, "generate", ids=TELL, max_tokens=30))
    waiting = asyncio.create_task(call(2, "generate", ids=TELL, max_tokens=40))
    while model.device.decoded < 5:
        await asyncio.sleep(0)
    await call(3, "interrupt", numbers=[2])
    assert await running == {"value": continuation(TELL, 30)}
    while model.device.decoded < 40:
        await asyncio.sleep(0)
    await call(4, "interrupt", numbers=[2])
    ids = (await waiting)["value"]
    assert len(ids) < 40 and ids == continuation(TELL, len(ids))


async def test_a_conversation_is_counted_as_the_template_writes_it(model: FakeModel) -> None:
    said = await call(1, "chat", messages=ask("Tell"), max_tokens=1)
    assert await call(2, "count_tokens", messages=ask("Tell")) == {"value": said["value"]["usage"]["prompt_tokens"]}

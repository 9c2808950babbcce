"""The inference loop on a device of pure Python, where every step, wait and failure can be seen."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import numpy as np
import pytest

from webllm.chat import Completions
from webllm.chat_template import ChatTemplate, encode_chat
from webllm.checkpoint import Source, Vocabulary
from webllm.device import AdapterInfo, Device, Progress, Seconds
from webllm.engine import Engine, Timing
from webllm.errors import ContextFull, DeviceError, OutOfMemory, RequestError
from webllm.host.encoder import rust_encoder
from webllm.ops import RING
from webllm.plan import Buffer, Program
from webllm.sampling import HOST, IN_PROMPT, Sampling
from webllm.tokenizer import Tokenizer

VOCAB = 97
CONTEXT = 300
CHUNK = 4


def next_token(cache: Sequence[int]) -> int:
    """What the fake model says after these tokens. Order, length and every single token count."""
    return sum((i + 3) * (token + 1) ** 2 for i, token in enumerate(cache)) % VOCAB


def continuation(prompt: Sequence[int], count: int) -> list[int]:
    """`count` greedy tokens after the prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class FakeLoaded:
    program = Program((), {}, context=CONTEXT)
    seconds = Seconds()


class FakeDevice:
    """A `Device` that keeps a cache of tokens by position, and works in the order of submission, as a GPU does.

    It checks what it is told (positions and lengths), counts what it did, and fails where it is asked to.
    """

    info = AdapterInfo("fake", "Python", software=True)
    features: frozenset[str] = frozenset()
    limits: Mapping[str, int] = {}
    gpu_bytes = 0

    def __init__(self) -> None:
        self.cache: dict[int, int] = {}
        self.step: list[tuple[int, int, int, int]] = []  # token, position, sequence, emitted
        self.ring = [0] * RING
        self.prefilled: list[int] = []  # rows of every prefill
        self.decoded = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.broken_from: int | None = None  # submissions from this one on do nothing, and raise when awaited
        self.submissions = 0
        self.following = 0  # the likeliest token after the last decode step
        self.written: dict[str, bytearray] = {}  # buffers of sampling
        self.unsettled: set[int] = set()  # places in the answer that `sample` leaves to the host
        self.waits = False  # for the host to choose
        self.room, self.most = CONTEXT, 320  # positions, and to how many they may grow

    async def load(
        self, program: Program, sources: Sequence[Source], on_progress: Progress | None = None
    ) -> FakeLoaded:
        return FakeLoaded()

    def write(self, loaded: Any, name: str, data: bytes, offset: int = 0) -> None:
        if name in ("sampling", "bias", "counts"):
            self.written.setdefault(name, bytearray())[offset : offset + len(data)] = data
            self.waits = self.waits and name != "sampling"
            return
        assert (name, offset) == ("step", 0)
        (rows,) = struct.unpack_from("<I", data)
        self.step = [struct.unpack_from("<4I", data, 16 + 16 * i) for i in range(rows)]

    def submit(self, loaded: Any, plans: Sequence[str], rows: int, length: int, steps: int = 1) -> Awaitable[bytes]:
        assert rows == len(self.step) and steps == 1
        failing = self.broken_from is not None and self.submissions >= self.broken_from
        decode = plans[0].startswith("decode")  # there may be one for short texts and one for long ones
        if decode and not failing:
            self._decode(length)
            self._choose(*plans[1:])
        elif not failing:
            self._prefill(length)
        self.submissions += 1
        self.in_flight += 1
        if decode:
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return self._done(struct.pack(f"<{RING}I", *self.ring), failing)

    def _prefill(self, length: int) -> None:
        assert length == self.step[-1][1] + 1, "the length must be that of the last row"
        assert 1 <= len(self.step) <= CHUNK and length <= self.room
        self.prefilled.append(len(self.step))
        self.cache |= {position: token for token, position, _, _ in self.step}

    def _decode(self, length: int) -> None:
        ((token, position, _, _),) = self.step
        assert length == position + 1 or (self.waits and length > position)
        assert position < min(self.room, CONTEXT), "a step beyond the cache would write over other memory"
        self.cache[position] = token
        self.decoded += 1
        self.following = next_token([self.cache[i] for i in range(position + 1)])

    def _choose(self, tail: str = "") -> None:
        """The likeliest token either way. A step that waits for the host changes nothing; without a tail none does."""
        ((_, position, sequence, emitted),) = self.step
        self.waits = self.waits or (tail == "sample" and emitted in self.unsettled)
        if tail:
            self.ring[emitted % RING] = HOST if self.waits else self.following
        if tail and not self.waits:
            self.step = [(self.following, position + 1, sequence, emitted + 1)]

    async def _done(self, result: bytes, failing: bool) -> bytes:
        try:
            await asyncio.sleep(0)
        finally:
            self.in_flight -= 1
        if failing:
            raise DeviceError("the GPU had enough")
        return result

    async def read(self, loaded: Any, name: str, size: int, offset: int = 0) -> bytes:
        """The logits: the likeliest token's is so large that no noise makes up for it."""
        assert (name, size) == ("logits", 4 * VOCAB)
        return struct.pack(f"<{VOCAB}f", *(100.0 * (i == self.following) for i in range(VOCAB)))

    async def grow(self, loaded: Any, sizes: Mapping[str, int]) -> None:
        await asyncio.sleep(0)
        (self.room,) = sizes.values()  # a byte a position
        if self.room > self.most:
            raise OutOfMemory("k needs too much", sizes=sizes)

    def unload(self, loaded: Any) -> None: ...

    def close(self) -> None: ...


def test_the_fake_has_the_verbs_of_a_device() -> None:
    device: Device = FakeDevice()  # mypy would object
    assert all(
        callable(getattr(device, verb)) for verb in ("load", "write", "submit", "read", "grow", "unload", "close")
    )


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture(params=[1, 3])
def engine(request: pytest.FixtureRequest, device: FakeDevice) -> Engine:
    """One step at a time, and three in flight."""
    return make_engine(device, request.param)


def make_engine(device: FakeDevice, ahead: int) -> Engine:
    return Engine(device, FakeLoaded(), context=CONTEXT, chunk=CHUNK, vocab_size=VOCAB, ahead=ahead)


async def tokens(
    engine: Engine, ids: Sequence[int], count: int | None = None, stops: Collection[int] = ()
) -> list[int]:
    return [token async for token in engine.generate(ids, count, stops)]


PROMPT = [5, 17, 3, 88, 42, 9, 61, 30, 2, 74]


async def test_each_token_follows_from_all_before_it(engine: Engine) -> None:
    assert await tokens(engine, PROMPT, 20) == continuation(PROMPT, 20)


async def test_a_prompt_of_one_token_needs_no_prefill(engine: Engine, device: FakeDevice) -> None:
    assert await tokens(engine, [7], 5) == continuation([7], 5)
    assert device.prefilled == []


async def test_more_tokens_than_the_ring_holds_come_out_in_order(engine: Engine) -> None:
    assert await tokens(engine, PROMPT, 2 * RING + 5) == continuation(PROMPT, 2 * RING + 5)


async def test_a_prompt_is_read_in_chunks_and_its_last_token_decoded(engine: Engine, device: FakeDevice) -> None:
    """Ten tokens: nine through prefill, in chunks of four."""
    await tokens(engine, PROMPT, 1)
    assert device.prefilled == [4, 4, 1] and device.decoded == 1


async def test_what_is_cached_is_not_read_again(engine: Engine, device: FakeDevice) -> None:
    """The second prompt is the first, the answer (whose last token was never fed), and three more."""
    answer = await tokens(engine, PROMPT, 6)
    device.prefilled.clear()
    longer = [*PROMPT, *answer, 1, 2, 3]
    timing = Timing()
    got = [t async for t in engine.generate(longer, 5, timing=timing)]
    assert got == continuation(longer, 5)
    assert (timing.prompt_tokens, timing.cached_tokens) == (19, 15)
    assert device.prefilled == [3]


async def test_the_same_prompt_again_costs_one_decode_step_a_token(engine: Engine, device: FakeDevice) -> None:
    first = await tokens(engine, PROMPT, 4)
    device.prefilled.clear()
    assert await tokens(engine, PROMPT, 4) == first
    assert device.prefilled == []


@pytest.mark.parametrize("same", range(len(PROMPT)))
async def test_a_prompt_that_parts_from_the_cached_one_is_read_from_there_on(
    engine: Engine, device: FakeDevice, same: int
) -> None:
    await tokens(engine, PROMPT, 3)
    device.prefilled.clear()
    other = [*PROMPT[:same], *(token + 1 for token in PROMPT[same:])]
    assert await tokens(engine, other, 5) == continuation(other, 5)
    assert sum(device.prefilled) == len(PROMPT) - 1 - same


async def test_a_prompt_that_ends_within_the_cached_one_is_right(engine: Engine) -> None:
    await tokens(engine, PROMPT, 5)
    assert await tokens(engine, PROMPT[:4], 5) == continuation(PROMPT[:4], 5)


async def test_forgetting_empties_the_cache(engine: Engine) -> None:
    await tokens(engine, PROMPT, 2)
    engine.forget()
    timing = Timing()
    assert [t async for t in engine.generate(PROMPT, 2, timing=timing)] == continuation(PROMPT, 2)
    assert timing.cached_tokens == 0


async def test_a_stop_token_comes_out_and_ends_the_stream(engine: Engine) -> None:
    wanted = continuation(PROMPT, 9)
    assert await tokens(engine, PROMPT, 50, {wanted[8]}) == wanted[: wanted.index(wanted[8]) + 1]


@pytest.mark.parametrize("ahead", [1, 3])
async def test_steps_run_ahead_by_as_many_as_was_asked(device: FakeDevice, ahead: int) -> None:
    await tokens(make_engine(device, ahead), PROMPT, 20)
    assert device.most_in_flight == ahead + 1  # the last chunk of the prompt is not waited for either
    assert device.decoded == 20  # never more than will be used, when that is known


async def test_a_stop_costs_at_most_the_steps_in_flight(device: FakeDevice) -> None:
    wanted = continuation(PROMPT, 9)
    got = await tokens(make_engine(device, 3), PROMPT, 50, {wanted[8]})
    assert device.decoded == len(got) + 2


async def test_what_was_computed_beyond_a_stop_is_forgotten(device: FakeDevice) -> None:
    """The cache holds tokens that nobody saw; the next request writes over them."""
    engine = make_engine(device, 3)
    wanted = continuation(PROMPT, 9)
    answer = await tokens(engine, PROMPT, 50, {wanted[8]})
    assert engine.cached_tokens == len(PROMPT) + len(answer) - 1
    longer = [*PROMPT, *answer, 1, 1, 1]
    assert await tokens(engine, longer, 5) == continuation(longer, 5)


@pytest.mark.parametrize("ids", [[True, 2], [1.5, 2], ["a"], 5, None])
async def test_a_prompt_that_is_no_list_of_whole_numbers_is_refused_by_name(engine: Engine, ids: Any) -> None:
    with pytest.raises(RequestError, match="whole numbers"):
        engine.check(ids)


def test_a_prompt_may_be_an_array(engine: Engine) -> None:
    assert engine.check(np.array([1, 2, 3])) == [1, 2, 3]


async def test_logits_that_are_all_nan_are_an_error_of_the_device(device: FakeDevice) -> None:
    """argmax leaves 0xFFFFFFFF then. What is in the cache is no good either."""
    engine = make_engine(device, 1)
    engine.vocab_size = 1  # every token that the device makes is now outside
    with pytest.raises(DeviceError, match="overflowed"):
        await tokens(engine, [0], 3)
    assert engine.cached_tokens == 0


async def test_nothing_is_in_flight_when_a_request_has_ended(device: FakeDevice) -> None:
    """Freeing the model then would pull buffers from under a running step."""
    wanted = continuation(PROMPT, 9)
    await tokens(make_engine(device, 3), PROMPT, 50, {wanted[8]})
    assert device.in_flight == 0


async def test_a_stream_that_is_closed_early_leaves_nothing_behind(engine: Engine, device: FakeDevice) -> None:
    async with aclosing(engine.generate(PROMPT, 50)) as stream:
        assert await anext(stream) == continuation(PROMPT, 1)[0]
    assert device.in_flight == 0
    assert await tokens(engine, PROMPT, 5) == continuation(PROMPT, 5)


async def test_two_requests_at_once_take_turns(engine: Engine) -> None:
    other = [9, 8, 7, 6, 5, 4]
    both = await asyncio.gather(tokens(engine, PROMPT, 12), tokens(engine, other, 12))
    assert both == [continuation(PROMPT, 12), continuation(other, 12)]


THREE = [PROMPT, [9, 8, 7, 6, 5, 4], [*PROMPT[:6], 1]]


async def test_three_requests_at_once_are_as_right_as_alone(engine: Engine) -> None:
    answers = await asyncio.gather(*(tokens(engine, prompt, 12) for prompt in THREE))
    assert answers == [continuation(prompt, 12) for prompt in THREE]


@pytest.mark.parametrize("left", range(3))
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_request_that_is_cancelled_harms_no_other(
    engine: Engine, device: FakeDevice, left: int, after: int
) -> None:
    """Whether it runs or waits, and however far it is."""
    tasks = [asyncio.create_task(tokens(engine, prompt, 12)) for prompt in THREE]
    while device.decoded < 12 * left * (after > 0) + after:
        await asyncio.sleep(0)
    tasks[left].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(left), asyncio.CancelledError)
    assert results == [continuation(prompt, 12) for i, prompt in enumerate(THREE) if i != left]
    assert device.in_flight == 0


async def test_an_interrupt_is_for_the_running_one_of_three(engine: Engine, device: FakeDevice) -> None:
    tasks = [asyncio.create_task(tokens(engine, prompt, 12)) for prompt in THREE]
    while device.decoded < 16:  # the first has ended, the second runs, the third waits
        await asyncio.sleep(0)
    engine.interrupt()
    first, second, third = await asyncio.gather(*tasks)
    assert [first, third] == [continuation(THREE[0], 12), continuation(THREE[2], 12)]
    assert len(second) < 12 and second == continuation(THREE[1], len(second))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that stands loses its turn as soon as another waits."""
    monkeypatch.setattr("webllm.turns.STANDS_S", 0.0)


async def test_a_stream_that_is_left_and_kept_lets_the_next_request_in(engine: Engine) -> None:
    stream = engine.generate(PROMPT, 50)
    assert await anext(stream) == continuation(PROMPT, 1)[0]
    assert await asyncio.wait_for(tokens(engine, [7, 8], 5), timeout=30) == continuation([7, 8], 5)
    await stream.aclose()


@pytest.mark.usefixtures("impatient")
async def test_a_stream_that_stood_goes_on_where_it_was(engine: Engine, device: FakeDevice) -> None:
    """It reads again what the other has overwritten: the first four tokens are common."""
    stream = engine.generate(PROMPT, 12)
    got = [await anext(stream) for _ in range(5)]
    other = [*PROMPT[:4], 1, 1, 1]
    assert await tokens(engine, other, 5) == continuation(other, 5)
    device.prefilled.clear()
    got += [token async for token in stream]
    assert got == continuation(PROMPT, 12)
    assert sum(device.prefilled) == len(PROMPT) + 5 - 1 - 4
    assert device.in_flight == 0


@pytest.mark.usefixtures("impatient")
async def test_streams_that_are_read_in_turns_are_all_right(engine: Engine) -> None:
    streams = [engine.generate(prompt, 6) for prompt in THREE]
    rounds = [[await anext(stream) for stream in streams] for _ in range(6)]
    assert [list(answer) for answer in zip(*rounds, strict=True)] == [continuation(prompt, 6) for prompt in THREE]
    assert [[token async for token in stream] for stream in streams] == [[], [], []]


@pytest.mark.usefixtures("impatient")
async def test_a_request_within_a_stream_s_loop_does_not_wait_for_ever(engine: Engine) -> None:
    got = []
    async for token in engine.generate(PROMPT, 4):
        got.append(token)
        assert await tokens(engine, [token, 1], 3) == continuation([token, 1], 3)
    assert got == continuation(PROMPT, 4)


@pytest.mark.usefixtures("impatient")
async def test_an_interrupt_of_another_does_not_end_a_stream_that_stands(engine: Engine) -> None:
    stream = engine.generate(PROMPT, 12)
    got = [await anext(stream)]
    async for _ in engine.generate([7, 8], 5):
        engine.interrupt()
    got += [token async for token in stream]
    assert got == continuation(PROMPT, 12)


async def test_a_stream_that_stands_is_the_running_one_while_no_other_came(engine: Engine) -> None:
    stream = engine.generate(PROMPT, 12)
    await anext(stream)
    engine.interrupt()
    assert [token async for token in stream] == []


async def test_a_stream_that_is_read_keeps_its_turn_to_the_end(engine: Engine, device: FakeDevice) -> None:
    """Whoever awaits something else between two tokens is not overtaken: nothing is read twice."""
    waiting: list[asyncio.Task[list[int]]] = []
    async for _ in engine.generate(PROMPT, 12):
        waiting = waiting or [asyncio.create_task(tokens(engine, [7, 8], 5))]
        await asyncio.sleep(0.001)
    assert await waiting[0] == continuation([7, 8], 5)
    assert sum(device.prefilled) == len(PROMPT) - 1 + 1


async def test_an_answer_ends_when_the_context_is_full(engine: Engine) -> None:
    """The last token is made from the last position and needs none of its own."""
    got = await tokens(engine, PROMPT)
    assert len(PROMPT) + len(got) == CONTEXT + 1
    assert got == continuation(PROMPT, len(got))


async def test_a_prompt_that_fills_the_context_gets_one_token(engine: Engine) -> None:
    prompt = [i % VOCAB for i in range(CONTEXT)]
    assert await tokens(engine, prompt) == continuation(prompt, 1)


async def test_an_interrupt_ends_the_answer_after_the_token_at_hand(engine: Engine, device: FakeDevice) -> None:
    got = []
    async for token in engine.generate(PROMPT, 50):
        got.append(token)
        if len(got) == 3:
            engine.interrupt()
    assert got == continuation(PROMPT, 3) and engine.last.interrupted
    assert await tokens(engine, PROMPT, 5) == continuation(PROMPT, 5)
    assert not engine.last.interrupted


async def test_an_interrupt_ends_a_long_prompt_after_the_chunk_at_hand(engine: Engine, device: FakeDevice) -> None:
    """Two chunks may be in flight, so at most one more is read; what was read is used by the next request."""
    prompt = [i % VOCAB for i in range(100)]
    task = asyncio.create_task(tokens(engine, prompt, 5))
    while len(device.prefilled) < 5:
        await asyncio.sleep(0)
    engine.interrupt()
    assert await task == []
    assert len(device.prefilled) <= 6
    assert await tokens(engine, prompt, 5) == continuation(prompt, 5)
    assert sum(device.prefilled) == len(prompt) - 1


async def test_an_interrupt_ends_the_running_request_and_not_the_waiting_one(engine: Engine) -> None:
    async def interrupted() -> list[int]:
        got = []
        async for token in engine.generate(PROMPT, 50):
            got.append(token)
            if len(got) == 2:
                engine.interrupt()
        return got

    first, second = await asyncio.gather(interrupted(), tokens(engine, PROMPT, 6))
    assert first == continuation(PROMPT, 2)
    assert second == continuation(PROMPT, 6)


async def test_an_interrupt_between_requests_changes_nothing(engine: Engine) -> None:
    engine.interrupt()
    assert await tokens(engine, PROMPT, 5) == continuation(PROMPT, 5)


async def test_logits_are_those_of_the_whole_prompt_after_an_interrupt(engine: Engine) -> None:
    """The interrupt was for the request before."""
    engine.interrupt()
    data = await engine.logits(PROMPT)
    scores = struct.unpack(f"<{VOCAB}f", data)
    assert scores.index(max(scores)) == next_token(PROMPT)


async def test_logits_that_are_interrupted_say_so(engine: Engine, device: FakeDevice) -> None:
    """Half a prompt has logits too, but not those that were asked for."""
    task = asyncio.create_task(engine.logits([i % VOCAB for i in range(100)]))
    while len(device.prefilled) < 5:
        await asyncio.sleep(0)
    engine.interrupt()
    with pytest.raises(RequestError, match="interrupted"):
        await task
    assert await tokens(engine, PROMPT, 5) == continuation(PROMPT, 5)


async def test_logits_leave_the_prompt_in_the_cache(engine: Engine, device: FakeDevice) -> None:
    await engine.logits(PROMPT)
    device.prefilled.clear()
    longer = [*PROMPT, 1, 2]
    assert await tokens(engine, longer, 3) == continuation(longer, 3)
    assert device.prefilled == [1]


@pytest.mark.parametrize("failing", range(8))
async def test_after_a_failed_step_the_next_request_is_right(engine: Engine, device: FakeDevice, failing: int) -> None:
    """Submissions 0 to 2 are chunks of the prompt, the others are tokens."""
    device.broken_from = failing
    with pytest.raises(DeviceError, match="had enough"):
        await tokens(engine, PROMPT, 20)
    assert device.in_flight == 0
    device.broken_from = None
    assert await tokens(engine, PROMPT, 5) == continuation(PROMPT, 5)


async def test_after_a_cancelled_task_the_next_request_is_right(engine: Engine, device: FakeDevice) -> None:
    task = asyncio.create_task(tokens(engine, PROMPT, 100))
    while device.decoded < 7:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await tokens(engine, PROMPT, 30) == continuation(PROMPT, 30)


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([], RequestError, "empty"),
        ([0, VOCAB], RequestError, f"token id {VOCAB} .* 0 to {VOCAB - 1}"),
        ([0, -1], RequestError, "token id -1"),
        ([1] * (CONTEXT + 1), ContextFull, f"{CONTEXT + 1} tokens .* holds {CONTEXT}.*context={CONTEXT + 257} or more"),
    ],
    ids=["empty", "too large an id", "a negative id", "longer than the context"],
)
async def test_a_bad_prompt_is_refused_before_any_gpu_work(
    engine: Engine, device: FakeDevice, ids: list[int], error: type[Exception], words: str
) -> None:
    await tokens(engine, PROMPT, 2)
    before, cached = device.submissions, engine.cached_tokens
    with pytest.raises(error, match=words):
        await tokens(engine, ids, 5)
    with pytest.raises(error, match=words):
        await engine.logits(ids)
    assert (device.submissions, engine.cached_tokens) == (before, cached)


class Growing(FakeLoaded):
    """Room for 32 of the 300 positions at first."""

    program = Program((Buffer("k", 32, "state", 320),), {}, context=CONTEXT)


@pytest.fixture(params=[1, 3])
def growing(request: pytest.FixtureRequest, device: FakeDevice) -> Engine:
    device.room = 32
    return Engine(device, Growing(), context=CONTEXT, chunk=CHUNK, vocab_size=VOCAB, ahead=request.param)


async def test_the_cache_doubles_before_a_step_needs_it(growing: Engine, device: FakeDevice) -> None:
    """The device objects to a step that has no room."""
    rooms = []
    async for _ in growing.generate(PROMPT):
        rooms += [device.room] * (device.room not in rooms)
    assert rooms == [32, 64, 128, 256, 320]  # whole pages


async def test_a_long_prompt_gets_its_room_at_once(growing: Engine, device: FakeDevice) -> None:
    prompt = [i % VOCAB for i in range(200)]
    assert await tokens(growing, prompt, 3) == continuation(prompt, 3)
    assert device.room == 256


async def test_a_cache_that_cannot_grow_says_so_and_keeps_what_it_has(growing: Engine, device: FakeDevice) -> None:
    device.most = 64
    got: list[int] = []
    with pytest.raises(OutOfMemory, match=r"memory for 128 positions and has it for 64.*context=64") as caught:
        async for token in growing.generate(PROMPT):
            got.append(token)
    assert got == continuation(PROMPT, len(got)) and caught.value.sizes == {"k": 128}
    device.room, cached = 64, growing.cached_tokens  # what there really is
    assert cached >= 60
    with pytest.raises(OutOfMemory):
        await tokens(growing, [*PROMPT, *got, *range(20)], 2)
    device.room = 64
    assert growing.cached_tokens == cached and device.in_flight == 0
    device.prefilled.clear()
    assert await tokens(growing, [*PROMPT, *got[:40]], 5) == continuation([*PROMPT, *got[:40]], 5)
    assert device.prefilled == []


async def test_timing_tells_reading_from_writing(engine: Engine) -> None:
    timing = Timing()
    assert len([t async for t in engine.generate(PROMPT, 5, timing=timing)]) == 5
    assert (timing.prompt_tokens, timing.cached_tokens, timing.completion_tokens) == (10, 0, 5)
    assert timing.prefill_s > 0 and timing.decode_s > 0
    assert timing.decode_tokens_per_s == pytest.approx(4 / timing.decode_s)


SAMPLED = Sampling(top_k=5, seed=3)


async def test_greedy_steps_leave_the_buffers_of_sampling_alone(engine: Engine, device: FakeDevice) -> None:
    await tokens(engine, PROMPT, 5)
    assert device.written == {}


async def test_a_request_says_how_to_sample_and_only_what_is_needed(engine: Engine, device: FakeDevice) -> None:
    [_ async for _ in engine.generate(PROMPT, 2, sampling=SAMPLED)]
    assert device.written == {"sampling": SAMPLED.record()}
    how = Sampling(presence_penalty=1, logit_bias={7: -2.5}, seed=3)
    [_ async for _ in engine.generate([5, 17, 5], 2, sampling=how)]
    assert struct.unpack(f"<{VOCAB}f", device.written["bias"]) == tuple(-2.5 * (i == 7) for i in range(VOCAB))
    counts = struct.unpack(f"<{VOCAB}I", device.written["counts"])
    assert counts == tuple(IN_PROMPT * (i in (5, 17)) for i in range(VOCAB))


async def test_a_request_without_a_seed_gets_one_and_tells_it(engine: Engine, device: FakeDevice) -> None:
    timings = Timing(), Timing()
    for timing in timings:
        [_ async for _ in engine.generate(PROMPT, 2, timing=timing, sampling=Sampling())]
        assert timing.seed is not None
        assert device.written["sampling"] == Sampling(seed=timing.seed).record()
    assert timings[0].seed != timings[1].seed


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("unsettled", [{0}, {1}, {19}, {4, 5, 6}, set(range(0, 70, 9)), set(range(80))])
async def test_the_answer_goes_on_where_the_host_had_to_choose(
    device: FakeDevice, ahead: int, unsettled: set[int]
) -> None:
    """Places 0 to 79 go round the ring; steps in flight behind an unsettled one must change nothing."""
    device.unsettled = unsettled
    engine, timing = make_engine(device, ahead), Timing()
    got = [t async for t in engine.generate(PROMPT, 80, timing=timing, sampling=SAMPLED)]
    assert got == continuation(PROMPT, 80)
    assert timing.host_choices == len(unsettled)
    assert device.in_flight == 0
    assert await tokens(engine, [*PROMPT, *got, 1], 5) == continuation([*PROMPT, *got, 1], 5)


async def test_what_the_host_chose_is_counted_for_the_penalties(device: FakeDevice) -> None:
    """Only the host's own choices: the fake device does not count. The rest of the words is as it was."""
    device.unsettled = {2, 5, 6}
    how = Sampling(frequency_penalty=0.1, seed=3)
    got = [t async for t in make_engine(device, 3).generate(PROMPT, 9, sampling=how)]
    wanted = [IN_PROMPT * (token in PROMPT) for token in range(VOCAB)]
    for place in (2, 5, 6):
        wanted[got[place]] = wanted[got[place]] & IN_PROMPT | got[: place + 1].count(got[place])
    assert struct.unpack(f"<{VOCAB}I", device.written["counts"]) == tuple(wanted)


async def test_a_chat_samples_as_the_file_says_and_tells_the_seed(engine: Engine, device: FakeDevice) -> None:
    """The file's temperature is no temperature, so it is OpenAI's, 1; an option goes before the file's."""
    answer = await letters(engine).create(ask("Tell"), max_tokens=3)
    seed = answer.usage.extra["seed"]
    assert device.written["sampling"] == Sampling(top_k=20, seed=seed).record()
    answer = await letters(engine).create(ask("Tell"), max_tokens=3, top_k=0, temperature=0.5, seed=seed + 1)
    assert device.written["sampling"] == Sampling(temperature=0.5, seed=seed + 1).record()
    answer = await letters(engine).create(ask("Tell"), max_tokens=3, temperature=0)
    assert "seed" not in answer.usage.extra


def letters(engine: Engine) -> Completions:
    """Chat over a vocabulary of 96 letters and an end token."""
    names = ["<|end|>", *(chr(0x21 + i) for i in range(94)), "Ġ", "Ċ"]
    vocabulary = Vocabulary("bpe", names, merges=["a b"], token_types=[3] + [1] * 96, pre="gpt-2", eos_id=0)
    tokenizer = Tokenizer(vocabulary, rust_encoder)
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", tokenizer.special_tokens)
    encode = partial(encode_chat, template, tokenizer)
    return Completions("fake", engine, tokenizer, encode, frozenset({0}), {"top_k": 20, "temperature": -1.0})


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_a_chat_ends_at_the_end_token_and_does_not_show_it(engine: Engine) -> None:
    """A letter's id is its code less 0x20; one of these questions has an answer of fewer than 99 letters."""
    chat = letters(engine)
    answers = {letter: continuation([ord(letter) - 0x20], 99) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    text, ids = next(item for item in answers.items() if 0 in item[1])
    answer = await chat.create(ask(text))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == ids.index(0) + 1
    assert len(answer.choices[0].message.content) == ids.index(0)


async def test_a_chat_gives_its_token_ids_when_asked(engine: Engine) -> None:
    """The same whole and streamed, the stop token included, the prompt's ids once."""
    chat, prompt = letters(engine), [ord(letter) - 0x20 for letter in "Tell"]
    ids = continuation(prompt, 5)
    options = {"max_tokens": 5, "return_token_ids": True}
    whole = await chat.create(ask("Tell"), **options)
    assert (whole.prompt_token_ids, whole.choices[0].token_ids) == (prompt, ids)
    chunks = [chunk async for chunk in await chat.create(ask("Tell"), stream=True, **options)]
    assert [token for chunk in chunks for token in chunk.choices[0].token_ids] == ids
    assert [chunk.prompt_token_ids for chunk in chunks] == [prompt] + [None] * (len(chunks) - 1)
    assert (await chat.create(ask("Tell"), max_tokens=5)).choices[0].token_ids is None


async def test_an_interrupted_chat_says_so_although_another_waits(engine: Engine) -> None:
    """Stops hold every letter back, so the first has a letter to show after the other has begun."""
    chat = letters(engine)
    stops = [f"{chr(0x20 + i)}\0" for i in range(95)] + ["\n\0"]

    async def interrupted() -> str | None:
        reason = None
        async for chunk in await chat.create(ask("Tell"), stream=True, max_tokens=50, stop=stops):
            if chunk.choices[0].delta.content:
                engine.interrupt()
                await asyncio.sleep(0.001)
            reason = chunk.choices[0].finish_reason
        return reason

    first, second = await asyncio.gather(interrupted(), chat.create(ask("Then"), max_tokens=5))
    assert first == "abort"
    assert second.choices[0].finish_reason == "length"


async def test_a_stream_that_is_given_up_lets_the_next_request_in(engine: Engine) -> None:
    chat = letters(engine)
    stream = await chat.create(ask("Tell"), stream=True, max_tokens=50)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.aclose()
    assert await asyncio.wait_for(chat.create(ask("Then"), max_tokens=5), timeout=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"messages": []}, "one at least"),
        ({"messages": ask("x" * (CONTEXT + 1))}, "context"),
        ({"messages": ask("Hi"), "max_tokens": 0}, "max_tokens"),
        ({"messages": ask("Hi"), "temperature": 2.1}, "temperature must be a number from 0 to 2, got 2.1"),
        ({"messages": ask("Hi"), "logit_bias": {VOCAB: 1}}, f"token id {VOCAB} is outside the vocabulary"),
        ({"messages": ask("Hi"), "stop": [1]}, "stop"),
        ({"messages": ask("Hi"), "best_of": 2}, "unknown option best_of"),
    ],
    ids=["no messages", "too long", "no tokens", "temperature", "bias", "a stop that is no text", "an unknown option"],
)
async def test_a_bad_chat_request_is_refused_before_any_gpu_work(
    engine: Engine, device: FakeDevice, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        await letters(engine).create(**options)
    assert device.submissions == 0

"""The inference loop: prefill, decode, and the KV cache's contents. It sees token ids, never text.

Plans are recorded once (`program`) and replayed here. The device finds each step's token on the GPU,
so several steps are in flight while the host looks at the oldest; what was computed beyond a stop is
forgotten by not counting it.
"""

from __future__ import annotations

import asyncio
import struct
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import takewhile
from operator import index
from typing import Any

from webllm.device import Device, Loaded
from webllm.errors import ContextFull, DeviceError, OutOfMemory, RequestError
from webllm.ops import RING
from webllm.pace import Pace
from webllm.program import cache_sizes, decode_plan, first_room, prefill_plan, step_bytes
from webllm.sampling import GREEDY, HOST, IN_PROMPT, Sampling
from webllm.turns import Turn, Turns


@dataclass
class Timing:
    """What one request took. Seconds; prompt tokens found in the cache count as `cached`."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_s: float = 0.0  # until the first token
    decode_s: float = 0.0  # from the first token on
    seed: int | None = None  # of the noise; None where there was none
    interrupted: bool = False  # whether `interrupt()` ended it
    host_choices: int = 0  # tokens that the candidates on the GPU did not settle: the host read all scores

    @property
    def prefill_tokens_per_s(self) -> float:
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.completion_tokens - 1) / self.decode_s if self.decode_s else 0.0


class Engine:
    """One model on one device, one request at a time; others wait their turn.

    context: positions the cache holds at most. chunk: the most rows of a prefill step. ahead: decode steps in flight.
    """

    def __init__(
        self, device: Device, loaded: Loaded, *, context: int, chunk: int, vocab_size: int, ahead: int
    ) -> None:
        self.context = context
        self.vocab_size = vocab_size
        self._chunk = chunk
        self._ahead = min(ahead, RING)
        self.turns = Turns()
        self.last = Timing()  # of the newest request that had its turn
        self.attach(device, loaded)

    def attach(self, device: Device, loaded: Loaded) -> None:
        """Go on with this device and the same model as it is loaded there; its cache is empty."""
        self._device = device
        self._loaded = loaded
        self._room = first_room(loaded.program)  # positions that the cache has memory for
        self._pace = Pace(self._chunk)
        self._cached: list[int] = []  # tokens whose K and V are in the cache

    async def generate(
        self,
        ids: Sequence[int],
        max_tokens: int | None = None,
        stop_ids: Collection[int] = (),
        timing: Timing | None = None,
        sampling: Sampling = GREEDY,
    ) -> AsyncGenerator[int, None]:
        """Yield the tokens that follow, up to and including a stop id; the likeliest ones, unless `sampling` differs.

        Ends after `max_tokens`, when the context is full, or after `interrupt()`. Raises
        `ContextFull` or `RequestError` before any GPU work. A stream that is left standing lets other
        requests in; asked again, it goes on where it was.
        """
        ids = self.check(ids, sampling)
        timing = timing or Timing()
        if not sampling.greedy:
            sampling = sampling.seeded()
            timing.seed = sampling.seed
        room = self.context - len(ids) + 1
        count = room if max_tokens is None else min(max_tokens, room)
        answer: list[int] = []
        async with Turn(self.turns) as turn:
            self.last = timing
            started = time.perf_counter()
            while len(answer) < count and not turn.interrupted:  # again where the cache was another's meanwhile
                async with aclosing(self._tokens(ids, answer, count, sampling, timing, turn)) as tokens:
                    async for token in tokens:
                        answer.append(token)
                        now = time.perf_counter()
                        if timing.completion_tokens == 0:
                            timing.prefill_s, started = now - started, now
                        timing.completion_tokens += 1
                        timing.decode_s = now - started
                        turn.stand()
                        yield token
                        timing.interrupted = turn.interrupted
                        if token in stop_ids or len(answer) == count or turn.interrupted:
                            return
                        if await turn.resume():
                            break
            timing.interrupted = turn.interrupted

    async def logits(self, ids: Sequence[int]) -> bytes:
        """Logits after the last of `ids`: f32[vocab_size]. Raises as `generate` does, and when it is interrupted."""
        ids = self.check(ids)
        async with Turn(self.turns) as turn:
            async with _InFlight() as steps:
                await self._prefill(ids, Timing(), steps, turn)
                await self._settle(steps, left=0)
            if turn.interrupted:
                raise RequestError("interrupted before the whole prompt was read, so there are no logits of it")
            await self._step(ids[-1])
            return await self._device.read(self._loaded, "logits", 4 * self.vocab_size)

    def interrupt(self, only: Collection[asyncio.Task[Any] | None] | None = None) -> None:
        """End the running request: after the token, or the chunk of the prompt, that is being worked on.

        only: if it is one of these tasks that asked for it.
        """
        self.turns.interrupt(only)

    @property
    def cached_tokens(self) -> int:
        """Tokens whose K and V the cache holds."""
        return len(self._cached)

    def forget(self) -> None:
        """Start the next request from an empty cache; its memory stays."""
        self._cached = []

    def assume(self, count: int) -> None:
        """Take the cache as it is for that of `count` tokens 0, for measuring without a prefill."""
        self._cached = [0] * count

    def check(self, ids: Sequence[int], sampling: Sampling = GREEDY) -> list[int]:
        """The ids as a list, or `RequestError` / `ContextFull` if they cannot be a prompt here, or be sampled so."""
        ids = _whole_numbers(ids)
        if not ids:
            raise RequestError("the prompt is empty: wanted at least one token id")
        bad = [i for i in (*ids, *sampling.logit_bias) if not 0 <= i < self.vocab_size]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary, which has ids 0 to {self.vocab_size - 1}")
        if len(ids) > self.context:
            raise ContextFull(
                f"the prompt has {len(ids)} tokens and the context holds {self.context}. Load the model with "
                f"context={len(ids) + 256} or more, or shorten the prompt"
            )
        return ids

    async def _tokens(
        self, prompt: list[int], answer: Sequence[int], count: int, sampling: Sampling, timing: Timing, turn: Turn
    ) -> AsyncGenerator[int, None]:
        """Bring the cache to the prompt and what there is of the answer, and yield the rest of it."""
        async with _InFlight() as steps:
            await self._prefill([*prompt, *answer], Timing() if answer else timing, steps, turn)
            if turn.interrupted:
                return
            async with aclosing(self._decode(prompt, tuple(answer), count, steps, sampling, timing)) as tokens:
                async for token in tokens:
                    yield token

    async def _prefill(self, ids: list[int], timing: Timing, steps: _InFlight, turn: Turn) -> None:
        """Bring the cache to ids[:-1]; the last token goes through decode, which has the LM head.

        The last chunk is left in flight: decode may follow without waiting.
        """
        await self._reserve(len(ids))
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._cached, ids[:-1], strict=False)))
        self._cached = ids[:common]
        timing.prompt_tokens, timing.cached_tokens = len(ids), common
        start = common
        while start < len(ids) - 1:
            chunk = ids[start : min(start + self._pace.rows, len(ids) - 1)]
            records = [(token, start + i) for i, token in enumerate(chunk)]
            self._device.write(self._loaded, "step", step_bytes(records))
            start += len(chunk)
            plan = prefill_plan(self._loaded.program, len(chunk))
            steps.add(self._device.submit(self._loaded, [plan], len(chunk), start), chunk)
            # How fast this device is has to be known before it gets a second chunk.
            await self._settle(steps, left=1 if self._pace.known or start == len(ids) - 1 else 0)
            if turn.interrupted:
                await self._settle(steps, left=0)
                return

    async def _settle(self, steps: _InFlight, left: int) -> None:
        """Wait for steps until `left` are in flight; the tokens that prefill did are in the cache then."""
        while len(steps) > left:
            _, done = await steps.oldest()
            self._cached += done
            if done:
                self._pace.took(len(done), steps.seconds)

    async def _reserve(self, positions: int) -> None:
        """Let the cache grow where it has no memory for so many positions: it doubles.

        Steps in flight need not be waited for: the queue copies after them. Raises `OutOfMemory`; the cache
        is then as it was.
        """
        if positions <= self._room:
            return
        room = self._room
        while room < positions:
            room *= 2
        room = min(room, self.context)
        try:
            await self._device.grow(self._loaded, cache_sizes(self._loaded.program, room))
        except OutOfMemory as error:
            raise OutOfMemory(
                f"the conversation needs memory for {room} positions and has it for {self._room}: {error}. What is in "
                f"the cache stays; start a shorter conversation, or load with context={self._room}",
                sizes=error.sizes,
            ) from error
        self._room = room

    async def _decode(
        self,
        prompt: list[int],
        answer: Sequence[int],
        count: int,
        steps: _InFlight,
        sampling: Sampling,
        timing: Timing,
    ) -> AsyncGenerator[int, None]:
        """Feed the last token of what there is, and yield what follows until the answer has `count` tokens."""
        token, submitted = [*prompt, *answer][-1], len(answer)
        self._device.write(self._loaded, "step", step_bytes([(token, len(prompt) + submitted - 1)], submitted))
        tail = self._prepare(sampling, prompt, answer)
        for number in range(submitted, count):
            while submitted < min(count, number + self._ahead):
                length = len(prompt) + submitted
                await self._reserve(length)
                steps.add(self._device.submit(self._loaded, [decode_plan(length), tail], 1, length))
                submitted += 1
            await self._settle(steps, left=submitted - number)
            result, _ = await steps.oldest()
            self._cached.append(token)
            (token,) = struct.unpack_from("<I", result, 4 * (number % RING))
            if token == HOST:
                await self._settle(steps, left=0)  # they have changed nothing
                token = await self._choose(sampling, prompt, number)
                submitted, timing.host_choices = number + 1, timing.host_choices + 1
            if token >= self.vocab_size:  # NONE: every logit is NaN
                self.forget()
                raise DeviceError(f"the model's numbers overflowed after {number} tokens; load it with kv='f32'")
            yield token

    def _prepare(self, sampling: Sampling, prompt: list[int], answer: Sequence[int]) -> str:
        """Tell the GPU how to choose tokens; returns the plan that does. What it will not look at is left as it is."""
        if sampling.greedy:
            return "greedy"
        self._device.write(self._loaded, "sampling", sampling.record())
        if sampling.logit_bias:
            bias = array("f", bytes(4 * self.vocab_size))
            for token, value in sampling.logit_bias.items():
                bias[token] = value
            self._device.write(self._loaded, "bias", bias.tobytes())
        if sampling.penalises:
            counts = array("I", bytes(4 * self.vocab_size))
            for token in prompt:
                counts[token] = IN_PROMPT
            for token in answer:
                counts[token] += 1
            self._device.write(self._loaded, "counts", counts.tobytes())
        return "sample"

    async def _choose(self, sampling: Sampling, prompt: list[int], place: int) -> int:
        """Choose the token for `place` in the answer on the host, and put the GPU where it would have been after it."""
        scores = await self._device.read(self._loaded, "logits", 4 * self.vocab_size)
        token = sampling.draw(scores, place)
        self._device.write(self._loaded, "sampling", sampling.record())
        self._device.write(self._loaded, "step", step_bytes([(token, len(prompt) + place)], place + 1))
        if sampling.penalises:
            times = [*self._cached[len(prompt) :], token].count(token)
            word = times | (IN_PROMPT if token in prompt else 0)
            self._device.write(self._loaded, "counts", word.to_bytes(4, "little"), 4 * token)
        return token

    async def _step(self, token: int) -> None:
        """One decode step whose token is not used."""
        length = len(self._cached) + 1
        await self._reserve(length)
        self._device.write(self._loaded, "step", step_bytes([(token, length - 1)]))
        await self._device.submit(self._loaded, [decode_plan(length)], 1, length)
        self._cached.append(token)


def _whole_numbers(ids: Iterable[int]) -> list[int]:
    """The ids as plain ints, also from numpy; `RequestError` for anything that is no list of whole numbers."""
    try:
        given = list(ids)
        if any(isinstance(i, bool) for i in given):
            raise TypeError("got a bool")
        return [index(i) for i in given]
    except TypeError as error:
        raise RequestError(f"a prompt is a list of token ids, whole numbers: {error}") from None


class _InFlight:
    """Steps that were submitted, oldest first. On the way out those nobody waited for are waited for.

    A failure among these shows in the step that is awaited, or in the next request. seconds: what the
    last one that was waited for took, from its start or from the end of the one before it.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[Awaitable[bytes], list[int], float]] = deque()
        self._ended = 0.0
        self.seconds = 0.0

    def add(self, step: Awaitable[bytes], tokens: Sequence[int] = ()) -> None:
        self._steps.append((step, list(tokens), time.perf_counter()))

    async def oldest(self) -> tuple[bytes, list[int]]:
        """The oldest step's result, and the tokens that were added with it."""
        step, tokens, started = self._steps.popleft()
        result = await step
        began, self._ended = max(started, self._ended), time.perf_counter()
        self.seconds = self._ended - began
        return result, tokens

    def __len__(self) -> int:
        return len(self._steps)

    async def __aenter__(self) -> _InFlight:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(step for step, *_ in self._steps), return_exceptions=True)

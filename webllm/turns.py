"""Who may use the engine: one request at a time, first come, first served.

A stream keeps its turn between two tokens, so that requests at once do not overwrite each other's cache at every
token. A stream may also be left with `break` and kept in a variable, and nobody can tell that from a slow reader. So
one that has not been asked for its next token for `STANDS_S` seconds while another request waits loses its turn, and
nothing else: when it is asked again, it takes its place at the end of the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any

STANDS_S = 0.5  # long for whoever shows tokens as they come, short for whoever waits


class Turns:
    """The queue of an engine."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._newest = Turn(self)  # the last that had its turn: the running one, if any is

    def interrupt(self, only: Collection[asyncio.Task[Any] | None] | None = None) -> None:
        """Tell the running request to end, if one of these tasks made it; those that wait are not meant."""
        if only is None or self._newest.task in only:
            self._newest.interrupted = True

    async def take(self, turn: Turn) -> None:
        """Wait until it is this request's turn."""
        watch = asyncio.ensure_future(self._watch()) if self._lock.locked() else None
        try:
            await self._lock.acquire()
        finally:
            if watch is not None:
                watch.cancel()
        self._newest = turn

    def give_back(self) -> None:
        """Let the next in."""
        self._lock.release()

    async def _watch(self) -> None:
        """While a request waits: end the turn of a stream that stands."""
        while True:
            await asyncio.sleep(STANDS_S)
            self._newest.pass_on_if_it_stands()


class Turn:
    """One request's use of the engine.

    async with Turn(turns) as turn:
        ...
        turn.stand()
        yield token
        if await turn.resume(): ...  # the engine was another's meanwhile; now it is ours again
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.task: asyncio.Task[Any] | None = None  # that uses the engine
        self._held = False
        self._stands_since: float | None = None
        self.interrupted = False

    async def __aenter__(self) -> Turn:
        await self._take()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._give_back()

    def stand(self) -> None:
        """From now on this request waits for whoever reads its stream."""
        self._stands_since = time.monotonic()

    async def resume(self) -> bool:
        """The reader is back: wait until the turn is ours again. True if others may have had the engine meanwhile."""
        self._stands_since = None
        lost = not self._held
        if lost:
            await self._take()
        return lost

    def pass_on_if_it_stands(self) -> None:
        """End this turn if its reader has been away for too long."""
        if self._stands_since is not None and time.monotonic() - self._stands_since >= STANDS_S:
            self._give_back()

    async def _take(self) -> None:
        self.task = asyncio.current_task()
        await self._turns.take(self)
        self._held = True

    def _give_back(self) -> None:
        if self._held:
            self._held = False
            self._turns.give_back()

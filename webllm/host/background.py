"""Blocking calls, natively: coroutines run on one event loop in a thread of its own.

So they work where a loop runs already, as in a notebook, and everything that belongs to a model stays on one loop.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_starting = threading.Lock()
_LISTEN_S = 0.1  # on Windows a thread that waits hears of Ctrl-C only between two waits


class BlockingCall:
    """See `host.BlockingCall`."""

    def __init__(self) -> None:
        self._posted: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def post(self, action: Callable[[], object]) -> None:
        """See `host.BlockingCall.post`."""
        self._posted.put(action)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """See `host.BlockingCall.wait`."""
        future = start(work)
        future.add_done_callback(lambda _: self.post(_nothing))
        try:
            while not (future.done() and self._posted.empty()):
                with suppress(Empty):
                    self._posted.get(timeout=_LISTEN_S)()
        except BaseException:
            future.cancel()
            raise
        return future.result()


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """See `Host.start`."""
    loop = _loop()
    if not loop.is_closed():
        return asyncio.run_coroutine_threadsafe(work, loop)
    work.close()  # the program is ending
    never: Future[T] = Future()
    never.cancel()
    return never


def _nothing() -> None:
    """Posted to wake the one who waits."""


def _loop() -> asyncio.AbstractEventLoop:
    """The one loop, however many threads ask for it at once."""
    with _starting:
        return _start_loop()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    """Started when it is first needed. At the end of the program what still runs on it is cancelled."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), ended))
        await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="webllm", daemon=True)
    thread.start()
    loop, ended = started.result()

    def end() -> None:
        loop.call_soon_threadsafe(ended.set)
        thread.join()

    atexit.register(end)
    return loop

"""Timestamps at the beginning and the end of compute passes, natively."""

from __future__ import annotations

import sys
from array import array
from types import ModuleType, TracebackType
from typing import Any


class Stamps:
    """Two timestamps each of so many passes of one submission, freed at the end of the block."""

    def __init__(self, api: ModuleType, device: Any, passes: int) -> None:
        usage = api.BufferUsage
        self._count = 2 * passes
        self._queries = device.create_query_set(type="timestamp", count=self._count)
        self._ticks = device.create_buffer(size=8 * self._count, usage=usage.QUERY_RESOLVE | usage.COPY_SRC)

    def of_pass(self, number: int) -> dict[str, Any]:
        """What `begin_compute_pass` wants."""
        begin, end = 2 * number, 2 * number + 1
        return {
            "query_set": self._queries,
            "beginning_of_pass_write_index": begin,
            "end_of_pass_write_index": end,
        }

    def resolve(self, encoder: Any) -> None:
        """Encode, after the passes, what makes their timestamps readable."""
        encoder.resolve_query_set(self._queries, 0, self._count, self._ticks, 0)

    def seconds(self, queue: Any) -> list[float]:
        """What each pass took. Waits for them."""
        ticks = array("Q", bytes(queue.read_buffer(self._ticks)))
        each = zip(ticks[::2], ticks[1::2], strict=True)
        return [(end - begin) * _period(queue) / 1e9 for begin, end in each]

    def __enter__(self) -> Stamps:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ticks.destroy()
        self._queries.destroy()


def _period(queue: Any) -> float:
    """Nanoseconds of a tick. wgpu-native gives the driver's ticks, and Dawn nanoseconds."""
    library = sys.modules[type(queue).__module__].lib
    period = getattr(library, "wgpuQueueGetTimestampPeriod", None)
    return 1.0 if period is None else float(period(queue._internal))

"""How many rows a prefill step takes, so that none takes long on this device.

A step cannot be interrupted, and a browser or driver ends one that takes about two seconds. How fast a device is
shows when it works: the first step is small, those after it are as large as the measured speed allows.
"""

from __future__ import annotations

from webllm.ops import TILE

BUDGET_S = 1.0  # of a step: half of what watchdogs allow, and soon enough for an interrupt


class Pace:
    """The rows of the next prefill step. most: what the program has room for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tile_s: float | None = None

    @property
    def known(self) -> bool:
        """Whether a step has been measured yet."""
        return self._tile_s is not None

    @property
    def rows(self) -> int:
        """Whole tiles that take BUDGET_S at most, but one at least."""
        if not self._tile_s:
            return min(TILE, self._most)
        return max(min(TILE, self._most), min(self._most, int(BUDGET_S / self._tile_s) * TILE))

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a step of at least a tile; few rows are another plan, or cost less than a tile."""
        if rows >= TILE:
            self._tile_s = max(seconds, 1e-6) / (rows // TILE)

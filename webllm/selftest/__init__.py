"""Every kernel on this GPU, in every variant that it can run: is it right, and how fast?

`webllm doctor` runs all of it; `open_tested` runs the few cases that decide whether a device's optional features
may be used, each time a model is loaded.
"""

from __future__ import annotations

from webllm.selftest.run import Result, open_tested, optional, selftest, try_case, worst
from webllm.selftest.speed import speeds

__all__ = ["Result", "open_tested", "optional", "selftest", "speeds", "try_case", "worst"]

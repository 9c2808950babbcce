"""Every kernel on this GPU, in every variant that it can run: is it right, and how fast?

`webllm doctor` runs all of it; `limits_of` runs the few cases that decide whether a device's optional features
may be used, each time a model is loaded.
"""

from __future__ import annotations

from webllm.selftest.run import Result, limits_of, optional, selftest, try_case
from webllm.selftest.speed import speeds

__all__ = ["Result", "limits_of", "optional", "selftest", "speeds", "try_case"]

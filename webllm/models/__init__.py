"""Model architectures: one file each, named after the checkpoint's `model_type`. What they share begins with a `_`.

A module has a class `Model`, which is `webllm.models.llama.Model` but for what the architecture does differently.
"""

from __future__ import annotations

from importlib.resources import files


def known() -> list[str]:
    """Names of the architectures there are."""
    names = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_"))

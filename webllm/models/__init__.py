"""Model architectures: one file each, named after the checkpoint's `model_type`.

A module has `config_of(config)`, `inverse_frequencies(config, factors)`, `decode(...)` and `prefill(...)`.
"""

from __future__ import annotations

from importlib.resources import files


def known() -> list[str]:
    """Names of the architectures there are."""
    names = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_"))

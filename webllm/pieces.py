"""The hashes by which a page checks a model's file piece by piece as it comes; see browser_shell/kept.js."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

PIECE_BYTES = 8 << 20


def hashed(path: Path, piece_bytes: int = PIECE_BYTES) -> dict[str, Any]:
    """What site.json says of a file beside its address: {"bytes", "sha256", "piece_bytes", "pieces"}; hashes in hex.

    hashed(Path("model.gguf"))["pieces"][0]  # SHA-256 of the first 8 MiB
    """
    whole, pieces = hashlib.sha256(), []
    with path.open("rb") as file:
        while piece := file.read(piece_bytes):
            whole.update(piece)
            pieces.append(hashlib.sha256(piece).hexdigest())
        size = file.tell()
    return {"bytes": size, "sha256": whole.hexdigest(), "piece_bytes": piece_bytes, "pieces": pieces}

"""Hashes of a file's pieces, by which pages check what comes."""

import hashlib

from webllm.pieces import hashed


def test_every_piece_and_the_whole_have_a_hash_and_the_last_piece_is_shorter(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"0123456789")
    parts = [b"0123", b"4567", b"89"]
    assert hashed(path, 4) == {
        "bytes": 10,
        "sha256": hashlib.sha256(b"0123456789").hexdigest(),
        "piece_bytes": 4,
        "pieces": [hashlib.sha256(part).hexdigest() for part in parts],
    }

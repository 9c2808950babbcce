"""What the bytes of a tensor mean: GGUF's block types in plain Python, value by value.

Slow on purpose: a reference for self-tests and for a look at a few rows, the same in every Python. The layouts
are those of ggml (github.com/ggml-org/ggml).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator


def values(data: bytes, dtype: str) -> list[float]:
    """The numbers that `data` holds, whole blocks of `dtype`. Raises `KeyError` for a type that is not known.

    values(struct.pack("<e", 0.5) + bytes(16), "Q4_0")  # [-4.0] * 32
    """
    size, decode = BLOCKS[dtype]
    return [value for at in range(0, len(data), size) for value in decode(data[at : at + size])]


def _half(data: bytes, at: int) -> float:
    return float(struct.unpack_from("<e", data, at)[0])


def _low_high(data: bytes) -> list[int]:
    """The low nibbles of all bytes, then the high ones."""
    return [byte & 15 for byte in data] + [byte >> 4 for byte in data]


def _fifth_bits(data: bytes) -> list[int]:
    word = int.from_bytes(data, "little")
    return [(word >> i & 1) << 4 for i in range(32)]


def _q4_0(b: bytes) -> Iterator[float]:
    d = _half(b, 0)
    return (d * (q - 8) for q in _low_high(b[2:]))


def _q4_1(b: bytes) -> Iterator[float]:
    d, m = _half(b, 0), _half(b, 2)
    return (d * q + m for q in _low_high(b[4:]))


def _q5_0(b: bytes) -> Iterator[float]:
    d = _half(b, 0)
    return (d * ((q | h) - 16) for q, h in zip(_low_high(b[6:]), _fifth_bits(b[2:6]), strict=True))


def _q5_1(b: bytes) -> Iterator[float]:
    d, m = _half(b, 0), _half(b, 2)
    return (d * (q | h) + m for q, h in zip(_low_high(b[8:]), _fifth_bits(b[4:8]), strict=True))


def _q8_0(b: bytes) -> Iterator[float]:
    d = _half(b, 0)
    return (d * q for q in struct.unpack("<32b", b[2:]))


def _scales_and_minima(b: bytes) -> list[tuple[int, int]]:
    """The eight pairs of 6 bits that Q4_K and Q5_K keep in 12 bytes."""
    first = [(b[i] & 63, b[i + 4] & 63) for i in range(4)]
    last = [((b[i + 8] & 15) | (b[i] >> 6) << 4, (b[i + 8] >> 4) | (b[i + 4] >> 6) << 4) for i in range(4)]
    return first + last


def _with_minima(b: bytes, quants: list[list[int]]) -> Iterator[float]:
    """d * scale * q - dmin * minimum; a list of 32 quants for each of the eight pairs."""
    d, dmin = _half(b, 0), _half(b, 2)
    for (scale, minimum), group in zip(_scales_and_minima(b[4:16]), quants, strict=True):
        yield from (d * scale * q - dmin * minimum for q in group)


def _q4_k(b: bytes) -> Iterator[float]:
    nibbles = [_low_high(b[at : at + 32]) for at in range(16, 144, 32)]
    return _with_minima(b, [half for q in nibbles for half in (q[:32], q[32:])])


def _q5_k(b: bytes) -> Iterator[float]:
    nibbles = [_low_high(b[at : at + 32]) for at in range(48, 176, 32)]
    groups = [half for q in nibbles for half in (q[:32], q[32:])]
    return _with_minima(b, [[q | (b[16 + i] >> n & 1) << 4 for i, q in enumerate(g)] for n, g in enumerate(groups)])


def _q6_k(b: bytes) -> Iterator[float]:
    d, scales = _half(b, 208), struct.unpack("<16b", b[192:208])
    for half in range(2):
        low, high = b[64 * half : 64 * half + 64], b[128 + 32 * half : 160 + 32 * half]
        for i in range(128):
            nibble = low[i % 64] >> (4 * (i // 64)) & 15
            q = nibble | (high[i % 32] >> (2 * (i // 32)) & 3) << 4
            yield d * scales[8 * half + i // 16] * (q - 32)


def _q2_k(b: bytes) -> Iterator[float]:
    d, dmin = _half(b, 80), _half(b, 82)
    for i in range(256):
        q = b[16 + 32 * (i // 128) + i % 32] >> (2 * (i % 128 // 32)) & 3
        yield d * (b[i // 16] & 15) * q - dmin * (b[i // 16] >> 4)


def _q3_k(b: bytes) -> Iterator[float]:
    d, packed = _half(b, 108), b[96:108]
    for i in range(256):
        n = i // 16
        scale = (packed[n % 8] >> (4 * (n // 8)) & 15) | (packed[8 + n % 4] >> (2 * (n // 4)) & 3) << 4
        low = b[32 + 32 * (i // 128) + i % 32] >> (2 * (i % 128 // 32)) & 3
        yield d * (scale - 32) * (low - (0 if b[i % 32] >> (i // 32) & 1 else 4))


_NON_LINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)


def _iq4_nl(b: bytes) -> Iterator[float]:
    d = _half(b, 0)
    return (d * _NON_LINEAR[q] for q in _low_high(b[2:]))


def _iq4_xs(b: bytes) -> Iterator[float]:
    d, high = _half(b, 0), int.from_bytes(b[2:4], "little")
    for j in range(8):
        scale = (b[4 + j // 2] >> (4 * (j % 2)) & 15) | (high >> (2 * j) & 3) << 4
        yield from (d * (scale - 32) * _NON_LINEAR[q] for q in _low_high(b[8 + 16 * j : 24 + 16 * j]))


def _mxfp4(b: bytes) -> Iterator[float]:
    d = 2.0 ** (b[0] - 127)
    return (d * _E2M1[q] for q in _low_high(b[1:]))


def _f32(b: bytes) -> Iterator[float]:
    yield struct.unpack("<f", b)[0]


def _f16(b: bytes) -> Iterator[float]:
    yield _half(b, 0)


def _bf16(b: bytes) -> Iterator[float]:
    yield struct.unpack("<f", b"\0\0" + b)[0]


# type -> (bytes of a block, what they mean)
BLOCKS: dict[str, tuple[int, Callable[[bytes], Iterator[float]]]] = {
    "F32": (4, _f32),
    "F16": (2, _f16),
    "BF16": (2, _bf16),
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q2_K": (84, _q2_k),
    "Q3_K": (110, _q3_k),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
    "IQ4_NL": (18, _iq4_nl),
    "IQ4_XS": (136, _iq4_xs),
    "MXFP4": (17, _mxfp4),
}

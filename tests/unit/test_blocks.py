"""Block types in plain Python, against the `gguf` package."""

import gguf
import numpy as np
import pytest

from webllm.checkpoint.blocks import BLOCKS, values

# Where the halves of a block lie: random bits there would often be no number.
HALVES = {
    "F16": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}


@pytest.mark.parametrize("dtype", BLOCKS)
def test_values_are_those_of_the_gguf_package(dtype):
    rng = np.random.default_rng(3)
    size, _ = BLOCKS[dtype]
    blocks = rng.integers(0, 256, (5, size), np.uint8)
    if dtype in ("F32", "BF16"):
        blocks[:, -1] = 0x3F  # neither infinite nor NaN
    for at in HALVES.get(dtype, []):
        blocks[:, at : at + 2] = rng.standard_normal((5, 1)).astype(np.float16).view(np.uint8)
    if dtype == "MXFP4":
        blocks[:, 0] = [2, 100, 127, 130, 200]  # exponents; 0 and 1 are subnormal in f32
    wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[dtype]).ravel()
    assert np.allclose(values(blocks.tobytes(), dtype), wanted, rtol=1e-6, atol=0 if dtype in ("F32", "F16") else 1e-5)

"""What follows from a device's limits."""

from __future__ import annotations

from itertools import product

import pytest

from webllm.limits import Limits


@pytest.mark.parametrize("workgroups", [1, 256])
@pytest.mark.parametrize("threads", [16, 32, 64, 256, 384, 1024])
def test_every_workgroup_of_a_matvec_has_whole_threads_a_row(threads: int, workgroups: int) -> None:
    """Fewer threads than rows would never end, and halving sums need a power of two."""
    limits = Limits(threads=threads, workgroups=workgroups)
    sizes = [1, 12, 48, 320, 896, 4096, 12288, 152064]
    for rows, cols, row, least in product(sizes, [32, 64, 896, 14336], ["stored", "f32", "int8", "packed"], [4, 16]):
        per, count = limits.matvec_shape(rows, cols, row, least)
        assert least <= per <= count <= threads and count % per == 0 and count.bit_count() == 1

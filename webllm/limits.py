"""What a device allows, and every choice among kernels and their shapes that follows from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

MatvecKey = tuple[str, int, int]  # kernel with its variants, rows and columns of the weight
Shape = tuple[int, int]  # rows and threads of a matvec workgroup

MATVEC_ROWS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Limits:
    """What the device allows; the defaults are what every WebGPU device has. Sizes in bytes.

    Every choice among kernels that depends on the device is made from these. subgroups, f16, int8, matrix: whether
    kernels may use the features `subgroups` and `shader-f16`, activations of 8 bits (`packed_4x8_integer_dot_product`),
    and the GPU's matrix units (`chromium-experimental-subgroup-matrix`), which take halves.
    integer_dots: whether the GPU multiplies those by one instruction, without which matmul is faster with floats.
    tuned: shapes of matvecs that were measured on this device (`webllm.tune`).
    """

    storage_binding: int = 128 << 20
    workgroup_storage: int = 16 << 10
    threads: int = 256  # of a matvec workgroup
    workgroups: int = 256  # that keep the whole GPU busy
    tiles: int = 1024  # of 64 x 64 outputs, whose workgroups are smaller, for the same
    small: bool = False  # whether matmul has small tiles, of floats, in registers alone
    subgroups: bool = False
    f16: bool = False
    int8: bool = False
    matrix: bool = False
    integer_dots: bool = True
    tuned: Mapping[MatvecKey, Shape] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        limits: Mapping[str, int],
        features: Collection[str] = (),
        *,
        software: bool = False,
        exact: bool = False,
        integer_dots: bool = True,
    ) -> Limits:
        """From WebGPU's own names.

        software: a CPU plays GPU. Barriers cost it most, so a thread of a matvec has a row to itself, and matmul does
        without workgroup memory; halves are slower than floats.
        exact: no approximate kernels. integer_dots: see above; no feature tells.
        """
        f16 = "shader-f16" in features and not (software or exact)
        return cls(
            limits["maxStorageBufferBindingSize"],
            limits["maxComputeWorkgroupStorageSize"],
            16 if software else limits["maxComputeInvocationsPerWorkgroup"],
            *((1, 1) if software else (cls.workgroups, cls.tiles)),
            small=software,
            subgroups="subgroups" in features,
            f16=f16,
            int8="packed_4x8_integer_dot_product" in features and not exact,
            matrix=f16 and {"subgroups", "chromium-experimental-subgroup-matrix"} <= {*features},
            integer_dots=integer_dots,
        )

    @property
    def reduce(self) -> str:
        """The library file for sums and maxima over a workgroup."""
        return "subgroups" if self.subgroups else "plain"

    @property
    def integer_tiles(self) -> bool:
        """Whether a matmul of many rows is fastest with activations of 8 bits, where it may have them."""
        return self.integer_dots and not (self.matrix or self.small)

    @property
    def tile(self) -> str:
        """The library file for the numbers of a matmul's tile."""
        return "f16" if self.f16 else "f32"

    def holds_row(self, cols: int, row: str = "f32", beside: int = 0) -> bool:
        """Whether a matvec can keep its input row in workgroup memory, as "f32" or "int8", and its sums.

        beside: bytes that it keeps there as well.
        """
        unit = 128 if row == "f32" else 48
        return -(-cols // 32) * unit + beside + min(512, self.threads) * 16 <= self.workgroup_storage

    def matvec_shape(self, rows: int, cols: int, row: str = "f32", least: int = 4, kernel: str = "") -> Shape:
        """(rows, threads) of a workgroup: as measured, or else few rows where there are few in all, and a unit of 32
        columns a thread.

        row: how the input is held (a variant of the kernel): integers take less time, and want more workgroups. least:
        rows that a workgroup must have. kernel: with its variants. Threads are a power of two, which halving sums need,
        and at least one a row.
        """
        measured = self.tuned.get((kernel, rows, cols))
        if measured and measured[0] >= least:
            return measured
        sizes, wide = ((16, 8), 1.0) if row in ("stored", "f32") else ((32, 16, 8), 1.5)
        per = next((per for per in sizes if per <= self.threads and rows // per >= wide * self.workgroups), 4)
        per = max(least, per)
        wanted = -(-cols // 32) * per
        if rows // per >= self.workgroups:
            wanted = max(16, per, wanted // 2)  # enough to do without: two units a thread
        return per, min(self._most_threads, 1 << (wanted - 1).bit_length())

    def shapes_around(self, per: int, threads: int, least: int = 4) -> list[Shape]:
        """Those around a matvec's shape that are worth measuring. least: rows that a workgroup must have."""
        around = [(per * 2, threads * 2), (per // 2, threads // 2), (per, threads * 2), (per, threads // 2)]
        return [shape for shape in around if shape[0] >= least and self.takes_matvec(*shape)]

    def takes_matvec(self, per: int, threads: int) -> bool:
        """Whether the kernels run here with so many rows and threads a workgroup."""
        return per in MATVEC_ROWS and per <= threads <= self._most_threads and threads.bit_count() == 1

    @property
    def _most_threads(self) -> int:
        return 1 << (min(512, self.threads).bit_length() - 1)  # some devices allow 384 or 896

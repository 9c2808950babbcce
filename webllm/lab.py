"""Ops on inputs of one's own: recorded, loaded, run and read back the way models are.

What self-tests and kernel tests are made of, and a place to try a kernel from a notebook.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from webllm import host
from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.device import Device
from webllm.kernels import Edits
from webllm.limits import Limits
from webllm.ops import Builder, Cache, Heads, Matrix, Recorder, Tensor, Vector
from webllm.plan import PIECE_BYTES, Program
from webllm.program import page_bytes, rope_table, step_bytes
from webllm.weights import Weights

Record = tuple[int, int]  # token, position


class Lab:
    """One small program. rows: those of a step; more than one records the prefill kernels. short: as in `Recorder`.

    lab = Lab(Limits())
    x = lab.tensor("x", array("f", [3, 4, 0, 0]).tobytes(), 1, 4)
    lab.add("w", array("f", [1, 1, 1, 1]).tobytes(), "F32", 4)
    y = ops.rms_norm(x, Norm(lab.weights.vector("w", size=4), eps=0.0))
    (data,) = await lab.run(device, y.buffer)  # f32[4]: 1.2, 1.6, 0, 0
    """

    def __init__(self, limits: Limits, rows: int = 1, short: bool = False) -> None:
        self.rows = rows
        self.builder = Builder(limits)
        self.rec = Recorder(self.builder, rows, short)
        self.constants: dict[str, bytes] = {}
        self.edits: Edits = ()  # WGSL to try in place of the kernels' own
        self._records: Sequence[Record] = [(0, 0)] * rows
        self._tensors: dict[str, TensorInfo] = {}
        self._data = b""
        raw = self.builder.buffer("raw", PIECE_BYTES + 4, "staging")
        params = self.builder.buffer("params", 32, "staging")
        self.weights = Weights(self.builder, Checkpoint("lab", {}, self._tensors, []), raw, params)

    def tensor(self, name: str, data: bytes, *shape: int) -> Tensor:
        """An input of the step, f32; without data, a place for its output. Prefill kernels read whole tiles of rows."""
        buffer = self.builder.buffer(name, max(len(data), 4 * math.prod(shape)), "state")
        if data:
            self.constants[name] = data
        return Tensor(self.rec, buffer, shape)

    def add(self, name: str, data: bytes, dtype: str, *shape: int, pair_rows: bool = False) -> None:
        """Put a tensor into the checkpoint that `weights` reads. data: as a GGUF file has it."""
        self._data += bytes(-len(self._data) % 32)
        self._tensors[name] = TensorInfo(name, shape, dtype, len(self._data), len(data), 0, pair_rows)
        self._data += data

    def matrix(self, name: str, data: bytes, dtype: str, *shape: int) -> Matrix:
        """A linear layer's weight [rows, cols]."""
        self.add(name, data, dtype, *shape)
        return self.weights.matrix(name, shape=(shape[0], shape[1]))

    def vector(self, name: str, data: bytes) -> Vector:
        """A norm's weight or a bias, f32."""
        self.add(name, data, "F32", len(data) // 4)
        return self.weights.vector(name, size=len(data) // 4)

    def step(self, records: Sequence[Record]) -> int:
        """The step buffer, with room for so many records."""
        self._records = records
        self.constants["step"] = step_bytes(records)
        return self.builder.buffer("step", len(self.constants["step"]), "state")

    def cache(
        self,
        heads: Heads,
        context: int,
        records: Sequence[Record],
        kind: str,
        frequencies: Sequence[float],
        pages: Sequence[int],
    ) -> Cache:
        """An empty cache whose pages lie in the order given. kind: "f16", "f32" or "int8"."""
        size = len(pages) * page_bytes(heads, kind)
        self.constants["pages"] = b"".join(page.to_bytes(4, "little") for page in pages)
        self.constants["rope"] = rope_table(frequencies, context)
        return Cache(
            self.builder.buffer("k", size, "state"),
            self.builder.buffer("v", size, "state"),
            kind,
            self.step(records),
            self.builder.buffer("pages", 4 * len(pages), "constant"),
            self.builder.buffer("rope", len(self.constants["rope"]), "constant"),
            context,
        )

    def program(self) -> Program:
        """What was recorded, with the one plan `step`."""
        buffers = tuple(self.builder.buffers)
        uploads = tuple(self.weights.uploads)
        return Program(buffers, {"step": self.rec.plan()}, uploads, self.constants, edits=self.edits)

    async def run(self, device: Device, *outputs: int) -> list[bytes]:
        """Run the step once and read buffers, by number."""
        return (await self.sweep(device, [self._records], *outputs))[0]

    async def sweep(self, device: Device, steps: Iterable[Sequence[Record]], *outputs: int) -> list[list[bytes]]:
        """The same for several steps, given by their records. Kernels are compiled once."""
        loaded = await device.load(self.program(), [await host.current().open_bytes(self._data)])
        try:
            return [await self._step(device, loaded, records, outputs) for records in steps]
        finally:
            device.unload(loaded)

    async def _step(
        self, device: Device, loaded: Any, records: Sequence[Record], outputs: tuple[int, ...]
    ) -> list[bytes]:
        for name, data in self.constants.items():  # what an earlier step changed in place
            device.write(loaded, name, data)
        if "step" in self.constants:
            device.write(loaded, "step", step_bytes(records))
        await device.submit(loaded, ["step"], len(records), max(position for _, position in records) + 1)
        buffers = [self.builder.buffers[number] for number in outputs]
        return [await device.read(loaded, buffer.name, buffer.size) for buffer in buffers]

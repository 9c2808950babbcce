"""A checkpoint without a file: the tensor table that a model of some configuration and quantisation would have.

Enough to plan a model, to count its bytes, and to measure its speed with weights made up on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.checkpoint.hf_config import in_common_words
from webllm.errors import RequestError
from webllm.limits import Limits
from webllm.models._config import Config
from webllm.ops import Builder, Cache, Matrix, Recorder, Tensor, Vector
from webllm.program import read_model
from webllm.weights import IMPORTS, Name, Rows, Weights

# quantisation -> tensor types of the layers' matrices, and of embedding and LM head
QUANTS: Mapping[str, tuple[str, str]] = {
    "q4": ("Q4_0", "Q8_0"),
    "q4_sym": ("Q4_0", "Q8_0"),
    "q4_1": ("Q4_1", "Q8_0"),
    "q5": ("Q5_0", "Q8_0"),
    "q8": ("Q8_0", "Q8_0"),
    "q2_k": ("Q2_K", "Q6_K"),
    "q4_k": ("Q4_K", "Q6_K"),
    "q6_k": ("Q6_K", "Q6_K"),
    "f16": ("F16", "F16"),
    "f32": ("F32", "F32"),
}
Shapes = dict[str, tuple[int, ...]]


def checkpoint_from_config(config: Mapping[str, Any], quant: str = "q4") -> Checkpoint:
    """The checkpoint of a model with this config.json, its weights lying nowhere.

    quant: one of `QUANTS`. Matrices whose rows do not divide into its blocks are F16; norms and biases are F32.
    Raises `Unsupported` for an unknown `model_type`, `BadModel` for a configuration that makes no sense.

        checkpoint = checkpoint_from_config(json.loads(Path("config.json").read_text()), "q4")
    """
    if quant not in QUANTS:
        raise RequestError(f"quant must be one of {', '.join(QUANTS)}, got {quant!r}")
    bare = Checkpoint(f"{config.get('model_type')} {quant}", in_common_words(config), tensors={}, sources=())
    return replace(bare, tensors={name: _tensor(name, shape, quant) for name, shape in _shapes(bare).items()})


def _tensor(name: str, shape: tuple[int, ...], quant: str) -> TensorInfo:
    layers, outer = QUANTS[quant]
    dtype = layers if name.startswith("model.layers.") else outer
    if len(shape) == 1:
        dtype = "F32"
    elif shape[1] % IMPORTS[dtype].block:
        dtype = "F16"
    how = IMPORTS[dtype]
    return TensorInfo(name, shape, dtype, 0, math.prod(shape) // how.block * how.block_bytes)


class _Asked(Weights):
    """Weights of a checkpoint that has whatever it is asked for, and notes the shapes."""

    def __init__(self, builder: Builder, checkpoint: Checkpoint) -> None:
        super().__init__(builder, checkpoint, 0, 0)
        self.shapes: Shapes = {}

    def has(self, name: str) -> bool:
        """Of what checkpoints may lack: biases of attention, by the configuration."""
        return bool(self._checkpoint.config.get("attention_bias"))

    def transposed(self, name: str, shape: tuple[int, int]) -> Matrix:
        """Notes the name."""
        self._note(name, (shape[1], shape[0]))
        return Matrix(*shape, ())

    def matrix(self, *names: Name, shape: tuple[int, int], head_dim: int = 0) -> Matrix:
        """Notes the names; three are q, k and v, with as many rows as the heads of each."""
        for name, rows in zip(names, self._rows(len(names), shape[0]), strict=True):
            self._note(name, (rows, shape[1]))
        return Matrix(*shape, ())

    def glu(self, gate: Name, up: Name, shape: tuple[int, int]) -> Matrix:
        """Likewise."""
        for name in (gate, up):
            self._note(name, shape)
        return Matrix(2 * shape[0], shape[1], (), glu=True)

    def vector(self, *names: Name, size: int, head_dim: int = 0, plus: float = 0.0, scale: float = 1.0) -> Vector:
        """Likewise."""
        for name, rows in zip(names, self._rows(len(names), size), strict=True):
            self._note(name, (rows,))
        return Vector(0, size)

    def _rows(self, count: int, rows: int) -> list[int]:
        config = Config.of(self._checkpoint.config)
        if count == 3 and rows == config.heads.width:
            return [n * config.head_dim for n in (config.num_attention_heads, *[config.num_key_value_heads] * 2)]
        return [rows // count] * count

    def _note(self, name: Name, shape: tuple[int, ...]) -> None:
        if isinstance(name, Rows):
            known = self.shapes.get(name.name, (0,))
            self.shapes[name.name] = (max(name.stop, known[0]), *shape[1:])
        else:
            self.shapes[name] = shape


def _shapes(checkpoint: Checkpoint) -> Shapes:
    """Name and shape of every tensor that a step of the model asks for, in that order.

    Raises what `read_model` raises.
    """
    builder = Builder(Limits())
    weights = _Asked(builder, checkpoint)
    model, rotaries = read_model(checkpoint, weights, 1)
    caches = [Cache(0, 0, "f16", 0, 0, 0, 2 * len(rotary.frequencies), 1) for rotary in rotaries]
    rec = Recorder(builder, rows=1, short=True)
    model.decode(rec, caches, Tensor(rec, 0, (1, model.config.vocab_size)))
    return weights.shapes

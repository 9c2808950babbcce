"""Which matrices of a checkpoint become which format on the way to the GPU. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from webllm.checkpoint import Checkpoint, TensorInfo
from webllm.errors import RequestError
from webllm.weights import DENSE, IMPORTS

# quant -> formats of the layers' matrices, and of embedding and LM head
QUANTS: Mapping[str, tuple[str, str]] = {
    "q4": ("q4_1", "q8_0"),
    "q4_sym": ("q4_0", "q8_0"),
    "q8": ("q8_0", "q8_0"),
    "f16": ("f16", "f16"),
    "f32": ("f32", "f32"),
}


def quantised(checkpoint: Checkpoint, quant: str | None) -> Checkpoint:
    """The checkpoint with its matrices of F32, F16 and BF16 to be stored as `quant` says; None: as they are.

    Norms and biases are F32 on the GPU whatever they are in the file. Embedding and LM head stay at 8 bits: their
    errors go straight into the logits. Matrices that are quantised in the file stay as they are. Raises
    `RequestError` for an unknown name, and where there is nothing but those.

        quantised(checkpoint, "q4").tensors["lm_head.weight"].store_as  # "q8_0"
    """
    if quant is None:
        return checkpoint
    check_quant(quant)
    tensors = {name: _stored(tensor, QUANTS[quant]) for name, tensor in checkpoint.tensors.items()}
    if not any(_is_dense_matrix(tensor) for tensor in tensors.values()):
        raise RequestError(
            f"{checkpoint.name}: quant={quant!r} is for weights of {', '.join(DENSE)}, and this model is quantised in "
            "its file already; load it without quant"
        )
    return replace(checkpoint, tensors=tensors)


def check_quant(quant: str | None) -> None:
    """Raise `RequestError` if there is no such quantisation."""
    if quant is not None and quant not in QUANTS:
        raise RequestError(f"quant must be one of {', '.join(QUANTS)}, got {quant!r}")


def _stored(tensor: TensorInfo, formats: tuple[str, str]) -> TensorInfo:
    if not _is_dense_matrix(tensor):
        return tensor
    layers, outer = formats
    wanted = layers if tensor.name.startswith("model.layers.") else outer
    return tensor if IMPORTS[tensor.dtype].format == wanted else replace(tensor, store_as=wanted)


def _is_dense_matrix(tensor: TensorInfo) -> bool:
    return tensor.dtype in DENSE and len(tensor.shape) == 2 and min(tensor.shape) > 0

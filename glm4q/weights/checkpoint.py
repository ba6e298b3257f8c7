"""Tensors out of a checkpoint, one weight at a time, whatever names and pieces it is stored in."""

from collections.abc import Callable

import torch
from torch import Tensor

from calculator.checkpoint.headers import BLOCK_BYTES
from calculator.checkpoint.names import Piece
from calculator.checkpoint.quantization import Method
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from glm4q.weights.awq_tensors import read_awq
from glm4q.weights.bitsandbytes_tensors import read_bitsandbytes
from glm4q.weights.compressed_tensors import read_compressed
from glm4q.weights.files import Files, opened
from glm4q.weights.gguf_tensors import expand, read_gguf_module
from glm4q.weights.gptq_tensors import read_gptq
from glm4q.weights.module import ModuleTensors, all_finite
from glm4q.weights.packing import WORD_BITS, QuantizedWeight, join
from glm4q.weights.pages import map_at_once


def read_weight(
    stored: StoredModel,
    weight: Weight,
    start: int = 0,
    stop: int | None = None,
    *,
    files: Files | None = None,
) -> Tensor:
    """Rows `start` to `stop` of an unquantized weight, in the dtype of the file.

    files: a set that stays open for other weights, to read from. Raises CheckpointError where a
    number is not finite.
    """
    part = weight.name.rpartition(".")[2]
    stop = weight.shape[0] if stop is None else stop
    parts, first = [], 0  # first: the row of the weight at which the piece begins
    with opened(files) as files:
        for piece in stored.pieces(weight):
            header = stored.part(piece, part)
            last = first + (piece.stop or header.shape[0]) - piece.start
            if start < last and first < stop:
                offset = piece.start - first
                rows = files.read(header, max(start, first) + offset, min(stop, last) + offset)
                parts.append(expand(rows, header.dtype) if header.dtype in BLOCK_BYTES else rows)
            first = last
    for rows in parts:
        map_at_once(rows)
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    if not all_finite(rows):
        raise CheckpointError(
            f"{stored.directory}: {weight.name} holds a number that is not finite"
        )
    return rows


READERS: dict[Method, Callable[[ModuleTensors], QuantizedWeight]] = {
    "gptq": read_gptq,
    "awq": read_awq,
    "compressed-tensors": read_compressed,
    "bitsandbytes": read_bitsandbytes,
    "gguf": read_gguf_module,
}


def read_quantized(
    stored: StoredModel, weight: Weight, files: Files | None = None
) -> QuantizedWeight:
    """A quantized weight with true zero points, in GPTQ's layout. Raises CheckpointError.

    files: a set that stays open for other weights, to read from.
    """
    if stored.quantization is None:
        raise CheckpointError(f"{stored.directory}: {weight.module} is not quantized")
    read = READERS[stored.quantization.method]
    modules = []
    with opened(files) as files:
        for piece in stored.pieces(weight):
            layout = stored.layouts[piece.module]
            tensors = ModuleTensors(piece.module, weight.shape[1], layout, stored, files)
            try:
                module = read(tensors)
                modules.append(_outputs(module, piece))
            except CheckpointError as error:
                raise CheckpointError(f"{stored.directory}: {error}") from None
    try:
        return _checked(join(modules), weight)
    except CheckpointError as error:
        raise CheckpointError(f"{stored.directory}: {weight.module} {error}") from None


def _outputs(module: QuantizedWeight, piece: Piece) -> QuantizedWeight:
    """Return the outputs of a module that a piece consists of."""
    if piece.stop is None:
        return module
    per_word = WORD_BITS // module.bits
    if module.qzeros is not None and (piece.start % per_word or piece.stop % per_word):
        raise CheckpointError(
            f"{piece.module}: outputs {piece.start} to {piece.stop} begin or end within a word of "
            f"{per_word} zero points"
        )
    return module.columns(piece.start, piece.stop)


def _checked(quantized: QuantizedWeight, weight: Weight) -> QuantizedWeight:
    if (quantized.outputs, quantized.inputs) != weight.shape:
        raise CheckpointError(
            f"is {quantized.outputs} x {quantized.inputs}, not {' x '.join(map(str, weight.shape))}"
        )
    g_idx, groups = quantized.g_idx, quantized.scales.shape[0]
    if g_idx is not None and (g_idx.min() < 0 or g_idx.max() >= groups):
        raise CheckpointError(f"has a g_idx that is not 0 to {groups - 1}")
    return quantized

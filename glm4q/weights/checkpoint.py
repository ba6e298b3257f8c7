"""Tensors out of a checkpoint, one weight at a time, whatever names and pieces it is stored in."""

import torch
from torch import Tensor

from calculator.checkpoint.stored import GPTQ_PARTS, StoredModel
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from glm4q.weights.bitsandbytes_tensors import read_bitsandbytes
from glm4q.weights.files import Files, opened
from glm4q.weights.packing import QuantizedWeight, middle, pack, unpack


def read_weight(
    stored: StoredModel,
    weight: Weight,
    start: int = 0,
    stop: int | None = None,
    *,
    files: Files | None = None,
) -> Tensor:
    """Rows `start` to `stop` of an unquantized weight, in the dtype of the file.

    files: to read from, where they stay open for other weights. Raises CheckpointError where a
    number is not finite.
    """
    part = weight.name.rpartition(".")[2]
    stop = weight.shape[0] if stop is None else stop
    runs, first = [], 0  # first: the row of the weight at which the piece begins
    with opened(files) as files:
        for piece in stored.pieces(weight):
            header = stored.part(piece, part)
            last = first + (piece.stop or header.shape[0]) - piece.start
            if start < last and first < stop:
                offset = piece.start - first
                rows = files.read(header, max(start, first) + offset, min(stop, last) + offset)
                runs.append(rows)
            first = last
    rows = runs[0] if len(runs) == 1 else torch.cat(runs)
    # The extremes are finite only where every number is, and finding them copies none.
    if not all(map(torch.isfinite, torch.aminmax(rows))):
        raise CheckpointError(
            f"{stored.directory}: {weight.name} holds a number that is not finite"
        )
    return rows


def read_quantized(
    stored: StoredModel, weight: Weight, files: Files | None = None
) -> QuantizedWeight:
    """A quantized weight with true zero points; files as above. Raises CheckpointError."""
    if stored.by_bitsandbytes:
        with opened(files) as files:
            return read_bitsandbytes(stored, weight, files)
    weight_format = stored.format(weight)
    parts = GPTQ_PARTS if weight_format.act_order else GPTQ_PARTS[:-1]
    with opened(files) as files:
        pieces = [
            {part: files.read(stored.part(piece, part)) for part in parts}
            for piece in stored.pieces(weight)
        ]

    def joined(part: str) -> Tensor:  # pieces are runs of outputs, the last dimension
        tensors = [piece[part] for piece in pieces]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=-1)

    scales = joined("scales").half()
    if not scales.isfinite().all():
        raise CheckpointError(f"{stored.directory}: {weight.module}.scales are not all finite")
    zero_points = unpack(joined("qzeros").T, weight_format.bits) + stored.zero_point_offset
    if weight_format.symmetric and not bool((zero_points == middle(weight_format.bits)).all()):
        raise CheckpointError(
            f"{stored.directory}: {weight.module} is said to be symmetric, and its zero points are "
            f"not all {middle(weight_format.bits)} (is checkpoint_format right: gptq or gptq_v2?)"
        )
    if int(zero_points.max()) >= 2**weight_format.bits:
        raise CheckpointError(
            f"{stored.directory}: {weight.module} has a zero point of {int(zero_points.max())}, "
            f"which is no {weight_format.bits}-bit code"
        )
    return QuantizedWeight(
        weight_format.bits,
        joined("qweight"),
        scales,
        None if weight_format.symmetric else pack(zero_points, weight_format.bits).T.contiguous(),
        _group_index(stored, weight, [piece["g_idx"] for piece in pieces])
        if weight_format.act_order
        else None,
    )


def _group_index(stored: StoredModel, weight: Weight, orders: list[Tensor]) -> Tensor:
    first, *others = orders
    if any(not torch.equal(first, other) for other in others):
        raise CheckpointError(
            f"{stored.directory}: the halves of {weight.module} order their inputs differently"
        )
    groups = stored.format(weight).groups(weight.shape[1])
    if first.min() < 0 or first.max() >= groups:
        raise CheckpointError(
            f"{stored.directory}: {weight.module}.g_idx must be 0 to {groups - 1}"
        )
    return first

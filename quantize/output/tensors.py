"""Compute the output's tensors of a weight, some rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.making import NUMBERS_AT_ONCE
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.weights.checkpoint import read_weight
from glm4q.weights.packing import pack
from quantize.methods import rtn
from quantize.methods.codes import Codes, Packed

NamedTensors = Iterator[tuple[str, Tensor]]


def copied(stored: StoredModel, weight: Weight) -> NamedTensors:
    """Copy a weight as it is."""
    for start, stop in row_runs(weight):
        yield weight.name, read_weight(stored, weight, start, stop)


def rounded(stored: StoredModel, weight: Weight, weight_format: WeightFormat) -> NamedTensors:
    """Round a weight to nearest, and yield GPTQ v1's tensors of it."""
    packed = Packed.empty(weight.shape, weight_format)
    for start, stop in row_runs(weight):
        rows = read_weight(stored, weight, start, stop)
        rtn.quantize_into(packed.columns(start, stop), rows, weight_format)
    return _gptq_tensors(weight, weight_format, packed)


def coded(weight: Weight, weight_format: WeightFormat, codes: Codes) -> NamedTensors:
    """Yield GPTQ v1's tensors of the codes that a method has chosen."""
    packed = Packed.empty(weight.shape, weight_format)
    packed.fill(codes, weight_format.bits)
    return _gptq_tensors(weight, weight_format, packed)


def _gptq_tensors(weight: Weight, weight_format: WeightFormat, packed: Packed) -> NamedTensors:
    inputs = weight.shape[1]
    group = torch.arange(inputs, dtype=torch.int32) // (weight_format.group_size or inputs)
    yield f"{weight.module}.qweight", packed.qweight
    # GPTQ v1 stores zero points less one.
    yield f"{weight.module}.qzeros", pack((packed.zero_points - 1).T, weight_format.bits).T
    yield f"{weight.module}.scales", packed.scales
    yield f"{weight.module}.g_idx", group


def row_runs(weight: Weight) -> Iterator[tuple[int, int]]:
    """Divide the rows so that each run of them has NUMBERS_AT_ONCE numbers at most."""
    rows = max(NUMBERS_AT_ONCE * weight.shape[0] // weight.numel, 1)
    for start in range(0, weight.shape[0], rows):
        yield start, min(start + rows, weight.shape[0])

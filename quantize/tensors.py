"""The tensors that a weight becomes in the output, made a run of rows at a time."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from calculator.architecture import Weight
from calculator.formats import PACK_BITS, WeightFormat
from calculator.stored import StoredModel
from glm4q.checkpoint import read_weight
from glm4q.packing import pack
from quantize.methods import rtn
from quantize.methods.codes import Codes

NUMBERS_AT_ONCE = 1 << 23
"""Numbers of a source weight that are in memory at once."""

NamedTensors = Iterator[tuple[str, Tensor]]


def copied(stored: StoredModel, weight: Weight) -> NamedTensors:
    """The weight as it is."""
    for start, stop in row_runs(weight):
        yield weight.name, read_weight(stored, weight, start, stop)


def rounded(stored: StoredModel, weight: Weight, form: WeightFormat) -> NamedTensors:
    """The weight rounded to nearest, as GPTQ v1's tensors."""
    runs = (
        rtn.quantize(read_weight(stored, weight, start, stop), form)
        for start, stop in row_runs(weight)
    )
    return gptq_tensors(weight, form, runs)


def gptq_tensors(weight: Weight, form: WeightFormat, runs: Iterable[Codes]) -> NamedTensors:
    """GPTQ v1's four tensors of codes that come in runs of rows."""
    outputs, inputs = weight.shape
    qweight = torch.empty(inputs * form.bits // PACK_BITS, outputs, dtype=torch.int32)
    scales = torch.empty(form.groups(inputs), outputs, dtype=torch.float16)
    zero_points = torch.empty(scales.shape, dtype=torch.uint8)
    start = 0
    for found in runs:
        stop = start + len(found.codes)
        qweight[:, start:stop] = pack(found.codes.T, form.bits)
        scales[:, start:stop] = found.scales.T
        zero_points[:, start:stop] = found.zero_points.T
        start = stop
    group = torch.arange(inputs, dtype=torch.int32) // (form.group_size or inputs)
    yield f"{weight.module}.qweight", qweight
    # GPTQ v1 stores zero points less one.
    yield f"{weight.module}.qzeros", pack((zero_points - 1).T, form.bits).T
    yield f"{weight.module}.scales", scales
    yield f"{weight.module}.g_idx", group


def row_runs(weight: Weight) -> Iterator[tuple[int, int]]:
    """Runs of rows that hold NUMBERS_AT_ONCE numbers at most."""
    rows = max(NUMBERS_AT_ONCE * weight.shape[0] // weight.numel, 1)
    for start in range(0, weight.shape[0], rows):
        yield start, min(start + rows, weight.shape[0])

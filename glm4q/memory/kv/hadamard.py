"""Multiply vectors by a Hadamard matrix: what is extreme in one number is spread over all.

The matrix is symmetric and its own inverse, so scores of transformed queries
and transformed keys are the scores without the transform (QuaRot, https://arxiv.org/abs/2404.00456).
"""

import torch
from torch import Tensor

from calculator.memory.workspace import KV_GROUP
from glm4q.memory.workspace import Step


def prepare_hadamard(step: Step) -> None:
    """Fill the step's matrix, [64, 64], by Sylvester's doubling."""
    matrix = step["hadamard"]
    size = 1
    # A number that is assigned to one place would be copied from the host, which no graph records.
    matrix[:1, :1].fill_(KV_GROUP**-0.5)
    while size < KV_GROUP:
        block = matrix[:size, :size]
        matrix[:size, size : 2 * size] = block
        matrix[size : 2 * size, :size] = block
        torch.neg(block, out=matrix[size : 2 * size, size : 2 * size])
        size *= 2


def hadamard_transform(x: Tensor, step: Step, out: Tensor) -> Tensor:
    """Each run of 64 numbers of x, [..., D], times the matrix, into `out`."""
    torch.mm(x.view(-1, KV_GROUP), step["hadamard"], out=out.view(-1, KV_GROUP))
    return out


def add_rotated(x: Tensor, step: Step, out: Tensor) -> None:
    """Add the same product to `out`, [B, Hkv, n, D]."""
    for vectors, sums in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
        sums.view(-1, KV_GROUP).addmm_(vectors.view(-1, KV_GROUP), step["hadamard"])

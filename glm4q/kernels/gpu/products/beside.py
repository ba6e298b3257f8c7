"""Weights that are multiplied by the same few tokens, in the launches of another weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from glm4q.kernels.gpu.launch import Argument

NAMES = "second", "third"
PARTS = "qweight", "scales", "qzeros"


@dataclass(frozen=True)
class Beside:
    """A weight of the same inputs and format as the first, and where its product goes."""

    packed: Mapping[str, Tensor]
    out: Tensor
    """[M, N], whose rows lie one after another."""
    bias: Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.packed["qweight"].shape[1]


def blocks_of(outputs: int, beside: Sequence[Beside], size: int) -> int:
    """Return how many blocks of outputs a launch has: each is of one weight."""
    return sum(ceil(each / size) for each in (outputs, *(one.outputs for one in beside)))


def weights_of(beside: Sequence[Beside]) -> dict[str, Argument]:
    """Return the arguments of `few_rows` for the weights after the first."""
    arguments: dict[str, Argument] = {}
    for place, name in enumerate(NAMES):
        there = place < len(beside)
        packed = beside[place].packed if there else {}
        arguments |= {f"{name}_{part}": packed.get(part) for part in PARTS}
        arguments[f"{name}_outputs"] = beside[place].outputs if there else 0
    return arguments


def outs_of(beside: Sequence[Beside]) -> dict[str, Argument]:
    """Return the arguments of `add_splits` for the products after the first."""
    arguments: dict[str, Argument] = {}
    for place, name in enumerate(NAMES):
        there = place < len(beside)
        arguments[f"{name}_out"] = beside[place].out if there else None
        arguments[f"{name}_bias"] = beside[place].bias if there else None
        arguments[f"{name}_outputs"] = beside[place].outputs if there else 0
    return arguments

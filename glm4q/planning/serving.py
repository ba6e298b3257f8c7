"""Which kernels serve a model's layers, and why faster ones do not."""

from dataclasses import dataclass

import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.kernels.choose import choose
from glm4q.kernels.spec import Kernel, LinearSpec


@dataclass(frozen=True)
class ServedLayers:
    """A kernel and the layers of one kind that it serves."""

    kernel: str
    layers: str
    """Format, shape and device."""
    count: int
    refusals: tuple[str, ...]
    """Of kernels that stand before it in the list."""


def find_serving(
    stored: StoredModel, device: torch.device, kernels: tuple[Kernel, ...]
) -> tuple[ServedLayers, ...]:
    """One entry for each kind of quantized layer. Raises KernelError."""
    counts: dict[LinearSpec, int] = {}
    for weight, weight_format in stored.formats().items():
        if weight_format.is_quantized:
            outputs, inputs = weight.shape
            spec = LinearSpec(outputs, inputs, weight_format, device)
            counts[spec] = counts.get(spec, 0) + 1
    return tuple(_serving(spec, count, kernels) for spec, count in counts.items())


def _serving(spec: LinearSpec, count: int, kernels: tuple[Kernel, ...]) -> ServedLayers:
    kernel = choose(spec, kernels)
    before = kernels[: kernels.index(kernel)]
    refusals = tuple(f"{each.name} {each.refuses(spec)}" for each in before)
    return ServedLayers(kernel.name, str(spec), count, refusals)

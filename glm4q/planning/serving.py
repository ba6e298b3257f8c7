"""What the chosen kernels mean for memory, and how `glm4q bench` shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from calculator.memory.scratch import KernelNeeds, KernelNeedsOf, ServedWeights
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.kernels.choice import Choice
from glm4q.kernels.choose import LayersKernels, WeightKernels


def served_weights(formats: Mapping[Weight, WeightFormat], kernels: WeightKernels) -> ServedWeights:
    """All that a plan must know of the kernels: formats in memory, and what they need to multiply.

    formats: the stored format of every weight.
    """
    return ServedWeights(held_formats(formats, kernels), kernel_needs(kernels))


def held_formats(
    formats: Mapping[Weight, WeightFormat], kernels: WeightKernels
) -> dict[Weight, WeightFormat]:
    """How each weight lies in the memory of the device: what the plan counts."""
    return {weight: kernels.held_format(weight) for weight in formats}


def kernel_needs(kernels: WeightKernels) -> KernelNeedsOf:
    """What the chosen kernels need while they multiply, by the tokens of a step."""
    kinds = dict(kernels.quantized.values())

    def needs(tokens: int) -> KernelNeeds:
        each = [
            choice.kernel.needs(spec, tokens, kernels.dtype.itemsize)
            for spec, choice in kinds.items()
        ]
        return KernelNeeds(
            max((need.scratch_bytes for need in each), default=0),
            max((need.operator_bytes for need in each), default=0)
            + matmul_bytes(
                tokens, kernels.dtype, kernels.device, of_layers=_torch_multiplies(kernels, tokens)
            ),
        )

    return needs


def _torch_multiplies(kernels: WeightKernels, tokens: int) -> bool:
    """Whether torch multiplies all tokens of a step by a weight of a layer: it never widens."""
    return any(not choice.kernel.widens for _, choice in kernels.quantized.values()) or any(
        not choice.kernel.widens(tokens, spec.inputs)
        for weight, (spec, choice) in kernels.dense.items()
        if weight.layer is not None
    )


def matmul_bytes(
    tokens: int, dtype: torch.dtype, device: torch.device, *, of_layers: bool = True
) -> int:
    """What torch.mm takes for itself: on a CPU oneDNN copies tiles of bfloat16, thread by thread.

    At most these were seen of a thread, with GLM-4-9B's shapes and the demo model's: 65 KiB for 1
    token and 1.4 MiB for 2,048; on a CPU with AMX 1.4 MiB for 8 tokens, 2.3 for 512, 5.9 for 2,048.
    of_layers: whether torch multiplies by a layer's weights, or does smaller products alone.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return 0
    if of_layers and torch.cpu._is_amx_tile_supported():
        of_a_thread = (1536 << 10) + 2560 * tokens
    else:
        of_a_thread = (192 << 10) + 768 * tokens
    return torch.get_num_threads() * of_a_thread


@dataclass(frozen=True)
class ServedLayers:
    """A kernel, and the parts of a model of one kind that it serves."""

    kernel: str
    layers: str
    """Their format, shape and device."""
    count: int
    refusals: tuple[str, ...]
    """Why kernels that stand before it in the list do not serve."""


def list_serving(weights: WeightKernels, layers: LayersKernels) -> tuple[ServedLayers, ...]:
    """One entry for each kind of weight, for norms, for attention and for the layers as a whole."""
    chosen: list[tuple[Any, Choice[Any]]] = [*weights.quantized.values(), *weights.dense.values()]
    return _counted([*chosen, weights.norm, *layers.choices()])


def _counted(chosen: Iterable[tuple[Any, Choice[Any]]]) -> tuple[ServedLayers, ...]:
    counts: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for spec, choice in chosen:
        kind = choice.kernel.name, str(spec), choice.refusals
        counts[kind] = counts.get(kind, 0) + 1
    return tuple(
        ServedLayers(kernel, layers, count, refusals)
        for (kernel, layers, refusals), count in counts.items()
    )

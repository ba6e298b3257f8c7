"""What healing trains: a factor for each number that is stored in 16 bits beside the codes.

Group scales of quantized linears, the weights of norms and the biases are trained by the logarithm
of what each is multiplied by, so that one step size fits all, and nothing changes its sign.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.healing import OUTPUTS_AT_ONCE
from calculator.model.architecture import Weight, weights
from calculator.model.formats import WeightFormat
from glm4q.weights.checkpoint import read_quantized, read_weight
from glm4q.weights.files import Files
from glm4q.weights.packing import QuantizedWeight
from quantize.methods.codes import half


@dataclass(frozen=True)
class Trained:
    """One stored tensor that is trained, and its place among the factors of its part."""

    weight: Weight
    name: str
    """The stored tensor's name: the weight's own, or that of its scales."""
    shape: tuple[int, ...]
    start: int
    stop: int

    def of(self, factors: Tensor) -> Tensor:
        """The tensor's own factors, of its shape; shares memory."""
        return factors[self.start : self.stop].view(self.shape)


@dataclass(frozen=True)
class Part:
    """The weights of one layer, or those behind the layers, and what of them is trained."""

    weights: tuple[Weight, ...]
    trained: tuple[Trained, ...]

    @property
    def size(self) -> int:
        """How many factors there are."""
        return self.trained[-1].stop if self.trained else 0


def parts_of(stored: StoredModel) -> list[Part]:
    """List the layers in their order, and at last the norm behind them."""
    config = stored.config
    every = weights(config)
    layers = [
        tuple(weight for weight in every if weight.layer == layer)
        for layer in range(config.num_hidden_layers)
    ]
    behind = tuple(weight for weight in every if weight.layer is None and weight.role == "norm")
    return [Part(members, tuple(_trained(stored, members))) for members in (*layers, behind)]


def _trained(stored: StoredModel, members: tuple[Weight, ...]) -> Iterator[Trained]:
    start = 0
    for weight in members:
        if (named := _tensor_of(weight, stored.formats[weight])) is None:
            continue
        name, shape = named
        stop = start + torch.Size(shape).numel()
        yield Trained(weight, name, shape, start, stop)
        start = stop


def _tensor_of(weight: Weight, weight_format: WeightFormat) -> tuple[str, tuple[int, ...]] | None:
    """The name and shape of a weight's 16-bit numbers; None where it is not trained."""
    if weight.role in ("norm", "bias"):
        return weight.name, weight.shape
    if weight.role == "linear" and weight_format.is_quantized:
        outputs, inputs = weight.shape
        return f"{weight.module}.scales", (weight_format.groups(inputs), outputs)
    return None


def read_part(
    stored: StoredModel, part: Part, logarithms: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Read the tensors of a part as they are with these factors, by name within a layer.

    Linears are [K, N] in `dtype`, all else is float32.
    """
    trained = {each.weight: each.of(logarithms).exp() for each in part.trained}
    with Files() as files:
        return {
            name_within(weight): _read(
                stored, weight, trained.get(weight), dtype, logarithms.device, files
            )
            for weight in part.weights
        }


def name_within(weight: Weight) -> str:
    """The weight's name within its layer; outside of the layers, its whole name."""
    return weight.name if weight.layer is None else weight.name.split(".", 3)[3]


def _read(
    stored: StoredModel,
    weight: Weight,
    factors: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    files: Files,
) -> Tensor:
    if factors is None:
        return read_weight(stored, weight, files=files).to(device, dtype).T
    if weight.role != "linear":
        return read_weight(stored, weight, files=files).to(factors.device).float() * factors
    quantized = read_quantized(stored, weight, files).to(factors.device)
    return dequantized(quantized, factors, dtype)


def dequantized(quantized: QuantizedWeight, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Dequantize a weight, [K, N], whose scales, [groups, N], are multiplied by factors."""
    inputs, outputs = quantized.inputs, quantized.outputs
    result = torch.empty(inputs, outputs, dtype=dtype, device=factors.device)
    scaled = replace(quantized, scales=quantized.scales.float() * factors)
    for start in range(0, outputs, OUTPUTS_AT_ONCE):
        stop = min(start + OUTPUTS_AT_ONCE, outputs)
        result[:, start:stop] = scaled.columns(start, stop).dequantize()
    return result


def gradients(part: Part, tensors: Mapping[str, Tensor]) -> Tensor:
    """The gradient by each logarithm, from the gradients by the tensors that were read.

    A factor e^a multiplies its numbers, so the gradient by a is the sum of numbers x gradients.
    """
    result = torch.empty(part.size, device=next(iter(tensors.values())).device)
    for each in part.trained:
        tensor, own = tensors[name_within(each.weight)], each.of(result)
        assert tensor.grad is not None
        if each.weight.role != "linear":
            own.copy_(tensor.grad * tensor.detach())
            continue
        groups = each.shape[0], -1
        for start in range(0, tensor.shape[1], OUTPUTS_AT_ONCE):
            outputs = slice(start, start + OUTPUTS_AT_ONCE)
            products = tensor.grad[:, outputs].float() * tensor.detach()[:, outputs]
            own[:, outputs] = products.unflatten(0, groups).sum(1)
    return result


def healed_tensors(
    stored: StoredModel, parts: list[Part], logarithms: list[Tensor]
) -> dict[str, Tensor]:
    """Compute the stored tensors with their factors applied, in the dtypes of their files."""
    result = {}
    with Files() as files:
        for part, own in zip(parts, logarithms, strict=True):
            for each in part.trained:
                before = files.read(stored.tensors[each.name])
                after = before.float() * each.of(own).cpu().exp()
                if each.weight.role == "linear":  # readers divide by scales: none may become 0
                    after = half(after)
                most = torch.finfo(before.dtype).max
                result[each.name] = after.clamp(-most, most).to(before.dtype)
    return result

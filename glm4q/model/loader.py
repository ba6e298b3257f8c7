"""A checkpoint directory -> a model on a device, one weight at a time."""

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor, nn

from calculator.checkpoint.stored import StoredModel
from calculator.memory.scratch import KernelNeeds, KernelNeedsOf, ServedWeights
from calculator.model.architecture import Weight, weights
from calculator.model.formats import BF16, FP32, WeightFormat
from glm4q.kernels.choose import KERNELS, choose
from glm4q.kernels.spec import Kernel, LinearSpec
from glm4q.model.blocks import share_block
from glm4q.model.decoder import LAYERS, CausalLM, DecoderLayer
from glm4q.model.linear import QuantLinear, matmul_bytes
from glm4q.weights.checkpoint import read_quantized, read_weight
from glm4q.weights.files import Files

DENSE = {torch.bfloat16: BF16, torch.float32: FP32}
"""The format of an unquantized weight by the dtype that the model computes in."""

WeightCallback = Callable[[Weight], None]
Place = Callable[[Weight], torch.device]
"""Where a weight is to lie."""


def held_formats(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> dict[Weight, WeightFormat]:
    """How each weight will lie in the memory of a device: what the plan counts."""
    held = {}
    for weight, weight_format in stored.formats().items():
        if weight_format.is_quantized:
            held[weight] = choose(_spec(weight, weight_format, device), kernels).packed_format(
                weight_format
            )
        else:
            held[weight] = DENSE[dtype]
    return held


def kernel_needs(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> KernelNeedsOf:
    """What the chosen kernels take while they multiply."""
    kinds = {
        (weight.shape, weight_format): weight for weight, weight_format in stored.formats().items()
    }
    specs = [
        _spec(weight, weight_format, device)
        for (_, weight_format), weight in kinds.items()
        if weight_format.is_quantized
    ]

    def needs(tokens: int) -> KernelNeeds:
        each = [choose(spec, kernels).needs(spec, tokens, dtype.itemsize) for spec in specs]
        return KernelNeeds(
            max((need.scratch_bytes for need in each), default=0),
            max((need.operator_bytes for need in each), default=0)
            + matmul_bytes(tokens, dtype, device),
        )

    return needs


def serve(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> ServedWeights:
    """What the kernels of a device make of the weights: all that a plan asks of them."""
    return ServedWeights(
        held_formats(stored, device=device, dtype=dtype, kernels=kernels),
        kernel_needs(stored, device=device, dtype=dtype, kernels=kernels),
    )


def load_model(
    stored: StoredModel,
    *,
    place: Place,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
    progress: WeightCallback = lambda weight: None,
) -> CausalLM:
    """Build the model and fill it. Raises CheckpointError or KernelError."""
    with torch.device("meta"):
        model = CausalLM(stored.config)
    with Files() as files:
        for layer, layer_weights in groupby(weights(stored.config), key=lambda each: each.layer):
            for weight in layer_weights:
                device = place(weight)
                load_weight(
                    model,
                    weight.name,
                    stored,
                    weight,
                    device=device,
                    dtype=dtype,
                    kernels=kernels,
                    # Weights for a GPU are copied there, so close the file at once.
                    files=files if device.type == "cpu" else None,
                )
                progress(weight)
            if layer is not None and device.type == "cuda":
                share_block(model.model.layers[layer])
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # gives back the segments in which each layer's parts stood first
    if stored.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def load_layer(
    stored: StoredModel,
    layer: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> DecoderLayer:
    """One decoder layer alone."""
    with torch.device("meta"):
        module = LAYERS[stored.config.model_type](stored.config)
    for weight in weights(stored.config):
        if weight.layer == layer:
            name = weight.name.removeprefix(f"model.layers.{layer}.")
            load_weight(module, name, stored, weight, device=device, dtype=dtype, kernels=kernels)
    return module.eval()


def load_weight(
    module: nn.Module,
    name: str,
    stored: StoredModel,
    weight: Weight,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
    files: Files | None = None,
) -> None:
    """Read a weight to the place of that name in a module, dense or behind a kernel."""
    weight_format = stored.format(weight)
    if weight_format.is_quantized:
        kernel = choose(_spec(weight, weight_format, device), kernels)
        packed = QuantLinear(read_quantized(stored, weight, files).to(device), kernel)
        _set_module(module, name.rpartition(".")[0], packed)
    else:
        read = read_weight(stored, weight, files=files)
        set_tensor(module, name, read.to(device, dtype))


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor that the model holds, by name; a tied one once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _spec(weight: Weight, weight_format: WeightFormat, device: torch.device) -> LinearSpec:
    outputs, inputs = weight.shape
    return LinearSpec(outputs, inputs, weight_format, device)


def set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter in its place."""
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(tensor, requires_grad=False))


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)

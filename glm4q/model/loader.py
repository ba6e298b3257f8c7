"""A checkpoint directory -> a model on a device, one weight at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from calculator.checkpoint.stored import StoredModel
from calculator.memory.scratch import Needs, NeedsOf, Served
from calculator.model.architecture import Weight, weights
from calculator.model.formats import BF16, FP32, WeightFormat
from glm4q.kernels.choose import KERNELS, choose
from glm4q.kernels.spec import Kernel, LinearSpec
from glm4q.model.decoder import LAYERS, CausalLM, DecoderLayer
from glm4q.model.linear import QuantLinear, matmul_bytes
from glm4q.weights.checkpoint import read_quantized, read_weight
from glm4q.weights.files import Files

DENSE = {torch.bfloat16: BF16, torch.float32: FP32}
"""The format of an unquantized weight by the dtype that the model computes in."""

Progress = Callable[[Weight], None]
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
    for weight, form in stored.formats().items():
        if form.is_quantized:
            held[weight] = choose(_spec(weight, form, device), kernels).held(form)
        else:
            held[weight] = DENSE[dtype]
    return held


def kernel_needs(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> NeedsOf:
    """What the chosen kernels take while they multiply."""
    kinds = {(weight.shape, form): weight for weight, form in stored.formats().items()}
    specs = [
        _spec(weight, form, device) for (_, form), weight in kinds.items() if form.is_quantized
    ]

    def needs(tokens: int) -> Needs:
        each = [choose(spec, kernels).needs(spec, tokens, dtype.itemsize) for spec in specs]
        return Needs(
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
) -> Served:
    """What the kernels of a device make of the weights: all that a plan asks of them."""
    return Served(
        held_formats(stored, device=device, dtype=dtype, kernels=kernels),
        kernel_needs(stored, device=device, dtype=dtype, kernels=kernels),
    )


def load_model(
    stored: StoredModel,
    *,
    place: Place,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
    progress: Progress = lambda weight: None,
) -> CausalLM:
    """Build the model and fill it. Raises CheckpointError or KernelError."""
    with torch.device("meta"):
        model = CausalLM(stored.config)
    with Files() as files:
        for weight in weights(stored.config):
            device = place(weight)
            load_weight(
                model,
                weight.name,
                stored,
                weight,
                device=device,
                dtype=dtype,
                kernels=kernels,
                # What goes to another device is let go of here at once.
                files=files if device.type == "cpu" else None,
            )
            progress(weight)
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
    form = stored.format(weight)
    if form.is_quantized:
        kernel = choose(_spec(weight, form, device), kernels)
        packed = QuantLinear(read_quantized(stored, weight, files).to(device), kernel)
        _set_module(module, name.rpartition(".")[0], packed)
    else:
        read = read_weight(stored, weight, files=files)
        set_tensor(module, name, read.to(device, dtype))


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor that the model holds, by name; a tied one once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _spec(weight: Weight, form: WeightFormat, device: torch.device) -> LinearSpec:
    outputs, inputs = weight.shape
    return LinearSpec(outputs, inputs, form, device)


def set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter in its place."""
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(tensor, requires_grad=False))


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)

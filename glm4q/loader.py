"""A checkpoint directory -> a model on a device, one weight at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from calculator.architecture import Weight, weights
from calculator.errors import CheckpointError
from calculator.formats import BF16, FP32, WeightFormat
from calculator.stored import StoredModel
from glm4q.checkpoint import read_quantized, read_weight
from glm4q.kernels.choose import KERNELS, choose
from glm4q.kernels.spec import Kernel, LinearSpec
from glm4q.layers.linear import QuantLinear
from glm4q.model import CausalLM

DENSE = {torch.bfloat16: BF16, torch.float32: FP32}
"""The format of an unquantized weight by the dtype that the model computes in."""

Progress = Callable[[Weight], None]


def held_formats(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> dict[Weight, WeightFormat]:
    """How each weight will lie in memory once loaded: what the plan counts."""
    if stored.by_bitsandbytes:
        raise CheckpointError(
            f"{stored.directory} is quantized by bitsandbytes, which calc plans and chat does not "
            "run; quantize the unquantized checkpoint to int8 or int4"
        )
    held = {}
    for weight, form in stored.formats().items():
        if form.is_quantized:
            held[weight] = choose(_spec(weight, form, device), kernels).held(form)
        else:
            held[weight] = DENSE[dtype]
    return held


def load_model(
    stored: StoredModel,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: tuple[Kernel, ...] = KERNELS,
    progress: Progress = lambda weight: None,
) -> CausalLM:
    """Read every weight to its place. Each is held once; only the one being read is held twice."""
    with torch.device("meta"):
        model = CausalLM(stored.config)
    for weight in weights(stored.config):
        form = stored.format(weight)
        if form.is_quantized:
            kernel = choose(_spec(weight, form, device), kernels)
            packed = QuantLinear(read_quantized(stored, weight).to(device), kernel)
            _set_module(model, weight.module, packed)
        else:
            _set_tensor(model, weight.name, read_weight(stored, weight).to(device, dtype))
        progress(weight)
    if stored.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor that the model holds, by name; a tied one once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _spec(weight: Weight, form: WeightFormat, device: torch.device) -> LinearSpec:
    outputs, inputs = weight.shape
    return LinearSpec(outputs, inputs, form, device)


def _set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(tensor, requires_grad=False))


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)

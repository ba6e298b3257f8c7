"""A checkpoint directory -> a model on a device, one weight at a time."""

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor, nn

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import Weight, weights
from glm4q.kernels.choose import WeightKernels
from glm4q.model.blocks import LayerBlock
from glm4q.model.decoder import LAYERS, CausalLM, DecoderLayer
from glm4q.model.linear import Linear, QuantLinear
from glm4q.model.norm import RMSNorm
from glm4q.weights.checkpoint import read_quantized, read_weight
from glm4q.weights.files import Files
from glm4q.weights.pages import converted

WeightCallback = Callable[[Weight], None]
Place = Callable[[Weight], WeightKernels]
"""Which device a weight goes to, and the kernels that were chosen there."""
Hold = Callable[[Tensor], Tensor]
"""Moves a tensor to where the model holds it."""


def load_model(
    stored: StoredModel,
    place: Place,
    *,
    progress: WeightCallback = lambda weight: None,
) -> CausalLM:
    """Build the model and fill it. Raises CheckpointError."""
    with torch.device("meta"):
        model = CausalLM(stored.config)
    with Files() as files:
        for _, group in groupby(weights(stored.config), key=lambda each: each.layer):
            layer_weights = list(group)
            hold = _hold(layer_weights, place(layer_weights[0]))
            for weight in layer_weights:
                kernels = place(weight)
                # Weights for a GPU are copied there, so their file is closed at once: its pages
                # need not stay in host memory.
                kept_open = files if kernels.device.type == "cpu" else None
                load_weight(model, weight.name, stored, weight, kernels, hold=hold, files=kept_open)
                if weight.role == "embedding" and stored.config.tie_word_embeddings:
                    tie_head(model, weight, kernels)
                progress(weight)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # gives back what kernels took that rearrange weights on the GPU
    return model.eval()


def load_layer(stored: StoredModel, layer: int, kernels: WeightKernels) -> DecoderLayer:
    """Load one decoder layer alone."""
    with torch.device("meta"):
        module = LAYERS[stored.config.model_type](stored.config)
    for weight in weights(stored.config):
        if weight.layer == layer:
            name = weight.name.removeprefix(f"model.layers.{layer}.")
            load_weight(module, name, stored, weight, kernels)
    return module.eval()


def load_weight(
    module: nn.Module,
    name: str,
    stored: StoredModel,
    weight: Weight,
    kernels: WeightKernels,
    *,
    hold: Hold | None = None,
    files: Files | None = None,
) -> None:
    """Read a weight to the place of that name in a module, dense or behind its kernel.

    hold: moves it to the device, which `Tensor.to` does if not given.
    """
    hold = hold or (lambda tensor: tensor.to(kernels.device))
    owner = name.rpartition(".")[0]
    if weight in kernels.quantized:
        _, choice = kernels.quantized[weight]
        read = read_quantized(stored, weight, files)
        if choice.kernel.packs_on_device:
            read = read.to(kernels.device)
        _set_module(module, owner, QuantLinear(read, choice.kernel, hold))
        return
    numbers = converted(read_weight(stored, weight, files=files), kernels.dtype)
    set_tensor(module, name, hold(numbers))
    loaded = module.get_submodule(owner)
    if isinstance(loaded, Linear) and weight in kernels.dense:
        loaded.kernel = kernels.dense[weight][1].kernel
    elif isinstance(loaded, RMSNorm):
        loaded.kernel = kernels.norm[1].kernel


def _hold(layer_weights: list[Weight], kernels: WeightKernels) -> Hold | None:
    """Return what holds the weights of a layer on a GPU: one block. Others stand alone."""
    if layer_weights[0].layer is None or kernels.device.type != "cuda":
        return None
    return LayerBlock(layer_weights, kernels).hold


def tie_head(model: CausalLM, embedding: Weight, kernels: WeightKernels) -> None:
    """Let the head multiply by the embedding, which is loaded."""
    model.lm_head.weight = model.model.embed_tokens.weight
    model.lm_head.kernel = kernels.dense[embedding][1].kernel


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List every tensor that the model holds, by name; a tied one once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter in its place."""
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(tensor, requires_grad=False))


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)

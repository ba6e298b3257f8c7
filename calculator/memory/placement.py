"""The device of each weight and of each layer."""

from collections.abc import Callable

from calculator.memory.settings import Device, Settings
from calculator.model.architecture import EMBEDDING, Weight
from calculator.model.config import ModelConfig


def placement(config: ModelConfig, settings: Settings) -> Callable[[Weight], Device]:
    """Return the device of each weight."""
    host_layers = _host_layers(config, settings)

    def device_of(weight: Weight) -> Device:
        if weight.name == EMBEDDING:
            return settings.embedding
        on_host = weight.layer is not None and weight.layer < host_layers
        return "host" if on_host else settings.compute

    return device_of


def layers_of(config: ModelConfig, settings: Settings) -> dict[Device, range]:
    """Return the layers that each device runs, in the order of the forward pass."""
    first = _host_layers(config, settings)
    on_host: dict[Device, range] = {"host": range(first)} if first else {}
    return {**on_host, settings.compute: range(first, config.num_hidden_layers)}


def _host_layers(config: ModelConfig, settings: Settings) -> int:
    """Return how many layers, the first ones, run on the host while the rest is on the GPU."""
    if settings.compute == "host" or settings.gpu_layers is None:
        return 0
    return config.num_hidden_layers - settings.gpu_layers

"""How all layers of a device run: in one call of the native extension, or one by one."""

from dataclasses import dataclass
from typing import Protocol

from glm4q.kernels.attention.attention_spec import AttentionSpec
from glm4q.kernels.cpu.attention import NativeAttention
from glm4q.kernels.cpu.native import Native


@dataclass(frozen=True)
class LayersSpec:
    """Layers on one device, by what decides how they can run."""

    linears: frozenset[object]
    """The kernels of all their linears."""
    attention: AttentionSpec

    def __str__(self) -> str:
        return f"layers over {self.attention.kv} on {self.attention.device.type}"


class LayersKernel(Protocol):
    """One way to run the layers of a device."""

    @property
    def name(self) -> str:
        """The name under which `glm4q bench` shows it."""

    def refuses(self, spec: LayersSpec) -> str | None:
        """Why it does not serve, or None where it does."""


class NativeLayers:
    """One call for all layers: small models wait for Python more than for memory."""

    name = "native"

    def refuses(self, spec: LayersSpec) -> str | None:
        if spec.attention.device.type != "cpu":
            return (
                "runs the layers of a CPU; those of a GPU are launched one by one, and a step that "
                "is recorded as a CUDA graph has all its launches in one call"
            )
        if len(spec.linears) != 1 or not isinstance(next(iter(spec.linears)), Native):
            return "takes layers whose linears are all multiplied by the native kernel"
        return NativeAttention().refuses(spec.attention)


class SingleLayers:
    """One layer after another, by whatever kernels they have."""

    name = "one by one"

    def refuses(self, spec: LayersSpec) -> str | None:
        return None


FUSED: tuple[LayersKernel, ...] = (NativeLayers(), SingleLayers())
"""The fastest first."""

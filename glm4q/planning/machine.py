"""Where and how a model is computed, and how much memory is free there."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from calculator.host.memory import available_bytes
from calculator.memory.plan import CUDA_CONTEXT_BYTES
from calculator.memory.settings import Device
from glm4q import __version__
from glm4q.kernels.choose import KERNELS, candidates
from glm4q.kernels.spec import Kernel
from glm4q.planning.devices import choose_device, choose_dtype


@dataclass(frozen=True)
class Machine:
    """The devices that a plan speaks of, the dtype of activations, and the kernels to choose of."""

    compute: Device
    places: Mapping[Device, torch.device]
    """Where what the plan puts on "gpu" and "host" really lies."""
    dtype: torch.dtype
    kernels: tuple[Kernel, ...] = KERNELS

    @property
    def device(self) -> torch.device:
        """Where the layers run, or the last of them."""
        return self.places[self.compute]

    def usable_bytes(self) -> int:
        """What a plan may fill of the device that computes, CUDA context included."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return free + CUDA_CONTEXT_BYTES  # asking has made the context
        return available_bytes()


def choose_machine(device: str, dtype: str, kernel: str, activations: str = "auto") -> Machine:
    """By the words of the command line. Raises OptionError."""
    where = choose_device(device)
    return Machine(
        compute="gpu" if where.type == "cuda" else "host",
        places={"gpu": where, "host": torch.device("cpu")},
        dtype=choose_dtype(dtype, where),
        kernels=candidates(kernel, activations),
    )


def versions() -> dict[str, str]:
    """Return the versions of what computes, for records of measurements."""
    return {
        "glm4q": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }

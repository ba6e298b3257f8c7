"""Options of the commands that compute. The names of the kernels need torch to be imported."""

from dataclasses import dataclass
from typing import Annotated

from glm4q.commands.options.declare import MACHINE, choice
from glm4q.kernels.choose import ACTIVATIONS, KERNELS

DEVICE_NAMES = ("auto", "cuda", "cpu")
DTYPE_NAMES = ("auto", "bf16", "fp32")
KERNEL_NAMES = ("auto", *(kernel.name for kernel in KERNELS))
KERNEL_HELP = "The kernel of quantized layers; auto takes the fastest that can serve"
ACTIVATIONS_HELP = (
    "What a CPU rounds activations to before they meet codes; int16 loses less on 4-bit weights, "
    "and is slower"
)

Device = Annotated[str, choice("The device that computes", DEVICE_NAMES, MACHINE)]
Dtype = Annotated[str, choice("The type of activations", DTYPE_NAMES, MACHINE)]
Kernel = Annotated[str, choice(KERNEL_HELP, KERNEL_NAMES, MACHINE)]
Activations = Annotated[str, choice(ACTIVATIONS_HELP, ACTIVATIONS, MACHINE)]


@dataclass
class Compute:
    """What computes, in the words of the command line."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    kernel: Kernel = "auto"
    activations: Activations = "auto"

"""Options that only commands which compute have: their choices need torch to be imported."""

from typing import Annotated

from glm4q.commands.options.shared import MACHINE, choice
from glm4q.kernels.choose import KERNELS

Kernel = Annotated[
    str,
    choice(
        "The kernel of quantized layers; auto takes the fastest that can serve",
        ("auto", *(kernel.name for kernel in KERNELS)),
        MACHINE,
    ),
]

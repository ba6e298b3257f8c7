"""An older card's kernels on the card that is here, so that one card tests the code of several."""

import torch
from triton import knobs
from triton.runtime import driver


def compile_for(capability: str) -> None:
    """Have Triton and the project take the card for one of that compute capability, such as 8.6.

    Triton lowers a kernel for that capability: its tensor cores' instructions and its copies. ptxas
    then assembles the code for the card that is here, which knows the instructions of older cards.
    Raises ValueError where the card is older.
    """
    major, minor = map(int, capability.split("."))
    asked = major, minor
    here = torch.cuda.get_device_capability()
    if asked > here:
        raise ValueError(f"--compiled-for {capability}: the card has {here[0]}.{here[1]}")
    driver.active.get_current_target()  # reads the card before it is said to be another
    knobs.runtime.override_arch = f"sm{major}{minor}"
    torch.cuda.get_device_capability = lambda device=None: asked

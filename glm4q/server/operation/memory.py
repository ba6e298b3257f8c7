"""How much memory this process holds now."""

import torch

from calculator.memory.settings import Device
from glm4q.memory.process import resident_bytes


def held_bytes(device: Device) -> int:
    """Bytes of the host that the process has in memory, or of the GPU that torch has taken."""
    if device == "gpu":
        return torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    return resident_bytes()

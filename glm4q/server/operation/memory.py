"""How much memory this process holds now."""

import resource
from pathlib import Path

import torch

from calculator.memory.settings import Device

STATUS = Path("/proc/self/status")


def held_bytes(device: Device) -> int:
    """Bytes of the host that the process has in memory, or of the GPU that torch has taken."""
    if device == "gpu":
        return torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    if STATUS.exists():
        (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the peak: macOS counts bytes

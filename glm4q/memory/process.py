"""Memory of the host that this process holds, as the system counts it."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """What it holds now; where the system does not tell, the most that it has held."""
    now = _status("VmRSS")
    return peak_bytes() if now is None else now


def peak_bytes() -> int:
    """The most that it has held since it began, or since the count was set back."""
    peak = _status("VmHWM")  # Linux's getrusage counts the parent's memory before exec as well
    return _largest_resident() if peak is None else peak


def _largest_resident() -> int:
    """What getrusage counts: bytes on macOS, and kibibytes elsewhere."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int | None:
    """Return an entry of Linux's file in bytes; None where the system has no such file or entry."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)

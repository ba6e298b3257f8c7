"""Memory of the host that this process holds, as the system counts it."""

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """What it holds now; where the system does not tell, the most that it has held."""
    now = _status("VmRSS")
    return peak_bytes() if now is None else now


def peak_bytes() -> int:
    """The most that it has held since it began, or since the count was set back."""
    peak = _status("VmHWM")  # Linux's getrusage counts the parent's memory before exec as well
    # macOS, which has no such file, counts bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak


def _status(name: str) -> int | None:
    """Return an entry of Linux's file in bytes; None where there is no such file."""
    if not STATUS.exists():
        return None
    (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) * 1024

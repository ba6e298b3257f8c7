"""How much memory this process has held, as the system counts it."""

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
"""https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html"""


def peak_bytes() -> int:
    """The most memory that this process has held since it began, or since `reset_peak`."""
    if STATUS.exists():  # Linux's getrusage counts the parent's memory before exec as well
        (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak() -> int:
    """Count the peak anew, where the system can; what it starts from."""
    if CLEAR.exists():
        CLEAR.write_text(FORGET_PEAK)
    return peak_bytes()

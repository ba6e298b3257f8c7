"""Copy text: through a clipboard program, or through the terminal itself (OSC 52)."""

import base64
import shutil
import subprocess

from rich.console import Console

from calculator.errors import OptionError
from calculator.units import counted

PROGRAMS = (
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("pbcopy",),
    ("clip.exe",),
)
SECONDS = 2
"""A clipboard program that waits longer has no display to talk to."""


def copy(text: str, console: Console) -> str:
    """Copy the text and return a sentence that says how. Raises OptionError where nothing can."""
    size = counted(len(text), "character")
    for program in PROGRAMS:
        if shutil.which(program[0]) and _takes(program, text):
            return f"{size} copied by {program[0]}"
    if not console.is_terminal or console.is_dumb_terminal:
        raise OptionError("nothing was copied: there is no clipboard program, and no terminal")
    encoded = base64.b64encode(text.encode()).decode()
    console.file.write(f"\x1b]52;c;{encoded}\x07")
    console.file.flush()
    return f"{size} sent to the terminal's clipboard (OSC 52); some terminals do not allow that"


def _takes(program: tuple[str, ...], text: str) -> bool:
    try:
        process = subprocess.run(
            program,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0

"""Write the golden screens: `python tests/golden/write_screens.py`, then read the diff."""

import contextlib
import io
import os
import shlex
from pathlib import Path

from glm4q.cli import main

FOLDER = Path(__file__).with_name("screens")
WIDTHS = (80, 120)
QUESTIONS = {
    "3060-at-32k": "--gpu 3060 --context 32k",
    "4070-laptop": "--gpu '4070 laptop'",
    "two-4090s-20-users": "--gpu 4090 --gpus 2 --users 20 --context 16k --shared-prefix 2k",
    "8-gb-with-a-desktop": "--gpu 4060 --reserve 1",
    "apple-36-gb": "--gpu 'm4 max 36gb'",
    "no-card": "glm-4-9b-chat --show recommended",
    "bf16-on-8-gb": "--gpu 4060 --weights bf16",
    "cards-that-differ": "--gpus 3090,3060",
    "32b-on-24-gb": "GLM-4-32B-0414 --gpu 3090",
    "6-gb-grid": "--gpu 2060 --show grid",
}
"""Questions that owners of cards ask."""


def screen(arguments: str, width: int) -> str:
    """What `glm4q calc` prints on a terminal of that many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            main(["calc", *shlex.split(arguments)])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    lines = (line.rstrip() for line in printed.getvalue().splitlines())
    return f"$ glm4q calc {arguments}\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, arguments in QUESTIONS.items():
        for width in WIDTHS:
            (FOLDER / f"{name}-{width}.txt").write_text(screen(arguments, width))

"""The file of a training, from which a run that was cut off goes on."""

from pathlib import Path

import torch

from quantize.heal.training import Progress
from quantize.output.working_directory import load_lasting, save_lasting

FILE = "healing"
"""The file's name within the unfinished output."""
GROUPS = ("factors", "means", "squares", "best")


def save_progress(directory: Path, progress: Progress) -> None:
    """Make the state of a training outlast a kill."""
    tensors = {
        f"{group}-{part}": tensor
        for group in GROUPS
        for part, tensor in enumerate(getattr(progress, group))
    }
    tensors["numbers"] = torch.tensor([progress.step, *progress.checks], dtype=torch.float64)
    save_lasting(tensors, directory / FILE)


def read_progress(directory: Path, device: torch.device) -> Progress | None:
    """Read the state of an earlier run; None where there is none."""
    if not (directory / FILE).is_file():
        return None
    tensors = load_lasting(directory / FILE)
    step, *checks = tensors.pop("numbers").tolist()
    parts = len(tensors) // len(GROUPS)
    groups = {
        group: [tensors[f"{group}-{part}"].to(device) for part in range(parts)] for group in GROUPS
    }
    return Progress(**groups, step=int(step), checks=checks)

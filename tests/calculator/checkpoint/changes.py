"""Change a checkpoint directory for a test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.model.formats import BF16, WeightFormat
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe

Change = Callable[[dict[str, Tensor]], object]


def change_tensors(checkpoint: Path, change: Change) -> None:
    tensors = load_file(checkpoint / SINGLE)
    change(tensors)
    save_file(tensors, checkpoint / SINGLE)


def change_config(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def quantized(checkpoint: Path, linear: WeightFormat, head: WeightFormat = BF16) -> Path:
    output = checkpoint.parent / str(linear)
    quantize_checkpoint(StoredModel.open(checkpoint), output, Recipe(linear, head))
    return output

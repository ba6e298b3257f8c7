"""Quantize a checkpoint to INT8, and print both sizes: examples/quantize.py SOURCE OUTPUT"""

import sys
from pathlib import Path

from calculator.checkpoint.stored import StoredModel
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import make_recipe


def main() -> None:
    source, output = map(Path, sys.argv[1:])
    quantize_checkpoint(StoredModel.open(source), output, make_recipe(weights="int8"))
    for directory in (source, output):
        tensors = StoredModel.open(directory).tensors.values()
        print(f"{directory.name}: {sum(header.nbytes for header in tensors):,} bytes")


if __name__ == "__main__":
    main()

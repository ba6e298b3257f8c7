"""Peak resident memory of `glm4q quantize` on GLM-4-9B's true shapes, with 1, 2 and 4 layers.

One tensor is in memory at a time, so the peak must not grow with the layers. The checkpoint is
synthetic: a sparse file of zeros under the real header, which costs the same memory to quantize.

    python benchmarks/quantize_memory.py [--weights int4] [--lm-head bf16]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from calculator.model.presets import PRESETS
from calculator.units import human_bytes
from quantize.output.layout import PlannedTensor
from quantize.output.shards import header

LAYERS = (1, 2, 4)


def write_synthetic(config: ModelConfig, directory: Path) -> int:
    """A bf16 checkpoint of zeros that takes no room on the disk. Returns its bytes."""
    tensors = [PlannedTensor(weight.name, "BF16", weight.shape) for weight in weights(config)]
    start = header(tensors)
    total = len(start) + sum(tensor.nbytes for tensor in tensors)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(total)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    return total


def measure(command: list[str]) -> tuple[int, float]:
    """Peak resident bytes and seconds of a command, by the operating system's own account."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="int4")
    parser.add_argument("--lm-head", default="bf16")
    options = parser.parse_args()
    glm4q = [sys.executable, "-c", "import sys; from glm4q.cli import main; sys.exit(main())"]
    idle, _ = measure([sys.executable, "-c", "import torch, glm4q.engine"])
    print(f"Python with torch and no model: {human_bytes(idle)}")
    print("layers  source      peak        seconds")
    for layers in LAYERS:
        with tempfile.TemporaryDirectory() as temporary:
            source, output = Path(temporary) / "source", Path(temporary) / "output"
            source.mkdir()
            config = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=layers)
            total = write_synthetic(config, source)
            command = [*glm4q, "quantize", str(source), "-o", str(output)]
            command += ["--method", "rtn", "--no-quality"]
            command += ["--weights", options.weights, "--lm-head", options.lm_head]
            peak, seconds = measure(command)
        print(f"{layers:<7} {human_bytes(total):<11} {human_bytes(peak):<11} {seconds:.1f}")


if __name__ == "__main__":
    main()

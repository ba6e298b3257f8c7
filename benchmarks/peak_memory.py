"""Peak resident memory beside the plan, of whole processes that load and run a checkpoint.

python -m benchmarks.peak_memory CHECKPOINT ... [--synthetic DIRECTORY] [--isa avx2]

With --synthetic, layers of GLM-4-9B's true shapes with random weights are made there and measured
too. The machine is limited to AVX2, which most CPUs of consumers have, and torch with it.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks.machine import LIMITED, ask, describe_machine

LAYERS = 2
WEIGHTS = "bf16", "int8", "int4"
SHORT = ["--device", "cpu", "--prompt", "512", "--decode", "4", "--runs", "1", "--depths", "0"]
TORCH = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_WAIT_POLICY": "passive"}
MB = 1e6


def measure(instruction_set: str, *checkpoint: str) -> dict[str, Any]:
    """What `glm4q bench` measures of a checkpoint, in a process of its own."""
    record: dict[str, Any] = ask(
        [*LIMITED, instruction_set, "bench", *checkpoint, *SHORT, "--json"]
    )
    return record


def row_of(name: str, dtype: str, record: dict[str, Any]) -> str:
    held = sum(each["held_bytes"] - each["planned_bytes"] for each in record["held"])
    numbers = [
        record["planned_bytes"],
        record["process_bytes"],
        record["peak_bytes"] + record["process_bytes"],
    ]
    cells = [f"{number / MB:,.1f}" for number in numbers]
    share = f"{record['beyond_plan_and_process']:+.1%}"
    return f"| {name} | {dtype} | {' | '.join(cells)} | {share} | {held} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="*")
    parser.add_argument("--synthetic", type=Path, help="where the random weights are kept")
    parser.add_argument("--isa", default="avx2")
    asked = parser.parse_args()
    if asked.isa == "avx2":
        os.environ.update(TORCH)
    cases = {path.name: [str(path)] for path in asked.checkpoint}
    if asked.synthetic is not None:
        for weights in WEIGHTS:
            head = ["--lm-head", "int8"] if weights != "bf16" else []
            cases[f"GLM-4-9B, {LAYERS} layers, {weights}"] = [
                str(asked.synthetic / weights), "--synthetic", "glm-4-9b-chat",
                "--weights", weights, "--layers", str(LAYERS), *head,
            ]  # fmt: skip
    print(
        "| checkpoint | dtype | plan | process before | peak | beside both | held - planned |\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )
    for name, checkpoint in cases.items():
        for dtype in ("bf16", "fp32"):
            record = measure(asked.isa, *checkpoint, "--dtype", dtype)
            print(row_of(name, dtype, record), flush=True)
    print(f"\nMB. {describe_machine()}")


if __name__ == "__main__":
    main()

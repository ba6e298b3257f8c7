"""What a longer context costs decoding: seconds a token at depths up to 32K, beside what the bytes
that it reads would take at the machine's bandwidth. A table, and a chart where --svg names a file.

    python -m benchmarks.context_cost CHECKPOINT [--kv bf16 int8] [--depths 0,8k,16k] [--svg FILE]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chart import Chart
from benchmarks.machine import GLM4Q, ask, describe_machine
from calculator.report.pictures.drawing import COLOURS, Drawing
from calculator.report.pictures.svg import as_svg
from calculator.units import human_tokens

DEPTHS = "0,4k,8k,16k,24k,32k"


@dataclass(frozen=True)
class Costs:
    """The costs of one KV format, a number for each depth."""

    kv: str
    depths: list[int]
    measured: list[float]
    """Seconds a token."""
    by_bytes: list[float]
    """What reading would take."""


def measure_costs(checkpoint: Path, kv: str, depths: str, runs: int) -> Costs:
    command = [*GLM4Q, "bench", str(checkpoint), "--json", "--kv", kv, "--depths", depths]
    answer: dict[str, Any] = ask([*command, "--prompt", "1", "--decode", "8", "--runs", str(runs)])
    bandwidth = answer["read_bandwidth_bytes_per_second"]
    return Costs(
        kv,
        answer["depths"],
        [1 / speed for speed in answer["decode_tokens_per_second"]],
        [read / bandwidth for read in answer["decode_bytes_per_token"]],
    )


def print_table(costs: list[Costs]) -> None:
    print("| KV | depth | ms a token | by its bytes | share of bandwidth |")
    print("|---|---:|---:|---:|---:|")
    for each in costs:
        for depth, took, least in zip(each.depths, each.measured, each.by_bytes, strict=True):
            print(f"| {each.kv} | {depth:,} | {took * 1e3:.1f} | {least * 1e3:.1f} "
                  f"| {least / took:.0%} |")  # fmt: skip


def draw(title: str, costs: list[Costs]) -> Drawing:
    """A curve for each format, and a dashed one for its bytes."""
    deepest = max(max(each.depths) for each in costs)
    chart = Chart(0, deepest, max(max(each.measured) for each in costs))
    marks = [(depth, human_tokens(depth)) for depth in costs[0].depths]
    chart.frame(title, "tokens in the cache", marks, lambda seconds: f"{seconds * 1e3:.3g} ms")
    for each, colour in zip(costs, COLOURS, strict=False):
        measured = list(zip(each.depths, each.measured, strict=True))
        by_bytes = list(zip(each.depths, each.by_bytes, strict=True))
        chart.curve(measured, each.kv, colour)
        chart.curve(by_bytes, f"{each.kv}, bytes", colour, dashed=True)
    return chart.drawing()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kv", nargs="+", default=["bf16", "int8"])
    parser.add_argument("--depths", default=DEPTHS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    costs = [
        measure_costs(options.checkpoint, kv, options.depths, options.runs) for kv in options.kv
    ]
    print_table(costs)
    print(describe_machine())
    if options.svg:
        title = f"{options.checkpoint.name}: time of a token over context"
        options.svg.write_text(as_svg(draw(title, costs)))


if __name__ == "__main__":
    main()

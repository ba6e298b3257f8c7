"""What a longer context costs decoding: seconds a token at depths up to 32K, beside what the bytes
that it reads would take at the machine's bandwidth. A table, and a chart where --svg names a file.

    python -m benchmarks.context_cost CHECKPOINT [--kv bf16 int8] [--depths 0,8k,16k] [--svg FILE]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import GLM4Q, ask, describe_machine
from calculator.report.pictures.drawing import (
    BOTTOM,
    COLOURS,
    FAINT,
    HEIGHT,
    INK,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Drawing,
    Label,
    Line,
    Point,
)
from calculator.report.pictures.svg import as_svg
from calculator.units import human_tokens

DEPTHS = "0,4k,8k,16k,24k,32k"
SHARES = 5
"""Lines of the scale above its foot."""


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
    found: dict[str, Any] = ask([*command, "--prompt", "1", "--decode", "8", "--runs", str(runs)])
    bandwidth = found["read_bandwidth_bytes_per_second"]
    return Costs(
        kv,
        found["depths"],
        [1 / speed for speed in found["decode_tokens_per_second"]],
        [read / bandwidth for read in found["decode_bytes_per_token"]],
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
    deepest = max(max(each.depths) for each in costs) or 1
    top = max(max(each.measured) for each in costs)

    def place(depth: float, seconds: float) -> Point:
        return (
            round(LEFT + depth / deepest * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - seconds / top * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines, labels = [], [Label((LEFT, TOP / 2), title, size=16)]
    for share in range(SHARES + 1):
        seconds = top * share / SHARES
        lines.append(Line((place(0, seconds), place(deepest, seconds)), FAINT if share else INK))
        x, y = place(0, seconds)
        labels.append(Label((x - 8, y), f"{seconds * 1e3:.3g} ms", anchor="end"))
    for depth in costs[0].depths:
        x, y = place(depth, 0)
        labels.append(Label((x, y + 18), human_tokens(depth), anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    labels.append(Label((middle, HEIGHT - 18), "tokens in the cache", anchor="middle"))
    for each, colour in zip(costs, COLOURS, strict=False):
        for name, seconds_at, dashed in (
            (each.kv, each.measured, False),
            (f"{each.kv}, bytes", each.by_bytes, True),
        ):
            points = tuple(map(place, each.depths, seconds_at))
            lines.append(Line(points, colour, 2.5, dashed))
            labels.append(Label((points[-1][0] + 8, points[-1][1]), name, colour))
    return Drawing(tuple(lines), tuple(labels))


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

"""What the widths that fill a card cost the demo model, from cards of 6 GB to 24 GB.

The demo model is far smaller than such cards, so each card is played: GLM-4-9B-Chat's matrices are
given the widths that fill the true card, with a context of 8,192 tokens, and the demo's card is as
far between all matrices in INT4 and all in bf16 as those bytes are. Symmetric, groups of 64,
judged on the built-in held-out text with the reference kernels. `--method rtn` rounds to nearest,
which shows the same curve higher up in a tenth of the time.

    python benchmarks/card_quality.py [--method rtn] [--samples 32] [--svg docs/card-quality.svg]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from calculator.checkpoint.stored import StoredModel
from calculator.memory.settings import RESERVE, Settings
from calculator.questions.asked import Asked
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.questions.widths.fill import fill_card
from calculator.questions.widths.sensitivity import alike
from calculator.questions.widths.slots import HEAD_SLOT, Bits, Widths
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
)
from calculator.report.pictures.svg import as_svg
from quantize.demo_model import write_demo_model

CARDS = ("6", "7", "8", "9", "10", "12", "16", "24")
"""GiB of the cards."""
CONTEXT = 2048
GLM4Q = [sys.executable, "-c", "import sys; from glm4q.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Point:
    """A card, and the demo model on the card that plays it."""

    card: float
    """GiB."""
    share: float
    """How far the card is from all matrices in INT4 (0) to all in bf16 (1)."""
    loss: float
    """The change of perplexity over the source's."""
    widths: str


def matrix_bytes(widths: Widths, bits: Bits) -> int:
    """Bytes of the layers' matrices."""
    return sum(
        sum(each.parts(weight).values())
        for weight, each in widths.formats(bits).items()
        if weight.role == "linear"
    )


def of_all(widths: Widths, bits: int) -> dict[str, int]:
    """Every matrix in one width."""
    return {slot.name: max(bits, slot.bits[0]) for slot in widths.slots}


def share_of(card: str) -> float:
    """How far GLM-4-9B-Chat's matrices come from INT4 to bf16 on a card."""
    asked = Asked(vram=card, context="8k", kv="int8", embedding="host")
    question = asked.question()
    widths = Widths(question.subject.config)
    bits = fill_card(question, widths, alike(widths).costs).bits
    least, most = (matrix_bytes(widths, of_all(widths, each)) for each in (4, 16))
    return (matrix_bytes(widths, bits) - least) / (most - least)


def played_vram(source: StoredModel, share: float) -> float:
    """MiB of the demo's card that is as far between INT4 and bf16."""
    widths = Widths(source.config, "64")

    def need(bits: int) -> int:
        formats = widths.formats(of_all(widths, bits))
        settings = Settings(CONTEXT, kv="int8", display_reserve=RESERVE["gpu"])
        return Question(Subject("", source.config, formats, "config", None), settings).need_bytes

    # The allocator's segments are large beside the demo, so a little room is added.
    return (need(4) + share * (need(16) - need(4))) / (1 << 20) + 1


def run(*arguments: str) -> None:
    """Run a command that has to succeed."""
    ran = subprocess.run([*GLM4Q, *arguments], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{ran.stderr[-2000:]}")


def widths_of(directory: Path) -> str:
    """How many matrices have each width."""
    stored = StoredModel.open(directory)
    widths = Widths(stored.config, "64")
    bits = [stored.formats[slot.weights[0]].bits for slot in widths.slots if slot.name != HEAD_SLOT]
    return ", ".join(
        f"{bits.count(each)} x {name}"
        for each, name in ((4, "INT4"), (8, "INT8"), (16, "bf16"))
        if each in bits
    )


def loss_of(directory: Path) -> float:
    held_out = json.loads((directory / "quality.json").read_text())["held_out"]
    return float(held_out["perplexity_change"])


def measure(
    directory: Path, method: str, samples: str, record: Path | None
) -> tuple[list[Point], float]:
    """Make a checkpoint for each card; return them, and the loss of all in INT4."""
    source = directory / "source"
    write_demo_model(source)
    alike_ = ["--group-size", "64", "--samples", samples]
    by = ["--method", method]
    run("quantize", str(source), "-o", str(directory / "int4"), "--weights", "int4", *alike_, *by)
    points = []
    for card in CARDS:
        share = share_of(card)
        output = directory / f"card-{card}"
        if share >= 1:
            points.append(Point(float(card), share, 0.0, "all in bf16"))
            continue
        vram = f"{played_vram(StoredModel.open(source), share):.1f}M"
        known = ["--sensitivity", str(record)] if record else []
        # Without a record rtn would go by the weights alone; gptq is not named, for where no
        # matrix has 4 bits all are rounded to nearest.
        chosen = by if method == "rtn" else []
        asked = ["--vram", vram, "--context", str(CONTEXT), "--kv", "int8", *known, *alike_]
        asked += chosen
        run("quantize", str(source), "-o", str(output), *asked)
        record = record or output
        points.append(Point(float(card), share, loss_of(output), widths_of(output)))
    return points, loss_of(directory / "int4")


def draw(points: list[Point], int4: float) -> Drawing:
    """Loss over card size; the loss of all in INT4 as a dashed line."""
    first, last = points[0].card, points[-1].card
    top = max(int4, *(point.loss for point in points)) * 1.1

    def place(card: float, loss: float) -> tuple[float, float]:
        across = (card - first) / (last - first)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - max(loss, 0) / top * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines = [Line((place(first, 0), place(last, 0)), INK)]
    labels = [
        Label(
            (LEFT, TOP / 2),
            "Loss over the card that is filled: the demo model, on played cards",
            size=16,
        ),
        Label(
            ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16),
            "GiB of the card, for GLM-4-9B-Chat with 8,192 tokens of context",
            anchor="middle",
        ),
    ]
    steps = 5
    for step in range(steps + 1):
        loss = top * step / steps
        lines.append(Line((place(first, loss), place(last, loss)), INK if not step else FAINT))
        labels.append(Label((LEFT - 8, place(first, loss)[1]), f"{loss:+.1%}", anchor="end"))
    for point in points:
        x, y = place(point.card, 0)
        labels.append(Label((x, y + 18), f"{point.card:g}", anchor="middle"))
    curve = tuple(place(point.card, point.loss) for point in points)
    lines.append(Line(curve, COLOURS[0], 2.5))
    lines.append(Line((place(first, int4), place(last, int4)), COLOURS[1], 2, dashed=True))
    labels.append(Label((WIDTH - RIGHT + 8, place(last, int4)[1]), "all in INT4", COLOURS[1]))
    labels.append(Label((WIDTH - RIGHT + 8, curve[-1][1]), "filled", COLOURS[0]))
    return Drawing(tuple(lines), tuple(labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="gptq", choices=("gptq", "rtn"))
    parser.add_argument("--samples", default="32")
    parser.add_argument("--sensitivity", type=Path, help="what matrices cost, measured before")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        points, int4 = measure(
            Path(temporary), options.method, options.samples, options.sensitivity
        )
    print("| card | from INT4 to bf16 | matrices of the demo | perplexity over source |")
    print("|---:|---:|---|---:|")
    print(f"| | 0% | all in INT4 | {int4:+.2%} |")
    for point in points:
        print(f"| {point.card:g} GiB | {point.share:.0%} | {point.widths} | {point.loss:+.2%} |")
    if options.svg:
        options.svg.write_text(as_svg(draw(points, int4)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the widths that fill a card cost the demo model, from cards of 6 GB to 24 GB.

The demo model is far smaller than such cards, so each card is played: GLM-4-9B-Chat's matrices are
given the widths that fill the true card, with a context of 8,192 tokens, and the demo's card is as
far between all matrices in INT4 and all in bf16 as those bytes are. Symmetric, groups of 64,
judged on the built-in held-out text with the reference kernels; what each matrix costs is measured
once, on the built-in samples. `--method rtn` rounds to nearest, which shows the same curve higher
up in a tenth of the time. `--half-way` plays one card alone, in the middle between all matrices in
INT4 and all in INT8.

    python -m benchmarks.card_quality [--method rtn] [--half-way] [--svg docs/card-quality.svg]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.chart import Chart
from benchmarks.machine import GLM4Q
from calculator.checkpoint.stored import StoredModel
from calculator.memory.settings import RESERVE, Settings
from calculator.questions.asked import Asked
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.questions.widths.fill import fill_card
from calculator.questions.widths.sensitivity import FILE, alike
from calculator.questions.widths.slots import HEAD_SLOT, Bits, Widths
from calculator.report.pictures.drawing import COLOURS, Drawing
from calculator.report.pictures.svg import as_svg
from quantize.calibrate.samples import read_calibration
from quantize.demo_model import write_demo_model
from quantize.quality.sensitivity.by_divergence import choose_samples
from quantize.quality.sensitivity.by_divergence import measure as measure_costs
from quantize.quality.sensitivity.workshop import Workshop

CARDS = ("6", "7", "8", "9", "10", "12", "16", "24")
"""GiB of the cards."""
CONTEXT = 2048
GROUP_SIZE = "64"


@dataclass(frozen=True)
class Loss:
    """What a checkpoint loses, and the widths of its matrices."""

    perplexity: float
    """The change of perplexity over the source's."""
    divergence: float
    """Nats."""
    widths: str


@dataclass(frozen=True)
class Point:
    """A card, and the demo model on the card that plays it."""

    card: float
    """GiB."""
    share: float
    """How far the card is from all matrices in INT4 (0) to all in bf16 (1)."""
    loss: Loss


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


def need_bytes(source: StoredModel, bits: int) -> int:
    """Bytes of the demo's run with all matrices in one width."""
    widths = Widths(source.config, GROUP_SIZE)
    formats = widths.formats(of_all(widths, bits))
    settings = Settings(CONTEXT, kv="int8", display_reserve=RESERVE["gpu"])
    return Question(Subject("", source.config, formats, "config", None), settings).need_bytes


def run(*arguments: str) -> None:
    """Run a command that has to succeed."""
    ran = subprocess.run([*GLM4Q, *arguments], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{ran.stderr[-2000:]}")


def loss_of(directory: Path) -> Loss:
    """Read what the command measured."""
    held_out: dict[str, Any] = json.loads((directory / "quality.json").read_text())["held_out"]
    stored = StoredModel.open(directory)
    widths = Widths(stored.config, GROUP_SIZE)
    bits = [stored.formats[slot.weights[0]].bits for slot in widths.slots if slot.name != HEAD_SLOT]
    named = ", ".join(
        f"{bits.count(each)} x {name}"
        for each, name in ((4, "INT4"), (8, "INT8"), (16, "bf16"))
        if each in bits
    )
    return Loss(held_out["perplexity_change"], held_out["kl_divergence"], named)


class Making:
    """Makes checkpoints of the demo model in a directory, all by one method and one record."""

    def __init__(self, directory: Path, method: str, samples: str) -> None:
        self._directory, self._method = directory, method
        self._options = ["--group-size", GROUP_SIZE, "--samples", samples]
        write_demo_model(directory / "source")
        self.source = StoredModel.open(directory / "source")
        self._record = directory / FILE
        token_ids = choose_samples(read_calibration(None, self.source).token_ids)
        costs = measure_costs(
            self.source,
            Widths(self.source.config, GROUP_SIZE),
            token_ids,
            self._workshop(),
            device=torch.device("cpu"),
            listener=lambda done, layers: None,
        )
        self._record.write_text(json.dumps(costs.record()))

    def of_one_width(self, weights: str) -> Loss:
        """Make a checkpoint whose matrices are all alike."""
        method = [] if weights == "int8" else ["--method", self._method]
        return self._make(weights, "--weights", weights, *method)

    def on_a_card(self, nbytes: float) -> Loss:
        """Make the checkpoint that fills a card of so many bytes."""
        # The allocator's segments are large beside the demo, so a little room is added.
        vram = f"{nbytes / (1 << 20) + 1:.1f}M"
        # gptq is not named, for where no matrix has 4 bits all are rounded to nearest.
        method = ["--method", "rtn"] if self._method == "rtn" else []
        card = ["--vram", vram, "--context", str(CONTEXT), "--kv", "int8"]
        return self._make(vram, *card, "--sensitivity", str(self._record), *method)

    def _make(self, name: str, *options: str) -> Loss:
        output = self._directory / name
        source = str(self.source.directory)
        run("quantize", source, "-o", str(output), *options, *self._options)
        return loss_of(output)

    def _workshop(self) -> Workshop:
        workshop = Workshop(self._directory / "costs", {})
        workshop.directory.mkdir()
        return workshop


def on_cards(making: Making) -> list[Point]:
    """Fill the card that plays each of the cards."""
    least, most = (need_bytes(making.source, bits) for bits in (4, 16))
    points = []
    for card in CARDS:
        share = share_of(card)
        if share < 1:
            loss = making.on_a_card(least + share * (most - least))
        else:
            loss = Loss(0.0, 0.0, "all in bf16")
        points.append(Point(float(card), share, loss))
    return points


def print_half_way(making: Making) -> None:
    """Fill the card in the middle between INT4 and INT8, and set it between these two."""
    least, most = (need_bytes(making.source, bits) for bits in (4, 8))
    print("| | perplexity over source | KL, nats | matrices |")
    print("|---|---:|---:|---|")
    for name, loss in (
        ("all in INT4", making.of_one_width("int4")),
        ("filled", making.on_a_card((least + most) / 2)),
        ("all in INT8", making.of_one_width("int8")),
    ):
        print(f"| {name} | {loss.perplexity:+.2%} | {loss.divergence:.4f} | {loss.widths} |")


def print_cards(points: list[Point], int4: Loss) -> None:
    print("| card | from INT4 to bf16 | matrices of the demo | perplexity over source | KL, nats |")
    print("|---:|---:|---|---:|---:|")
    print(f"| | 0% | all in INT4 | {int4.perplexity:+.2%} | {int4.divergence:.4f} |")
    for point in points:
        loss = point.loss
        print(
            f"| {point.card:g} GiB | {point.share:.0%} | {loss.widths} "
            f"| {loss.perplexity:+.2%} | {loss.divergence:.4f} |"
        )


def draw(points: list[Point], int4: Loss) -> Drawing:
    """Loss over card size; the loss of all in INT4 as a dashed line."""
    top = max(int4.perplexity, *(point.loss.perplexity for point in points)) * 1.1
    chart = Chart(points[0].card, points[-1].card, top)
    chart.frame(
        "Loss over the card that is filled: the demo model, on played cards",
        "GiB of the card, for GLM-4-9B-Chat with 8,192 tokens of context",
        [(point.card, f"{point.card:g}") for point in points],
        lambda loss: f"{loss:+.1%}",
    )
    filled = [(point.card, point.loss.perplexity) for point in points]
    chart.curve(filled, "filled", COLOURS[0])
    level = [(card, int4.perplexity) for card in (chart.first, chart.last)]
    chart.curve(level, "all in INT4", COLOURS[1], dashed=True)
    return chart.drawing()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="gptq", choices=("gptq", "rtn"))
    parser.add_argument("--samples", default="32")
    parser.add_argument("--half-way", action="store_true")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        making = Making(Path(temporary), options.method, options.samples)
        if options.half_way:
            return print_half_way(making)
        int4, points = making.of_one_width("int4"), on_cards(making)
    print_cards(points, int4)
    if options.svg:
        options.svg.write_text(as_svg(draw(points, int4)), encoding="utf-8")


if __name__ == "__main__":
    main()

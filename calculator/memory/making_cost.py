"""What a checkpoint costs to make: memory, disk and download, and the time on a CPU or a card.

Times on a CPU follow from measurements on two cores. On a card nothing was measured: its time is
arithmetic over its data sheet, with the assumptions below.
"""

from collections.abc import Mapping
from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.memory.making import (
    ROWS,
    STAGE_LINEARS,
    CalibrationPass,
    calibration_disk_bytes,
    estimate_memory,
)
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat

CALIBRATION = CalibrationPass("gptq", batch=4, tokens=512, number_bytes=2)
"""What `glm4q quantize` does for INT4 weights if nothing else is asked for."""
CALIBRATION_SAMPLES = 82
"""The built-in calibration text makes about as many samples."""
HELD_OUT_TOKENS = 4100
"""The built-in texts that quality is measured on have about as many tokens."""

Span = tuple[float, float]
"""A band: the least and the most."""

FILE_RATE: Span = (0.3e9, 1.5e9)
"""Bytes of bf16 weights that two cores read, round and write a second (benchmarks/RESULTS.md: 0.57
and 1.10 GB/s, and half of that is the file system)."""
GPTQ_NUMBERS_RATE = 1.4e6
"""Numbers of weights that GPTQ rounds a second on two cores, whatever the samples."""
GPTQ_PRODUCTS_RATE = 1.1e10
"""Numbers of weights x tokens of samples that calibration takes a second on two cores. Both rates
follow from 221 s for a layer of 204 million numbers and 8 x 512 tokens, a third of it for the
samples as on the demo model (benchmarks/RESULTS.md)."""
QUALITY_RATE: Span = (2e10, 1e11)
"""Numbers of weights x tokens that two cores take a second while quality is measured: assumed."""
GPTQ_BAND: Span = (0.5, 1.5)
"""Machines differ from the one that was measured."""

COLUMN_LAUNCHES = 40
"""Launches of torch's operators for each input of a weight and each ROWS of its outputs: 12 in
`round_block` of quantize/methods/gptq.py, and 7 in each of the 4 sweeps of refine.py."""
LAUNCH_SECONDS: Span = (4e-6, 12e-6)
"""What the host takes to launch an operator of torch: assumed."""
CARD_EFFICIENCY: Span = (0.25, 0.65)
"""Large products are assumed to reach this share of the rates on a card's data sheet."""
ROUNDING_PRODUCTS = 9
"""Products of a weight, [N, K], by sums over inputs, [K, K], while GPTQ rounds it: the target takes
3, making up for errors 1/2, coordinate descent 3, and the reported error 2."""


@dataclass(frozen=True)
class CardRates:
    """Operations a second on a card's data sheet; multiply-adds count twice."""

    matrix: float
    """The rate of bfloat16 or float16 products."""
    float32: float


@dataclass(frozen=True)
class MakingCost:
    """What quantizing a model takes, from the same plan that `glm4q quantize` prints."""

    memory_bytes: int
    disk_bytes: int
    """The checkpoint, and hidden states while it is made."""
    source_bytes: int
    """The bf16 files of the model: what is downloaded if they are not there."""
    seconds: Span
    """A band, for two cores of a server."""
    card_seconds: Span | None
    """A band, for the card; None where no card computes: rounding without samples is done by the
    CPU, and a card needs to have all of `memory_bytes`."""


def making_cost(
    formats: Mapping[Weight, WeightFormat],
    config: ModelConfig,
    *,
    calibrated: bool,
    measured: bool = True,
    card: CardRates | None = None,
    card_bytes: int = 0,
) -> MakingCost:
    """Return the cost of making a checkpoint in these formats from bf16 files.

    measured: its quality is measured at the end. card: what computes if `card_bytes` hold the run.
    """
    how = CALIBRATION if calibrated else replace(CALIBRATION, tokens=0)
    held_out = HELD_OUT_TOKENS if measured else 0
    need = estimate_memory(formats, config, how, held_out=held_out)
    disk = sum(sum(each.parts(weight).values()) for weight, each in formats.items())
    if calibrated:
        disk += calibration_disk_bytes(
            config, samples=CALIBRATION_SAMPLES, tokens=how.tokens, number_bytes=2
        )
    source = 2 * sum(weight.numel for weight in formats if not _is_made(weight, config))
    computes = card is not None and calibrated and card_bytes >= need.total
    return MakingCost(
        need.total,
        disk,
        source,
        _cpu_seconds(formats, source, calibrated=calibrated, held_out=held_out),
        _card_seconds(formats, config, source, card) if card and computes else None,
    )


def _is_made(weight: Weight, config: ModelConfig) -> bool:
    """Whether the source lacks the weight: a head of its own, made of a tied embedding."""
    return config.tie_word_embeddings and weight.role == "head"


def _layer_numbers(formats: Mapping[Weight, WeightFormat]) -> int:
    return sum(weight.numel for weight in formats if weight.layer is not None)


def _cpu_seconds(
    formats: Mapping[Weight, WeightFormat], source_bytes: int, *, calibrated: bool, held_out: int
) -> Span:
    layers = _layer_numbers(formats)
    # Quality is measured at the end: the source and the result each read the held-out text.
    fast, slow = (2 * layers * held_out / rate for rate in reversed(QUALITY_RATE))
    if not calibrated:
        least, most = (source_bytes / rate for rate in reversed(FILE_RATE))
        return least + fast, most + slow
    tokens = CALIBRATION_SAMPLES * CALIBRATION.tokens
    whole = layers / GPTQ_NUMBERS_RATE + layers * tokens / GPTQ_PRODUCTS_RATE
    return whole * GPTQ_BAND[0] + fast, whole * GPTQ_BAND[1] + slow


def _card_seconds(
    formats: Mapping[Weight, WeightFormat], config: ModelConfig, source_bytes: int, card: CardRates
) -> Span:
    """Files, launches and sums one after another; quality reads the files of both models again."""
    tokens = CALIBRATION_SAMPLES * CALIBRATION.tokens
    passes = 2 * (tokens + HELD_OUT_TOKENS)  # two streams, and two models whose quality is measured
    streamed = 2 * _layer_numbers(formats) * passes / card.matrix
    sums, launches = 0.0, 0
    layer = {
        weight.module.removeprefix("model.layers.0."): weight
        for weight in formats
        if weight.layer == 0 and weight.role == "linear"
    }
    for stage in STAGE_LINEARS:
        outputs, inputs = sum(layer[name].shape[0] for name in stage), layer[stage[0]].shape[1]
        sums += 2 * tokens * inputs * (2 * inputs + config.hidden_size)
        sums += 2 * ROUNDING_PRODUCTS * outputs * inputs * inputs
        launches += COLUMN_LAUNCHES * inputs * -(-outputs // ROWS)
    rounded = config.num_hidden_layers * sums / card.float32
    least, most = (
        config.num_hidden_layers * launches * launch
        + (streamed + rounded) / efficiency
        + 2.5 * source_bytes / rate
        for launch, efficiency, rate in zip(
            LAUNCH_SECONDS, reversed(CARD_EFFICIENCY), reversed(FILE_RATE), strict=True
        )
    )
    return least, most

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
    WITH_SUMS_OF_ONE_WEIGHT,
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
TOKENS_RATE = 1.35e11
"""Multiply-adds a second of the two streams of samples and of the sums over their tokens, in
bfloat16, on two cores with instructions for it (`python -m benchmarks.quantize_speed`)."""
WEIGHTS_RATE = 8e10
"""Multiply-adds a second of rounding weights by those sums, whatever the samples, on the same. Both
rates follow from 201 s of CPU time for a layer of 204 million numbers and 8 x 512 tokens, of which
42 s go by tokens (benchmarks/RESULTS.md)."""
HEAD_ROWS_RATE = 3e10
"""The same where rows of q_proj and k_proj are rounded a few of each head at a time: 14.7 s of one
core for 4,352 rows of 4,096 inputs, where other programs leave it the memory, and up to 50
where they do not."""
QUALITY_RATE: Span = (2e10, 1e11)
"""Numbers of weights x tokens that two cores take a second while quality is measured: assumed."""
GPTQ_BAND: Span = (0.6, 2.0)
"""Machines differ from the one that was measured: with AVX2 alone the rates of its products let
expect 1.8 times as long, which was not measured."""

BLOCK_CALLS = 20
"""Calls of the card for each BLOCK inputs of a weight and each ROWS of its outputs, in GPTQ and in
all sweeps of coordinate descent, by quantize/methods/blocks/by_triton.py: 61,000 in a layer of
GLM-4-9B, counted on the simulated card of tests/card."""
BLOCK = 64
CALL_SECONDS: Span = (2e-5, 1.2e-4)
"""What the host takes for one: on an H200 with a slow host that layer took 6.3 s, with all else 103
microseconds for each call (docs/first-gpu.md); the least is assumed."""
CARD_EFFICIENCY: Span = (0.25, 0.65)
"""Large products are assumed to reach this share of the rates on a card's data sheet."""
SWEEPS_OF_PRODUCTS = 2
"""Sweeps of coordinate descent in which all codes of a group move with its scale. In the others few
codes move, which costs a CPU next to nothing, and a card as much."""


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
        _cpu_seconds(formats, config, source, calibrated=calibrated, held_out=held_out),
        _card_seconds(formats, config, source, card) if card and computes else None,
    )


def _is_made(weight: Weight, config: ModelConfig) -> bool:
    """Whether the source lacks the weight: a head of its own, made of a tied embedding."""
    return config.tie_word_embeddings and weight.role == "head"


def _layer_numbers(formats: Mapping[Weight, WeightFormat]) -> int:
    return sum(weight.numel for weight in formats if weight.layer is not None)


@dataclass(frozen=True)
class StageShape:
    """Linears of a layer that share an input."""

    outputs: int
    inputs: int
    is_one_weight: bool
    """Sums over tokens are those of one weight."""

    @property
    def token_products(self) -> int:
        """Multiply-adds for a token: both streams, and the sums."""
        numbers = self.outputs * self.inputs
        # The sums of one weight take its product with the streams' difference, and one more.
        others = 2 * numbers if self.is_one_weight else self.inputs**2
        return 2 * numbers + self.inputs**2 // 2 + others

    def weight_products(self, sweeps: int) -> int:
        """Multiply-adds while the weights are rounded, whatever the samples.

        sweeps: those of coordinate descent that multiply by the whole Hessian.
        """
        square, outputs = self.inputs**2, self.outputs
        # The target takes one product of the weights, or of as many columns as there are inputs.
        target = outputs * square + (0 if self.is_one_weight else self.inputs * square)
        # Making up for errors, and the slope that the descent begins with, are half a product each.
        return target + (1 + sweeps) * outputs * square + self.inputs * square // 3


def _stage_shapes(formats: Mapping[Weight, WeightFormat]) -> list[StageShape]:
    layer = {
        weight.module.removeprefix("model.layers.0."): weight
        for weight in formats
        if weight.layer == 0 and weight.role == "linear"
    }
    return [
        StageShape(
            sum(layer[name].shape[0] for name in stage),
            layer[stage[0]].shape[1],
            stage[0] in WITH_SUMS_OF_ONE_WEIGHT,
        )
        for stage in STAGE_LINEARS
    ]


def _head_products(config: ModelConfig) -> int:
    """Multiply-adds of a layer while the rows of q_proj and k_proj are rounded."""
    heads = config.num_attention_heads + config.num_key_value_heads
    return (1 + SWEEPS_OF_PRODUCTS) * heads * config.head_dim * config.hidden_size**2


def _head_token_products(config: ModelConfig) -> int:
    """Multiply-adds for a token to measure what attention makes of errors, and to sum by that."""
    heads = config.num_attention_heads + config.num_key_value_heads
    linears = 2 * heads * config.head_dim * config.hidden_size
    scores = 4 * CALIBRATION.tokens * config.num_attention_heads * config.head_dim
    mixed = 2 * CALIBRATION.tokens * config.hidden_size
    return linears + scores + mixed + 3 * config.hidden_size**2


def _cpu_seconds(
    formats: Mapping[Weight, WeightFormat],
    config: ModelConfig,
    source_bytes: int,
    *,
    calibrated: bool,
    held_out: int,
) -> Span:
    # Quality is measured at the end: the source and the result each read the held-out text.
    fast, slow = (2 * _layer_numbers(formats) * held_out / rate for rate in reversed(QUALITY_RATE))
    if not calibrated:
        least, most = (source_bytes / rate for rate in reversed(FILE_RATE))
        return least + fast, most + slow
    tokens = CALIBRATION_SAMPLES * CALIBRATION.tokens
    layer = sum(
        tokens * stage.token_products / TOKENS_RATE
        + stage.weight_products(SWEEPS_OF_PRODUCTS) / WEIGHTS_RATE
        for stage in _stage_shapes(formats)
    )
    layer += tokens * _head_token_products(config) / TOKENS_RATE
    layer += _head_products(config) * (1 / HEAD_ROWS_RATE - 1 / WEIGHTS_RATE)
    whole = config.num_hidden_layers * layer
    return whole * GPTQ_BAND[0] + fast, whole * GPTQ_BAND[1] + slow


def _card_seconds(
    formats: Mapping[Weight, WeightFormat], config: ModelConfig, source_bytes: int, card: CardRates
) -> Span:
    """Files, calls of the card and sums one after another, where Triton is there.

    Quality reads the files of both models again.
    """
    tokens = CALIBRATION_SAMPLES * CALIBRATION.tokens
    # Two streams, and two models whose quality is measured; sums and rounding are in float32.
    streamed = 4 * _layer_numbers(formats) * (tokens + HELD_OUT_TOKENS) / card.matrix
    sums, calls = 0.0, 0
    for stage in _stage_shapes(formats):
        passed = 2 * stage.outputs * stage.inputs
        sums += 2 * tokens * (stage.token_products - passed)
        sums += 2 * stage.weight_products(2 * SWEEPS_OF_PRODUCTS)
        calls += BLOCK_CALLS * -(-stage.inputs // BLOCK) * -(-stage.outputs // ROWS)
    sums += 2 * (tokens * _head_token_products(config) + _head_products(config))
    rounded = config.num_hidden_layers * sums / card.float32
    least, most = (
        config.num_hidden_layers * calls * call
        + (streamed + rounded) / efficiency
        + 2.5 * source_bytes / rate
        for call, efficiency, rate in zip(
            CALL_SECONDS, reversed(CARD_EFFICIENCY), reversed(FILE_RATE), strict=True
        )
    )
    return least, most

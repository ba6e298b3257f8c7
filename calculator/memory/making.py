"""What quantizing takes in memory and on disk, before it begins.

`glm4q quantize` plans its run with it; for `glm4q calc`, making_cost.py adds the time.
"""

from collections.abc import Mapping
from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.arena import make_arena
from calculator.memory.scratch import needs_of_dequantizing
from calculator.model.architecture import Weight, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.units import human_bytes

ROWS = 1024
"""GPTQ rounds so many rows at once: a block of their columns stays in a core's cache."""
NUMBERS_AT_ONCE = 1 << 23
"""Rounding without samples takes runs of rows of so many numbers."""
POSITIONS_AT_ONCE = 32
"""Quality compares logits of so many positions at once."""
WINDOW = 512
"""Quality is measured on windows of so many tokens."""
STAGE_LINEARS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_up_proj",),
    ("mlp.down_proj",),
)
"""Linears of a layer that share an input, in the order in which they are calibrated."""
WITH_SUMS_OF_ONE_WEIGHT = ("self_attn.o_proj", "mlp.down_proj")
"""Linears whose output joins the residual stream: sums over tokens are those of this one weight."""
WITH_HEAD_ERRORS = ("gptq", "auto")
"""Methods by which the rows of q_proj and k_proj make up for each other's errors."""
CHECKING_PART = 4
"""One sample in four checks how far the others are to be trusted, before it calibrates too. With
method auto it chooses between methods, and calibrates none."""
PROCESS_BYTES = 300 << 20
"""Python with torch takes 225 MiB before a model is read (benchmarks/quantize_memory.py)."""
ROUNDING_BYTES = NUMBERS_AT_ONCE * 12
"""Rows, their codes and their packed words while torch rounds them; C++ takes less."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the fullest moment of a run."""

    terms: Mapping[str, int]

    @property
    def total(self) -> int:
        """The sum, and a quarter more: the allocator kept up to that unused on the demo model."""
        return sum(self.terms.values()) * 5 // 4


@dataclass(frozen=True)
class CalibrationPass:
    """How calibration samples go through the model."""

    method: str
    batch: int
    tokens: int
    """Tokens of a sample; 0 where there are no samples."""
    number_bytes: int
    """Bytes of a number that is computed with: 2 for bfloat16, 4 for float32."""


def estimate_memory(
    formats: Mapping[Weight, WeightFormat],
    config: ModelConfig,
    how: CalibrationPass,
    *,
    held_out: int = 0,
) -> MemoryEstimate:
    """An upper bound of the memory that a run takes; host and GPU are counted together.

    held_out: tokens on which quality is measured at the end.
    """
    needs = [_rounding(formats)]
    if how.tokens:
        needs.append(_calibrating(formats, config, how))
    if held_out:
        needs.append(_measuring(formats, config, how.number_bytes, held_out))
    return max(needs, key=lambda need: need.total)


def _rounding(formats: Mapping[Weight, WeightFormat]) -> MemoryEstimate:
    return MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "rows at once": ROUNDING_BYTES,
        "largest weight": _largest(formats),
    })  # fmt: skip


def _calibrating(
    formats: Mapping[Weight, WeightFormat], config: ModelConfig, how: CalibrationPass
) -> MemoryEstimate:
    layer = [weight for weight in formats if weight.layer == 0]
    numbers = sum(weight.numel for weight in layer)
    linears = {
        weight.module.removeprefix("model.layers.0."): weight
        for weight in layer
        if weight.role == "linear"
    }
    stages = [
        _stage_terms([linears[name] for name in stage], how.method) for stage in STAGE_LINEARS
    ]
    if how.method in WITH_HEAD_ERRORS:
        stages[0] |= _head_terms(config, how.tokens)
    fullest = max(stages, key=lambda terms: sum(terms.values()))
    size = how.number_bytes
    workspace = _workspace(config, how.batch, how.tokens, size, 0)
    kept = how.batch * how.tokens * config.num_key_value_heads * config.head_dim * 2 * 4
    return MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "a layer twice, and as it is read": numbers * (2 * size + 4),
        "codes of the layer": numbers,
        **fullest,
        "workspaces of both streams": 2 * workspace + kept,
        "a batch": how.batch * how.tokens * config.intermediate_size * (2 * size + 8),
        "largest weight beside the layers": max(_largest(formats), ROUNDING_BYTES),
    })  # fmt: skip


def _measuring(
    formats: Mapping[Weight, WeightFormat],
    config: ModelConfig,
    number_bytes: int,
    tokens: int,
) -> MemoryEstimate:
    layer = sum(weight.numel for weight in formats if weight.layer == 0)
    window = min(tokens, WINDOW)
    needs = needs_of_dequantizing(formats)(window)
    workspace = _workspace(config, 1, window, number_bytes, needs.scratch_bytes)
    heads = 2 * config.vocab_size * config.hidden_size * number_bytes
    return MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "a layer, and as it is read": layer * (number_bytes + 4),
        "both heads, one as it is read, one reordered": heads + 2 * _largest(formats),
        "hidden states of both models": 2 * tokens * config.hidden_size * number_bytes,
        "both models' workspaces": 2 * workspace,
        "logits of both": POSITIONS_AT_ONCE * config.vocab_size * 4 * 9,
    })  # fmt: skip


def sensing_memory(config: ModelConfig, *, samples: int, tokens: int) -> MemoryEstimate:
    """Bound the memory that a run takes while it measures what each matrix costs, in float32."""
    layer = [weight for weight in weights(config) if weight.layer == 0]
    numbers, largest = sum(weight.numel for weight in layer), max(each.numel for each in layer)
    states = states_bytes(config, samples, tokens) // 2
    head = config.vocab_size * config.hidden_size
    logits = 4 * POSITIONS_AT_ONCE * config.vocab_size
    workspace = _workspace(config, samples, tokens, 4, 0)
    layers = MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "a layer, rounded, and as it is read": 10 * numbers,
        "a matrix while it is rounded": 4 * 6 * largest,
        "the states of every layer, and as they are written": 2 * states,
        "workspace": 2 * workspace,
    })  # fmt: skip
    ends = MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "the head, and as it is read": 6 * head,
        "the states of every layer": 2 * states,
        "workspace": 2 * workspace,
        "logits": (samples + 6) * logits,
        "rows being rounded": 4 * 6 * NUMBERS_AT_ONCE,
    })  # fmt: skip
    return max(layers, ends, key=lambda need: need.total)


def states_bytes(config: ModelConfig, samples: int, tokens: int) -> int:
    """Bound the bytes of the disk for the states of all layers, which are replaced as a whole."""
    return 2 * 4 * samples * tokens * config.hidden_size * (config.num_hidden_layers + 1)


def _workspace(
    config: ModelConfig, batch: int, tokens: int, number_bytes: int, scratch_bytes: int
) -> int:
    arena = make_arena(
        config,
        batch=batch,
        chunk=tokens,
        room=tokens,
        activation_bytes=number_bytes,
        scratch=(scratch_bytes, scratch_bytes),
        head=False,
    )
    return arena.bytes


def _largest(formats: Mapping[Weight, WeightFormat]) -> int:
    return max(
        sum(weight_format.parts(weight).values()) for weight, weight_format in formats.items()
    )


def _stage_terms(linears: list[Weight], method: str) -> dict[str, int]:
    inputs = linears[0].shape[1]
    outputs = max(weight.shape[0] for weight in linears)
    name = linears[0].module.removeprefix("model.layers.0.")
    rows = outputs if name in WITH_SUMS_OF_ONE_WEIGHT else inputs
    sums = (inputs + rows) * inputs
    copies = 2 if method == "auto" else 1  # a trial, and the best so far
    checked = 2 if method in ("gptq", "auto") else 1  # one for the samples that check
    return {
        "sums over tokens": 4 * sums * checked,
        "factors of the Hessian": 4 * 4 * inputs * inputs,
        "the stage's weights in float32": 4 * sum(weight.numel for weight in linears) * 3 * copies,
        "a weight's target and trial": 4 * 3 * outputs * inputs,
        "rows being rounded": 4 * 8 * min(ROWS, outputs) * inputs,
    }


def _head_terms(config: ModelConfig, tokens: int) -> dict[str, int]:
    """What it takes to measure errors in queries and keys, and to round the rows of their heads."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    outputs = (heads + kv_heads) * config.head_dim
    return {
        "attention's errors": 4 * outputs * config.head_dim
        + 4 * tokens * (12 * outputs + 2 * config.hidden_size)
        + 4 * 6 * (heads // kv_heads) * tokens**2,
        "sums for keys and values": 2 * 4 * 4 * config.hidden_size**2,
        "rows of heads": 4 * 2 * outputs * config.hidden_size,
    }


def largest_batch(
    formats: Mapping[Weight, WeightFormat],
    config: ModelConfig,
    how: CalibrationPass,
    *,
    held_out: int,
    limit: int | None,
    limit_name: str,
) -> tuple[int, MemoryEstimate]:
    """Find the most samples a pass, `how.batch` or fewer, whose need is within `limit` bytes.

    limit_name: the limit and where it comes from, for messages. Raises OptionError with the memory
    that would do where not even one sample is within the limit.
    """
    while True:
        need = estimate_memory(formats, config, how, held_out=held_out)
        if limit is None or need.total <= limit:
            return how.batch, need
        if how.batch == 1 or not how.tokens:
            largest = max(need.terms, key=lambda name: need.terms[name])
            raise OptionError(
                f"{limit_name}, and this run needs {human_bytes(need.total)}, of which "
                f"{human_bytes(need.terms[largest])} for {largest}"
            )
        how = replace(how, batch=how.batch // 2)


def calibration_disk_bytes(
    config: ModelConfig, *, samples: int, tokens: int, number_bytes: int
) -> int:
    """Bytes of both streams' hidden states before and after a layer, and of two stages' inputs."""
    widths = 2 * config.hidden_size + config.hidden_size + config.intermediate_size
    return 2 * samples * tokens * widths * number_bytes

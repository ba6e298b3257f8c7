"""The memory of one forward pass beyond weights and KV cache, and the tile sizes that bound it.

The runtime takes its tile sizes from here, so that what is counted is what it allocates. At each
moment of a layer some tensors live at once; the fullest moment is the workspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from calculator.architecture import Weight
from calculator.config import ModelConfig
from calculator.formats import WeightFormat

PREFILL_CHUNK = 512
"""Prompt tokens in one forward pass, so that the workspace does not grow with the prompt."""

ATTENTION_TILE = 1024
"""Cached tokens attended to at once: scores in memory are [B, H, T, tile], whatever the context."""

DEQUANTIZED_NUMBERS = 1 << 23
"""Weights dequantized at once: codes as int32 beside float32, so 64 MiB."""


def dequantized_outputs(inputs: int) -> int:
    """Outputs of a layer of that many inputs that are dequantized at once (a multiple of 32)."""
    return max(DEQUANTIZED_NUMBERS // inputs // 32, 1) * 32


@dataclass(frozen=True)
class Moment:
    """What lives at once at one point of a forward pass."""

    name: str
    bytes: int
    formula: str


def moments(
    config: ModelConfig, *, context: int, batch: int, chunk: int, activation_bytes: int
) -> tuple[Moment, ...]:
    """Every moment of a prefill chunk and of a decode step; they share one workspace."""
    tile = min(ATTENTION_TILE, context)
    found = []
    for step, tokens in (("prefill", min(chunk, context)), ("decode", 1)):
        width = batch * tokens
        found += [
            _attention(step, config, width, batch, tile, tokens, activation_bytes),
            _feed_forward(step, config, width, activation_bytes),
        ]
    return (*found, _logits(config, batch, activation_bytes))


def dequantization_scratch(kinds: list[tuple[Weight, WeightFormat]], *, tokens: int) -> Moment:
    """What the largest of these quantized weights needs while that many tokens are multiplied."""
    needs = [_scratch(weight, form, tokens) for weight, form in kinds]
    return max(needs, key=lambda moment: moment.bytes, default=Moment("none", 0, "0 B"))


def _attention(
    step: str,
    config: ModelConfig,
    width: int,
    batch: int,
    tile: int,
    tokens: int,
    activation_bytes: int,
) -> Moment:
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    held = 2 * config.hidden_size + 2 * queries + 3 * keys  # residual, normed, q, rotated q, k, v
    streamed = 3 * queries  # queries, running sum and its update, in float32
    scores = config.num_attention_heads * tile
    tiles = batch * 2 * keys * tile * 4 + tokens * tile * 17  # K and V tile; the causal mask
    return Moment(
        f"{step} attention",
        width * (held * activation_bytes + (streamed + scores) * 4) + tiles,
        f"{width} tokens x ({held} x {activation_bytes} B + {streamed + scores} x 4 B) "
        f"+ {tiles} B of K, V and mask tiles",
    )


def _feed_forward(step: str, config: ModelConfig, width: int, activation_bytes: int) -> Moment:
    numbers = 3 * config.hidden_size + 3 * config.intermediate_size
    return Moment(
        f"{step} feed-forward",
        width * numbers * activation_bytes,
        f"{width} tokens x {numbers} x {activation_bytes} B",
    )


def _logits(config: ModelConfig, batch: int, activation_bytes: int) -> Moment:
    per_token = activation_bytes + 24  # float32 logits, and sampling's sorted copy with its order
    return Moment(
        "logits",
        batch * config.vocab_size * per_token,
        f"{batch} x {config.vocab_size} logits x {per_token} B",
    )


def quantized_kinds(
    formats: Mapping[Weight, WeightFormat],
) -> list[tuple[Weight, WeightFormat]]:
    """One quantized weight of each shape and format: layers are alike."""
    kinds = {
        (weight.shape, form): (weight, form)
        for weight, form in formats.items()
        if form.is_quantized
    }
    return list(kinds.values())


def _scratch(weight: Weight, form: WeightFormat, tokens: int) -> Moment:
    outputs, inputs = weight.shape
    if form.scheme == "llm-int8":  # bitsandbytes: activations' codes, INT32 products
        need = tokens * inputs + tokens * outputs * 4
        return Moment(
            "INT8 products", need, f"{tokens} tokens x ({inputs} x 1 B + {outputs} x 4 B)"
        )
    if form.scheme != "groups":  # bitsandbytes dequantizes the whole weight for a prefill chunk
        return Moment("whole weight", weight.numel * 2, f"{outputs} x {inputs} x 2 B")
    rows = min(outputs, dequantized_outputs(inputs))
    return Moment("tile", rows * inputs * 8, f"{rows} x {inputs} x 8 B")

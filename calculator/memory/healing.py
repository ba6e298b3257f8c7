"""What healing takes: training scales, norms and biases after a checkpoint's codes are fixed."""

from collections.abc import Mapping

from calculator.memory.making import CHECKING_PART, PROCESS_BYTES, MemoryEstimate
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat

HEALING_EPOCHS = 2
"""Rounds over the samples. With 16 samples a longer training only fits these better."""
HEALING_RATE: tuple[float, float] = (5e10, 2e11)
"""Multiplications and additions that two cores do a second while they heal: 1.0e11 a core was seen
on the demo model, beside other work."""
HEALED_POSITIONS = 128
"""Logits of so many positions are compared at once, in float32."""
OUTPUTS_AT_ONCE = 1024
"""Weights are dequantized so many outputs at a time."""
HEAD_ROWS = 1 << 14
"""So many rows of the head are multiplied by at once, in float32."""
FACTOR_BYTES = 16
"""Of each factor there are four numbers: itself, the means of its gradients and of their squares,
and the best so far."""
PASSES = 8
"""Operations for each number of a weight and each token that trains: two for the forward pass, two
more as it is repeated for the gradients, and four for these."""
HEAD_PASSES = 6
"""The same of the head: the logits of both models, and the gradient by the states."""


def healing_seconds(
    formats: Mapping[Weight, WeightFormat], config: ModelConfig, *, samples: int, tokens: int
) -> tuple[float, float]:
    """Predict how long two cores heal: the least and the most."""
    checking = samples // CHECKING_PART
    trained = (samples - checking) * tokens * HEALING_EPOCHS
    checked = checking * tokens * (HEALING_EPOCHS + 1)
    numbers = sum(weight.numel for weight in formats if weight.layer is not None)
    head = config.vocab_size * config.hidden_size
    operations = trained * (PASSES * numbers + HEAD_PASSES * head)
    operations += checked * (2 * numbers + 4 * head)
    least, most = HEALING_RATE
    return operations / most, operations / least


def healing_memory(
    formats: Mapping[Weight, WeightFormat], config: ModelConfig, *, tokens: int, number_bytes: int
) -> MemoryEstimate:
    """Bound the memory that training by one sample of so many tokens at once takes."""
    layer = [weight for weight in formats if weight.layer == 0]
    numbers, size = sum(weight.numel for weight in layer), number_bytes
    widest = max(weight.shape[1] for weight in layer if weight.role == "linear")
    largest = max(weight.numel for weight in layer)
    head = config.vocab_size * config.hidden_size
    heads = 2 if any(each.role == "head" and formats[each].is_quantized for each in formats) else 1
    trained = sum(_trained_numbers(weight, formats[weight]) for weight in formats)
    attention = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
    of_token = 16 * config.hidden_size + 10 * attention + 10 * config.intermediate_size
    return MemoryEstimate({
        "Python and torch": PROCESS_BYTES,
        "heads, embedding, and rows in float32": (heads + 1) * head * size
        + 4 * HEAD_ROWS * config.hidden_size,
        "a layer and its gradients": 2 * numbers * size,
        "a weight as it is read": largest // 2 + 4 * 4 * OUTPUTS_AT_ONCE * widest,
        "factors, their means, and the best": (FACTOR_BYTES + 4) * trained,
        "states before every layer": 4 * tokens * config.hidden_size
        * (config.num_hidden_layers + 2),
        "what a layer keeps for its gradients": 4 * tokens * of_token,
        "logits, and what is computed of them": 8 * 4 * HEALED_POSITIONS * config.vocab_size,
    })  # fmt: skip


def healing_disk_bytes(formats: Mapping[Weight, WeightFormat]) -> int:
    """Bytes of the training's file, which is replaced as a whole, and of what it ends with."""
    trained = sum(_trained_numbers(weight, formats[weight]) for weight in formats)
    return trained * (2 * FACTOR_BYTES + 4)


def _trained_numbers(weight: Weight, weight_format: WeightFormat) -> int:
    if weight.role in ("norm", "bias"):
        return weight.numel
    if weight.role == "linear" and weight_format.is_quantized:
        return weight_format.groups(weight.shape[1]) * weight.shape[0]
    return 0

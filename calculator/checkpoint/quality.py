"""The loss that `glm4q quantize` measured and wrote into a checkpoint."""

from math import isfinite
from pathlib import Path
from typing import Any

from calculator.dataclass import dataclass
from calculator.errors import ConfigError
from calculator.json_files import read_json_object

REPORT = "quality.json"


@dataclass(frozen=True)
class MeasuredLoss:
    """How much the perplexity rose over the source's, and on how many tokens."""

    perplexity_change: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"measured loss: perplexity {self.perplexity_change:+.2%} over the source on "
            f"{self.tokens:,} held-out tokens ({REPORT})"
        )


def measured_loss(model: str) -> MeasuredLoss | None:
    """Return the loss of a checkpoint directory; None where no report has a sound one."""
    path = Path(model) / REPORT
    try:
        held_out: Any = read_json_object(path).get("held_out") if path.is_file() else None
    except ConfigError:
        return None  # a damaged report says nothing of the memory, which is what was asked for
    if not isinstance(held_out, dict):
        return None
    change, tokens = held_out.get("perplexity_change"), held_out.get("tokens")
    if isinstance(change, bool) or not isinstance(change, float | int) or not isfinite(change):
        return None
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens <= 0:
        return None
    return MeasuredLoss(float(change), tokens)

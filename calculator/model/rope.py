"""Scaling of rotary position embedding, by which a model reads further than it was trained to.

The formulas are transformers': modeling_rope_utils.py, `_compute_yarn_parameters` (the paper is
https://arxiv.org/abs/2309.00071) and `_compute_linear_scaling_rope_parameters`.
"""

from collections.abc import Mapping
from math import ceil, floor, log, pi
from typing import Any

from calculator.dataclass import dataclass
from calculator.errors import ConfigError

TYPES = ("default", "linear", "yarn")
LARGEST_FACTOR = 1024
KEYS = {
    "linear": ("factor",),
    "yarn": (
        *("factor", "original_max_position_embeddings", "attention_factor"),
        *("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
}


@dataclass(frozen=True)
class RopeScaling:
    """A way to bring positions beyond `original_positions` into the range of training."""

    rope_type: str
    """linear or yarn."""
    factor: float
    original_positions: int
    attention_factor: float = 1.0
    """The factor of cos and sin, of queries and of keys alike."""
    beta_fast: float = 32.0
    """Pairs that revolve so often within the original positions are not scaled."""
    beta_slow: float = 1.0
    """Pairs that revolve so often or less are scaled by the whole factor."""
    truncate: bool = True
    """Whether the pairs at which scaling begins and ends are rounded to whole ones."""

    @property
    def positions(self) -> int:
        """The count of positions that the scaled model reads."""
        return int(self.original_positions * self.factor)

    @property
    def has_usual_settings(self) -> bool:
        """Whether all follows from the factor, as readers that know no more settings take it."""
        usual = 0.1 * log(self.factor) + 1
        betas = (self.beta_fast, self.beta_slow, self.truncate)
        return abs(self.attention_factor - usual) < 1e-6 and betas == (32.0, 1.0, True)

    def ramp(self, rotary_dim: int, theta: float) -> tuple[float, float]:
        """The pair at which scaling begins, and the one from which it is whole."""

        def pair(revolutions: float) -> float:
            per_position = self.original_positions / (revolutions * 2 * pi)
            return rotary_dim * log(per_position) / (2 * log(theta))

        first, last = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            first, last = floor(first), ceil(last)
        first, last = max(first, 0), min(last, rotary_dim - 1)
        return first, last + 0.001 if first == last else last

    def to_dict(self) -> dict[str, Any]:
        """The entries of transformers' rope_parameters; inverse of `read_scaling`."""
        if self.rope_type == "linear":
            return {"rope_type": "linear", "factor": self.factor}
        return {
            "rope_type": "yarn",
            "factor": self.factor,
            "original_max_position_embeddings": self.original_positions,
            "attention_factor": self.attention_factor,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "truncate": self.truncate,
        }


def read_scaling(rope: Mapping[str, Any], max_positions: Any) -> RopeScaling | None:
    """The scaling that a rope_scaling or rope_parameters asks for; None where it asks for none.

    Raises ConfigError where it is of another type or not whole.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in TYPES:
        reason = (
            ", which changes with the length of each conversation, so that cached keys would no "
            "longer fit"
            if kind == "dynamic"
            else ""
        )
        raise ConfigError(f"rope type {kind!r} is not supported{reason}; {', '.join(TYPES)} are")
    known = {*KEYS[kind], "rope_type", "type", "rope_theta", "partial_rotary_factor"}
    if unknown := sorted(key for key in rope if key not in known):
        raise ConfigError(f"{unknown[0]} is unknown for rope type {kind}")
    original = rope.get("original_max_position_embeddings", max_positions)
    if type(original) is not int or original < 1:
        raise ConfigError(f"original_max_position_embeddings must be 1 or more, not {original!r}")
    factor = _number(rope, "factor", None, least=1.0, most=LARGEST_FACTOR)
    if kind == "linear":
        return RopeScaling("linear", factor, original)
    truncate = rope.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ConfigError(f"truncate must be true or false, not {truncate!r}")
    return RopeScaling(
        "yarn",
        factor,
        original,
        _attention_factor(rope, factor),
        _number(rope, "beta_fast", 32.0, least=1e-3, most=1e6),
        _number(rope, "beta_slow", 1.0, least=1e-3, most=1e6),
        truncate,
    )


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    if rope.get("attention_factor") is not None:
        return _number(rope, "attention_factor", None, least=1e-3, most=1e3)
    names = ("mscale", "mscale_all_dim")
    if all(rope.get(name) for name in names):
        mscale, over_all = (_number(rope, name, None, least=1e-3, most=1e3) for name in names)
        return (0.1 * mscale * log(factor) + 1) / (0.1 * over_all * log(factor) + 1)
    return 0.1 * log(factor) + 1


def _number(
    rope: Mapping[str, Any], name: str, default: float | None, *, least: float, most: float
) -> float:
    value = rope.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{name} must be {least:g} to {most:g}, not {value!r}")
    return float(value)

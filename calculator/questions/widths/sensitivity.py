"""The record of what each matrix costs at each width, kept beside a checkpoint.

`glm4q quantize --for` measures it and writes sensitivity.json; `glm4q calc` reads it.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from calculator.dataclass import dataclass
from calculator.errors import ConfigError
from calculator.json_files import read_json_object
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16
from calculator.questions.widths.slots import Costs, Widths

FILE = "sensitivity.json"
SCHEMA = "glm4q.sensitivity/1"
LARGEST = 1 << 22

Kind = Literal["divergence", "weights", "alike"]
UNITS: dict[Kind, str] = {
    "divergence": "KL divergence of the logits, in nats, as samples estimate it",
    "weights": "squared error of the weights, as shares of their squares",
    "alike": "squared error of the weights, if all matrices are rounded alike",
}
"""What costs are. Sums of them are compared, and never taken for a perplexity."""


@dataclass(frozen=True)
class Sensitivity:
    """What each slot costs at each width below bf16."""

    kind: Kind
    group_size: str
    symmetric: bool
    costs: Costs
    about: Mapping[str, Any]
    """The source, and the samples."""

    def widths(self, config: ModelConfig) -> Widths:
        """Return the slots of the model in the formats that were measured. Raises ConfigError."""
        widths = Widths(config, self.group_size, self.symmetric)
        for slot in widths.slots:
            known = self.costs.get(slot.name, {})
            if any(bits not in known for bits in slot.bits if bits < BF16.bits):
                raise ConfigError(f"{FILE} is of another model: it says nothing of {slot.name}")
        return widths

    @property
    def unit(self) -> str:
        """What costs are, in words."""
        return UNITS[self.kind]

    def with_facts(self, about: Mapping[str, Any]) -> "Sensitivity":
        """Return this record with more facts about the source and the samples."""
        return replace(self, about={**self.about, **about})

    def record(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "unit": self.unit,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            **self.about,
            "costs": {
                name: {str(bits): cost for bits, cost in known.items()}
                for name, known in self.costs.items()
            },
        }


def read_sensitivity(path: Path) -> Sensitivity:
    """Read a record, from its file or the checkpoint that it is in. Raises ConfigError."""
    file = path / FILE if path.is_dir() else path
    raw = dict(read_json_object(file, limit=LARGEST))
    if raw.pop("schema", None) != SCHEMA:
        raise ConfigError(f"{file} is no record of {SCHEMA}")
    named = raw.pop("kind", None)
    kind = next((each for each in UNITS if each == named), None)
    raw.pop("unit", None)
    costs, size, symmetric = (raw.pop(name, None) for name in ("costs", "group_size", "symmetric"))
    if kind is None or not isinstance(symmetric, bool) or not isinstance(size, str):
        raise ConfigError(f"{file} does not say what its costs are")
    return Sensitivity(kind, size, symmetric, _costs(costs, file), raw)


def _costs(raw: Any, file: Path) -> dict[str, dict[int, float]]:
    if not isinstance(raw, dict):
        raise ConfigError(f"costs of {file} must be an object, not {type(raw).__name__}")
    costs: dict[str, dict[int, float]] = {}
    for name, known in raw.items():
        costs[name] = {}
        for bits, cost in known.items() if isinstance(known, dict) else ():
            number = isinstance(cost, int | float) and not isinstance(cost, bool)
            if bits not in ("4", "8") or not number or not isfinite(cost) or cost < 0:
                raise ConfigError(f"the cost of {name} at {bits} bits in {file} is {cost!r}")
            costs[name][int(bits)] = float(cost)
    return costs


def alike(widths: Widths) -> Sensitivity:
    """Return costs where nothing was measured: squared errors of rounding fall fourfold a bit."""
    costs = {
        slot.name: {bits: 4.0**-bits for bits in slot.bits if bits < BF16.bits}
        for slot in widths.slots
    }
    return Sensitivity("alike", widths.group_size, widths.symmetric, costs, {})

"""Plans that tests ask for in one call."""

from collections.abc import Mapping

from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import Settings
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat


def make_plan(
    config: ModelConfig,
    formats: Mapping[Weight, WeightFormat],
    settings: Settings,
    *,
    source: str = "config",
) -> MemoryPlan:
    """Return the plan of a model whose weights are in these formats. Raises OptionError."""
    return Planner(config, formats, source=source).plan(settings)

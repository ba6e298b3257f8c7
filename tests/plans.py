"""Plans that tests ask for in one call."""

from collections.abc import Mapping

from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import Settings
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat, assign_formats, parse_format


def make_plan(
    config: ModelConfig,
    formats: Mapping[Weight, WeightFormat],
    settings: Settings,
    *,
    source: str = "config",
) -> MemoryPlan:
    """Return the plan of a model whose weights are in these formats. Raises OptionError."""
    return Planner(config, formats, source=source).plan(settings)


def half_way(
    config: ModelConfig,
    settings: Settings,
    *,
    group_size: str,
    narrow: str = "int4",
    wide: str = "int8",
) -> str:
    """Return the memory, as an option says it, in the middle between two widths of all matrices."""
    ends = [
        make_plan(config, assign_formats(config, parse_format(each, group_size)), settings)
        for each in (narrow, wide)
    ]
    return f"{sum(each.compute_bytes for each in ends) / 2 / (1 << 20):.4f}M"

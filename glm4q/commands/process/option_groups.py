"""Groups of options: in a command's signature a dataclass stands for all of its fields."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any


def spread_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with the options of its groups among its own, in the place of each group.

    A group is a dataclass, and each of its fields declares an option, so that commands with the
    same options share them.
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        own = [parameter]
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[parameter.name] = group
            own = [*inspect.signature(group, eval_str=True).parameters.values()]
        parameters += (each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)

    @wraps(command)
    def run(**values: Any) -> Any:
        for name, group in groups.items():
            own = {option: values.pop(option) for option in inspect.signature(group).parameters}
            values[name] = group(**own)
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run

"""`glm4q config`: the options of a command with their values, and where each comes from."""

from typing import Annotated, Any

import typer

from calculator.errors import OptionError
from glm4q.commands.options.declare import option
from glm4q.commands.process.config_file import config_path, read_defaults, spellings
from glm4q.commands.process.lazy import load_command
from glm4q.terminal.screen.table import table_lines

EXAMPLES = ("glm4q config --command chat", "glm4q config --command serve")
Command = Annotated[
    str | None, option("Show this command's options; all of them, set or not.", default=False)
]


def config(context: typer.Context, command: Command = None) -> int:
    """Show what the config file sets for each command, or all options of one command."""
    assert context.parent is not None  # it is a command of glm4q
    commands: dict[str, Any] = context.parent.command.table  # type: ignore[attr-defined]
    if command is not None and command not in commands:
        raise OptionError(f"command must be one of {', '.join(commands)}, not {command}")
    path = config_path()
    rows = [("option", "value", "from")]
    for name, entry in commands.items():
        params = load_command(name, entry).params
        defaults = read_defaults(path, name, params, commands)
        for param in params:
            names = spellings(param)
            is_set = param.name in defaults.values
            if not names or names == ["help"] or not (is_set or name == command):
                continue
            value = defaults.values[param.name] if is_set else param.default
            source = str(path) if is_set else "default"
            if is_set or value is not None:
                rows.append((f"{name} --{names[0]}", _written(value), source))
            else:
                rows.append((f"{name} --{names[0]}", "", "not set"))
    if len(rows) > 1:
        print(*table_lines(rows), sep="\n")
    if not path.is_file():
        print(f"there is no {path}")
    return 0


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

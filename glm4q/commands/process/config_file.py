"""The user's own defaults of options: `$XDG_CONFIG_HOME/glm4q/glm4q.toml`, a table a command.

Keys of `SHARED` may stand before the tables: then they hold for every command with that option.

No file of the current directory is read: it may have come with a download, and options can name
code (`--tools`) and files.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calculator.errors import Glm4qError, OptionError
from glm4q.terminal.user_directories import config_directory

KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text or a number",
    Path: "text that is not empty",
}

SHARED = ("store",)
"""Keys that mean the same in all commands."""


@dataclass(frozen=True)
class Defaults:
    """What the file says of one command."""

    path: Path
    values: Mapping[str, Any]
    """By the names of parameters."""
    keys: Mapping[str, str]
    """The file's key of each of them."""

    def note_source(self, error: Glm4qError) -> None:
        """Say in an error that names an option of the file, or its value, where it comes from."""
        for param, key in self.keys.items():
            name = re.sub("[-_]", "[-_ ]", key)
            value = re.escape(str(self.values[param]))
            if re.search(rf"(?<!\w)({name}|{value})(?!\w)", str(error)):
                error.add_note(f"{key} is set in {self.path}")


def config_path() -> Path:
    """Where the file is, if there is one."""
    return config_directory() / "glm4q.toml"


def read_tables(path: Path, commands: Iterable[str]) -> dict[str, Any]:
    """Read the tables of all commands, and shared keys; nothing where there is no file.

    Raises OptionError.
    """
    if not path.is_file():
        return {}
    import tomllib  # only where there is a file: every command starts here

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise OptionError(f"{path} is not TOML: {error}") from None
    commands = list(commands)
    for name, table in content.items():
        if name in SHARED:
            continue
        if name not in commands:
            known = ", ".join(commands)
            raise OptionError(f"{path}: {name} is no command; there are tables for {known}")
        if not isinstance(table, dict):
            raise OptionError(f"{path}: {name} must be a table, as in [{name}]")
    return content


def read_defaults(
    path: Path, command: str, params: Iterable[Any], commands: Iterable[str]
) -> Defaults:
    """Read and check what the file says of a command's options. Raises OptionError."""
    content = read_tables(path, commands)
    options = {name: param for param in params for name in spellings(param)}
    values, keys = {}, {}
    for key in SHARED:
        if key in content and (param := options.get(key)) is not None:
            values[param.name] = _checked(param, content[key], f"{path}: {key}")
            keys[param.name] = key
    for key, value in content.get(command, {}).items():
        param = options.get(key.replace("_", "-"))
        if param is None:
            raise OptionError(f"{path}: {command}.{key}: glm4q {command} has no --{key}")
        values[param.name] = _checked(param, value, f"{path}: {command}.{key}")
        keys[param.name] = key
    return Defaults(path, values, keys)


def spellings(param: Any) -> list[str]:
    """The long names of an option, without their hyphens; none of an argument."""
    if param.param_type_name != "option":
        return []
    return [name.removeprefix("--") for name in param.opts if name.startswith("--")]


def _checked(param: Any, value: Any, place: str) -> Any:
    """A value of the option's type. Text may be written as a number, as in context = 8192."""
    kind = param.type_descriptor.annotation
    if not param.type_descriptor.is_list:
        return _read(kind, value, place)
    if not isinstance(value, list):
        raise OptionError(f"{place} must be a list, not {value!r}")
    return [_read(kind.__args__[0], item, place) for item in value]


def _read(kind: type, value: Any, place: str) -> Any:
    fits = {
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, int | float) and not isinstance(value, bool),
        str: isinstance(value, str | int | float) and not isinstance(value, bool),
        Path: isinstance(value, str) and value != "",
    }[kind]
    if not fits:
        raise OptionError(f"{place} must be {KINDS[kind]}, not {value!r}")
    return Path(os.path.expanduser(value)) if kind is Path else kind(value)

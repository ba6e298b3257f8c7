"""A group of commands that imports a command's module only when that command is asked for."""

import gc
import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from calculator.errors import Glm4qError, OptionError
from glm4q.commands.process.config_file import Defaults, config_path, read_defaults
from glm4q.commands.process.option_groups import spread_groups
from glm4q.commands.process.signals import unwind_on_stops
from glm4q.commands.process.streams import each_warning_once


@dataclass(frozen=True)
class CommandEntry:
    """Where a command is written, and what the list of commands says about it."""

    module: str
    """The module has the function, and EXAMPLES: command lines that its help ends with."""
    function: str
    summary: str
    panel: str
    """The topic under which the list shows it."""


def read_without_pydantic(params: Iterable[Any]) -> None:
    """Give every parameter our reader before typer makes its own.

    typer converts every value through pydantic, whose import takes a third of a cold start
    (benchmarks/calc_start.py). Our commands take text, numbers and paths only.
    """
    for param in params:
        vars(param)["_runtime_param"] = WordReader(param)


class QuickCommand(TyperCommand):
    """A command whose words become values without pydantic."""

    defaults: Defaults | None = None
    """What the user's config file says of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        read_without_pydantic(params)
        commands = getattr(ctx.parent and ctx.parent.command, "table", None)
        if commands and not {"-h", "--help"} & {*args}:
            self.defaults = read_defaults(config_path(), ctx.info_name, params, commands)
            ctx.default_map = dict(self.defaults.values)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            key = self.defaults and self.defaults.keys.get(getattr(error.param, "name", ""))
            if self.defaults and key:
                error.message += f"; {key} is set in {self.defaults.path}"
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command; all imports are done, so signals may raise what stops it."""
        unwind_on_stops()
        if not gc.isenabled():
            gc.freeze()  # what is imported stays, and is never searched
            gc.enable()
        try:
            with each_warning_once():
                return super().invoke(ctx)
        except Glm4qError as error:
            if self.defaults is not None:
                self.defaults.note_source(error)
            raise


class LazyGroup(TyperGroup):
    """Lists the commands of a table without importing them."""

    table: ClassVar[Mapping[str, CommandEntry]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in self.table.items():
            self.add_command(
                TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel), name
            )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        read_without_pydantic(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments name, and import its module.

        Running a command, its --help and shell completion all pass here; the list does not.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _refuse_lost_directory()
            command = load_command(command.name or "", self.table[command.name or ""])
        return name, command, rest


def _refuse_lost_directory() -> None:
    """Raise OptionError where the current directory is gone: torch ends the process there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise OptionError("the current directory was deleted: change to another one") from None


def load_command(name: str, entry: CommandEntry) -> TyperCommand:
    """Import a command's module and make the command."""
    module = importlib.import_module(entry.module)
    examples = "\n\n".join(("Examples:", *(f"  {line}" for line in module.EXAMPLES)))
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    app.command(name, cls=QuickCommand, epilog=examples)(
        spread_groups(getattr(module, entry.function))
    )
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


class WordReader:
    """Reads one option's or argument's words as its annotation says. Raises BadParameter."""

    def __init__(self, param: Any) -> None:
        self._param = param
        kind = param.type_descriptor.annotation
        self._is_list = param.type_descriptor.is_list
        self._kind: type = kind.__args__[0] if self._is_list else kind
        self._is_name = self._kind is Path or param.param_type_name == "argument"
        """Whether it names a file, a directory or a model."""
        info = param.type_descriptor.parameter_info
        self._least, self._most = info.min, info.max
        if self._kind not in (str, int, float, bool, Path):
            raise TypeError(f"{param.name} is a {kind}; options are text, numbers or paths")

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The method that typer calls."""
        if value is None:
            return () if self._is_list else None
        if self._is_list:
            return [self._read(word, ctx) for word in value]
        return self._read(value, ctx)

    def _read(self, word: Any, ctx: Any) -> Any:
        if word == "" and self._is_name:  # an unset variable of a shell; Path("") is "."
            raise self._refusal("it is empty", ctx)
        if self._is_name and isinstance(word, str):
            word = os.path.expanduser(word)  # bash leaves the ~ of --output=~/made to the program
        if isinstance(word, self._kind):
            value = word
        else:
            try:
                value = self._kind(word)
            except ValueError:
                kind = "a whole number" if self._kind is int else "a number"
                raise self._refusal(f"{word!r} is not {kind}", ctx) from None
        if self._least is not None and value < self._least:
            raise self._refusal(f"{value} is below the least, {self._least}", ctx)
        if self._most is not None and value > self._most:
            raise self._refusal(f"{value} is above the most, {self._most}", ctx)
        return value

    def _refusal(self, message: str, ctx: Any) -> typer.BadParameter:
        return typer.BadParameter(message, ctx=ctx, param=self._param)

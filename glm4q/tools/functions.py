"""Tools that a model may call: what they are offered as, and how a call is run.

A Python function with type hints and a docstring is one: pydantic makes the JSON Schema that the
model reads from its signature, and checks what the model sends.
"""

import importlib.util
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pydantic

from calculator.errors import Glm4qError, OptionError, ToolError
from glm4q.tools.calls import ToolCall

MOST_CHARACTERS = 20_000
"""Characters of a result that the model is shown; a longer one would fill the context."""

TOOL_SECONDS = 60.0
"""How long a call may take, unless something else is said."""


AUTO, REQUIRED = "auto", "required"
"""Which tool a question is answered with: any or none, or one of them; a name means that one."""

Answer = Callable[[Mapping[str, Any]], object]
"""Runs a call: its arguments in, what the model is to read out."""


@dataclass(frozen=True)
class Tool:
    """A tool as it is offered, and as it runs."""

    name: str
    schema: Mapping[str, Any]
    """OpenAI's function object: name, description, parameters."""
    answer: Answer = field(repr=False)
    kind: str = "function"
    """Another kind is a tool that GLM-4's own template describes; its calls are plain text."""
    native: "Tool | None" = None
    """What is offered in its place where the template knows that tool. Several may share one."""
    seconds: float = TOOL_SECONDS
    """How long a call may take."""

    @classmethod
    def from_function(cls, function: Callable[..., object]) -> Self:
        """Read the signature and the docstring. Raises OptionError where one is missing."""
        name, description = function.__name__, inspect.getdoc(function)
        if not description:
            raise OptionError(
                f"the tool {name} has no docstring, which tells the model what it does"
            )
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise OptionError(f"the tool {name} takes *{parameter.name}; name each argument")
            if parameter.annotation is parameter.empty:
                raise OptionError(f"the tool {name} has no type for its argument {parameter.name}")
            given = parameter.default is not parameter.empty
            fields[parameter.name] = (parameter.annotation, parameter.default if given else ...)
        config = pydantic.ConfigDict(extra="forbid")
        arguments = pydantic.create_model(name, __config__=config, **fields)
        parameters = arguments.model_json_schema()
        parameters.pop("title", None)
        schema = {"name": name, "description": description, "parameters": parameters}
        return cls(name, schema, _checked(function, arguments))

    @property
    def offer(self) -> dict[str, Any]:
        """The tool as OpenAI's API and chat templates take it."""
        return (
            {"type": "function", "function": self.schema}
            if self.kind == "function"
            else {"type": self.kind}
        )

    def run(self, arguments: Mapping[str, Any], seconds: float | None = None) -> str:
        """Answer a call. What the model is to read: the result, or what went wrong."""
        seconds = self.seconds if seconds is None else seconds
        failures: list[BaseException] = []
        pool = ThreadPool(1)  # its thread is a daemon: a call without end does not hold the exit
        call = pool.apply_async(self.answer, (arguments,), error_callback=failures.append)
        call.wait(seconds)
        pool.close()
        if not call.ready():
            return f"error: {self.name} took more than {seconds:g} seconds"
        if not call.successful():
            (failure,) = failures
            known = isinstance(failure, Glm4qError)
            return f"error: {failure}" if known else f"error: {type(failure).__name__}: {failure}"
        return _as_text(call.get())


class Toolbox:
    """The tools of a conversation, by name."""

    def __init__(self, tools: Iterable[Tool], natives: Collection[str] = ()) -> None:
        """natives: the kinds of tools that the template itself describes."""
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            native = tool.native if tool.native and tool.native.kind in natives else None
            offered = native or tool
            earlier = self._tools.get(offered.name)
            if earlier is not None and earlier is not native:
                raise OptionError(f"two tools are called {offered.name}")
            self._tools[offered.name] = offered

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tools)

    @property
    def natives(self) -> frozenset[str]:
        """The tools whose calls are plain text."""
        return frozenset(name for name, tool in self._tools.items() if tool.kind != "function")

    @property
    def offers(self) -> list[dict[str, Any]]:
        """The tools as OpenAI's API and chat templates take them."""
        return [tool.offer for tool in self._tools.values()]

    def chosen(self, choice: str) -> list[dict[str, Any]]:
        """Return the offers of which one must be called. Raises OptionError where none can be.

        choice: REQUIRED, or a tool's name; AUTO, by which none must be called, gives none.
        """
        names = sorted(self.names)
        if choice not in (AUTO, REQUIRED, *names):
            listed = ", ".join([AUTO, REQUIRED, *names])
            raise OptionError(f"the choice of a tool must be one of {listed}, not {choice}")
        if choice == REQUIRED and not names:
            raise OptionError("a call is required, and no tool is offered")
        wanted = {AUTO: set[str](), REQUIRED: self.names}.get(choice, {choice})
        return [tool.offer for name, tool in self._tools.items() if name in wanted]

    def run(self, call: ToolCall) -> str:
        """Return what the model is to read about the call."""
        return self._tools[call.name].run(call.arguments)


def _checked(function: Callable[..., object], model: type[pydantic.BaseModel]) -> Answer:
    """Check arguments before the function runs."""

    def answer(arguments: Mapping[str, Any]) -> object:
        try:
            checked = model.model_validate(arguments)
        except pydantic.ValidationError as error:
            raise ToolError(_first_problem(error)) from None
        return function(**{name: getattr(checked, name) for name in model.model_fields})

    return answer


def load_tools(path: Path) -> list[Tool]:
    """Return the public functions that a Python file defines. Its code runs. Raises OptionError."""
    if not path.is_file():
        raise OptionError(f"--tools {path}: there is no such file")
    module = _import_file(path)
    functions = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if not functions:
        raise OptionError(f"--tools {path}: it defines no public function")
    return [Tool.from_function(function) for function in functions]


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"glm4q_tools_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OptionError(f"--tools {path}: it is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, AttributeError, NameError, TypeError, ValueError) as error:
        raise OptionError(f"--tools {path}: {type(error).__name__}: {error}") from error
    return module


def _first_problem(error: pydantic.ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _as_text(result: object) -> str:
    text = result
    if not isinstance(text, str):
        text = json.dumps(result, ensure_ascii=False, default=str)
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]}\n[{left_out:,} characters more are left out]"

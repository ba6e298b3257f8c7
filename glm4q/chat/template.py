"""A checkpoint's chat template: messages in, the text of a prompt out.

A template is a program that came with a download. It runs in jinja2's sandbox on plain copies of
the messages, with the tags, filters and bars of transformers' utils/chat_template_utils.py.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from calculator.checkpoint.gguf_file import is_gguf, read_gguf
from calculator.errors import OptionError, TokenizerError
from glm4q.chat.dialects import DIALECTS, GLM4, Dialect, find_dialect, with_tools
from glm4q.chat.messages import Message, Tool, mark_control_tokens, mark_messages, restore_marks
from glm4q.chat.tool_messages import call_style, native_tools
from glm4q.text.gguf_tokenizer import TEMPLATE
from glm4q.text.tokenizer import control_token_pattern, read_settings
from glm4q.tools.calls import CallStyle

NO_TOOLS = "this chat template takes no tools; --dialect names another protocol"
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

# What a template can fail with: jinja2's own errors, and Python's in its expressions.
TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class Renderer(Protocol):
    """Renders a prompt from messages and tools whose control tokens are marked."""

    def __call__(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None,
        add_generation_prompt: bool,
    ) -> str: ...


class ChatTemplate:
    """Writes prompts for `Tokenizer.encode_prompt`, where control tokens from users stay text."""

    def __init__(
        self,
        renderer: Renderer,
        control_tokens: Iterable[str],
        *,
        call_style: CallStyle = "metadata",
        natives: Collection[str] = (),
    ) -> None:
        """call_style: how the renderer reads tool calls in messages. natives: the kinds of tools,
        beside functions, that it describes itself.
        """
        self._renderer, self.call_style, self.natives = renderer, call_style, frozenset(natives)
        self._control_tokens = re.compile(control_token_pattern(control_tokens))

    @classmethod
    def from_directory(
        cls, path: Path, control_tokens: Iterable[str], dialect: str | None = None
    ) -> Self:
        """Read the directory's template; without one, the tokenizer's control tokens say which.

        dialect: a protocol of the table that is used in place of the template.
        """
        control_tokens = frozenset(control_tokens)
        if dialect is not None:
            return cls.of_dialect(_named_dialect(dialect, control_tokens), control_tokens)
        config = read_settings(path / "tokenizer_config.json")
        if source := find_source(path, config):
            renderer = JinjaRenderer(source, _special_tokens(config), name=path)
            style, natives = call_style(source), native_tools(source)
            return cls(renderer, control_tokens, call_style=style, natives=natives)
        for known in (GLM4, DIALECTS["chatglm3"]):
            if control_tokens >= known.control_tokens:
                return cls.of_dialect(known, control_tokens)
        raise TokenizerError(f"{path} has no chat template, and no control tokens of GLM-4's")

    @classmethod
    def of_dialect(cls, dialect: Dialect, control_tokens: Iterable[str]) -> Self:
        """Write a protocol of the table."""
        return cls(dialect, control_tokens, call_style=dialect.style, natives=dialect.natives)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Render the prompt, with marks around control tokens that messages and tools contain."""
        if not messages:
            raise TokenizerError("a chat needs at least one message")
        try:
            return self._renderer(
                mark_messages(messages, self._control_tokens),
                tools=mark_control_tokens(tools, self._control_tokens),
                add_generation_prompt=add_generation_prompt,
            )
        except RecursionError:
            raise TokenizerError("messages or tools are nested too deeply") from None


def refuse_tools(path: Path) -> None:
    """Raise TokenizerError where a directory has a template that takes no tools.

    It takes no tokenizer, so that this is known before anything is loaded.
    """
    source = find_source(path, read_settings(path / "tokenizer_config.json"))
    if source is not None and not _takes_tools(source):
        raise TokenizerError(f"{path}: {NO_TOOLS}")


def _takes_tools(source: str) -> bool:
    return "tools" in source


def _named_dialect(name: str, control_tokens: frozenset[str]) -> Dialect:
    dialect = find_dialect(name)
    if missing := sorted(dialect.control_tokens - control_tokens):
        raise OptionError(f"the tokenizer has no {missing[0]}, which the dialect {name} needs")
    return dialect


class JinjaRenderer:
    """Runs a template in the sandbox."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, name: Path) -> None:
        self._name = name
        self._special_tokens = special_tokens
        self._takes_tools = _takes_tools(source)
        self._takes_tools_from_messages = re.search(r"\[(['\"])tools\1\]", source) is not None
        with self._faults_named():
            self._template = _environment().from_string(source)

    def __call__(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None,
        add_generation_prompt: bool,
    ) -> str:
        if tools and not self._takes_tools:
            raise TokenizerError(f"{self._name}: {NO_TOOLS}")
        if self._takes_tools_from_messages:  # GLM-4's ignores the variable
            messages, tools = with_tools(messages, tools), None
        with self._faults_named():
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except TEMPLATE_FAULTS as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise TokenizerError(f"{self._name}: chat template failed: {message}") from error


def find_source(path: Path, config: Mapping[str, Any]) -> str | None:
    """Return the default template; a .jinja file wins, as in transformers 5."""
    if is_gguf(path):
        template = read_gguf(path).metadata.get(TEMPLATE)
        return template if isinstance(template, str) else None
    if (path / "chat_template.jinja").is_file():
        return _read_text(path / "chat_template.jinja")
    separate = read_settings(path / "chat_template.json")
    source = config.get("chat_template") or separate.get("chat_template")
    if isinstance(source, list):
        named = (entry for entry in source if isinstance(entry, dict))
        source = next((e.get("template") for e in named if e.get("name") == "default"), source)
    if source is None or isinstance(source, str):
        return source
    raise TokenizerError(f"{path}: chat_template must be a string, or hold one named default")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise TokenizerError(f"{path} is not UTF-8 text") from None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Read the special tokens that a template may print, as strings or as AddedToken objects."""
    values = {name: config.get(name) for name in SPECIAL_TOKENS}
    contents = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return {name: content for name, content in contents.items() if isinstance(content, str)}


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = TemplateDict()
    environment.globals["namespace"] = TemplateNamespace
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write plain JSON: jinja2's own filter escapes it for HTML."""
    return restore_marks(
        json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


class GenerationTag(Extension):
    """{% generation %} shows trainers where replies stand; to a prompt it is a block like any."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class TemplateDict:
    """The part of `dict` that templates need: `dict.update(...)` would slip past the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class TemplateNamespace(Namespace):
    """A namespace without private names: `__html__`, say, would make it pose as other objects."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _refuse_private(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold the private name {name!r}")

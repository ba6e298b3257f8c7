"""The grammar of a whole reply: what its text must match, and how it writes calls of tools.

It writes what glm4q.chat.replies.ReplyParser reads: a newline where the role's line ends, thinking
up to </think>, and calls as the template has them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from calculator.errors import AnswerCutError, GrammarError, OptionError
from glm4q.chat.calls.python_arguments import python_arguments
from glm4q.chat.calls.text_or_call import text_or_call
from glm4q.chat.reply_record import ASSISTANT
from glm4q.chat.reply_start import ReplyStart
from glm4q.decode.answer import Answer
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.grammar.constraint import GrammarConstraint
from glm4q.text.grammar.grammar import Grammar, joined
from glm4q.tools.calls import CallStyle

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
"""The arguments of a tool that names none."""
ANY_TEXT = r"(?s:.*)"
"""What a tool of GLM-4's own is given."""
NEWLINE = "\n"
PYTHON_BEGIN = " ```python\ntool_call("
"""ChatGLM3's tokenizer begins each text with a space."""
ANY_OBJECT = {"type": "object"}

THOUGHT = 'thought[stop="</think>"]: /(?s:.*)/\ngap: /\\n{0,2}/'

Offer = Mapping[str, Any]
"""A tool as OpenAI's API offers it."""


@dataclass(frozen=True)
class ReplyGrammar:
    """What a reply may be: a text, or the call of a tool."""

    style: CallStyle
    """How calls are written."""
    text: Grammar | None = None
    """What its text must match; without it there is no text, but a call."""
    calls: Mapping[str, Grammar] = field(default_factory=dict)
    """The arguments of each tool that may be called."""
    free_text: bool = False
    """Any text may come, and calls in it."""
    parallel: bool = False
    """Several calls may come, where the text is free."""

    @classmethod
    def with_tools(cls, text: Grammar | None, tools: Sequence[Offer], style: CallStyle) -> Self:
        """Allow a text that matches, or the call of one of the tools. Raises GrammarError."""
        return cls(style, text, {_name(tool): arguments(tool, style) for tool in tools})

    @classmethod
    def free(
        cls,
        tools: Sequence[Offer],
        style: CallStyle,
        *,
        strict: Iterable[str],
        parallel: bool = True,
    ) -> Self:
        """Allow any text, and calls of the tools. Raises GrammarError.

        strict: names of tools whose arguments match their parameters; those of the others are some
        object. A tool of GLM-4's own takes any text, and needs no rule.
        """
        kept = frozenset(strict)
        calls = {
            _name(tool): arguments(tool, style) if _name(tool) in kept else _any_arguments(style)
            for tool in tools
            if "function" in tool
        }
        return cls(style, None, calls, free_text=True, parallel=parallel)

    def source(self, start: ReplyStart, separator: int | None = None) -> str:
        """Write the grammar for llguidance. start: where the prompt leaves the model.

        separator: the control token between messages of one reply, where the text is free.
        """
        parts = {f"call_{number}": call for number, call in enumerate(self.calls.values())}
        if self.text is not None:
            parts["text"] = self.text
        # Free text has the white space behind thoughts itself.
        thought = "thought " if self.free_text else "thought gap "
        begin = thought if start.thinking else ""
        more = "" if separator is None else f"(TEXT <[{separator}]>)* "
        if separator is not None and self.parallel:
            more = f"(body <[{separator}]>)* "
        rules = [f"start: {begin}{more}body", *([THOUGHT] if start.thinking else [])]
        return joined("\n".join([*rules, self._body(start)]), parts)

    def _body(self, start: ReplyStart) -> str:
        if self.free_text:
            return text_or_call(list(self.calls), self.style, parallel=self.parallel)
        newline = '"\\n" ' if start.role_line and not start.thinking else ""
        text = [] if self.text is None else [f"{newline}@text"]
        calls = [
            _call(name, f"@call_{number}", self.style) for number, name in enumerate(self.calls)
        ]
        return f"body: {' | '.join([*text, *calls])}"


@dataclass(frozen=True)
class ReplyConstraints:
    """Makes the constraint of each reply of a conversation."""

    compiler: GrammarCompiler
    grammar: ReplyGrammar

    @property
    def must_match(self) -> bool:
        """Whether an answer that is cut fails; a cut call goes back to the model instead."""
        return not self.grammar.free_text

    def __call__(self, start: ReplyStart) -> GrammarConstraint:
        """Begin a reply. Raises GrammarError."""
        separator = self.compiler.control_token(ASSISTANT) if self.grammar.free_text else None
        return self.compiler.constraint(self.grammar.source(start, separator), separator)


def arguments(tool: Offer, style: CallStyle) -> Grammar:
    """Return the grammar of a tool's arguments. Raises GrammarError, which names the tool."""
    if "function" not in tool:
        return Grammar.from_regex(ANY_TEXT)
    schema = tool["function"].get("parameters") or NO_PARAMETERS
    try:
        return python_arguments(schema) if style == "python" else Grammar.from_json_schema(schema)
    except GrammarError as error:
        raise GrammarError(f"the parameters of the tool {_name(tool)}: {error}") from None


def honoured(tools: Iterable[Offer], style: CallStyle) -> tuple[frozenset[str], list[str]]:
    """Return the tools whose parameters a grammar can follow, and why not those of the others."""
    names, reasons = set(), []
    for tool in tools:
        try:
            arguments(tool, style)
            names.add(_name(tool))
        except GrammarError as error:
            reasons.append(str(error))
    return frozenset(names), reasons


def refuse_stop_strings(stop: Sequence[str]) -> None:
    """Raise OptionError for a string that would cut an answer before it matches."""
    if stop:
        raise OptionError(f"the stop string {stop[0]!r} would cut answers that must match a schema")


def cut_error(answer: Answer) -> AnswerCutError:
    """Say what ended an answer before it matched."""
    limited = answer.params.max_tokens is not None and answer.tokens >= answer.params.max_tokens
    by = "max_tokens" if limited else "the end of the context"
    if answer.finish_reason == "repetition":
        by = "the loop guard"
    return AnswerCutError(
        f"{by} cut the answer after {answer.tokens} tokens, before it matched what it must match"
    )


def _name(tool: Offer) -> str:
    return str(tool["function"]["name"] if "function" in tool else tool["type"])


def _any_arguments(style: CallStyle) -> Grammar:
    if style == "python":
        return Grammar.from_regex(r"(?s:.*)\)(\n```)?")
    return Grammar.from_json_schema(ANY_OBJECT)


def _call(name: str, arguments: str, style: CallStyle) -> str:
    if style == "python":
        return f"{_quoted(f'{name}{NEWLINE}')} {_quoted(PYTHON_BEGIN)} {arguments}"
    if style == "metadata":
        return f"{_quoted(f'{name}{NEWLINE}')} {arguments}"
    begin = f'{{"name": "{name}", "arguments": '
    return f'{_quoted(begin)} {arguments} "}}"'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

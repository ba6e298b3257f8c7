"""The grammar of a whole reply: what its text must match, and how it writes calls of tools.

It writes what glm4q.chat.replies.ReplyParser reads: a newline where the role's line ends, thinking
up to </think>, and a call as a name and an object or, for other templates, as one object.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from calculator.errors import AnswerCutError, GrammarError, OptionError
from glm4q.chat.reply_start import ReplyStart
from glm4q.chat.tool_messages import CallStyle
from glm4q.decode.answer import Answer
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.grammar.constraint import GrammarConstraint
from glm4q.text.grammar.grammar import Grammar, joined

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
"""The arguments of a tool that names none."""

THOUGHT = 'thought[stop="</think>"]: /(?s:.*)/\ngap: /\\n{0,2}/'


@dataclass(frozen=True)
class ReplyGrammar:
    """What a reply may be: a text, or the call of a tool."""

    text: Grammar | None = None
    """What its text must match; without it there is no text, but a call."""
    calls: Mapping[str, Grammar] = field(default_factory=dict)
    """The arguments of each tool that may be called."""

    @classmethod
    def with_tools(cls, text: Grammar | None, tools: Sequence[Mapping[str, Any]]) -> Self:
        """tools: as OpenAI's API offers them. Raises GrammarError."""
        functions = [tool["function"] for tool in tools]
        return cls(text, {function["name"]: _arguments(function) for function in functions})

    def source(self, style: CallStyle, start: ReplyStart) -> str:
        """Write the grammar for llguidance. start: where the prompt leaves the model."""
        newline = '"\\n" ' if start.role_line and not start.thinking else ""
        text = [] if self.text is None else [f"{newline}@text"]
        calls = [_call(name, f"@call_{number}", style) for number, name in enumerate(self.calls)]
        body = f"body: {' | '.join([*text, *calls])}"
        rules = ["start: thought gap body", THOUGHT] if start.thinking else ["start: body"]
        parts = {f"call_{number}": call for number, call in enumerate(self.calls.values())}
        if self.text is not None:
            parts["text"] = self.text
        return joined("\n".join([*rules, body]), parts)


@dataclass(frozen=True)
class ReplyConstraints:
    """Makes the constraint of each reply of a conversation."""

    compiler: GrammarCompiler
    grammar: ReplyGrammar
    style: CallStyle
    """How the template reads calls."""

    def __call__(self, start: ReplyStart) -> GrammarConstraint:
        """Begin a reply. Raises GrammarError."""
        return self.compiler.constraint(self.grammar.source(self.style, start))


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


def _call(name: str, arguments: str, style: CallStyle) -> str:
    if style == "metadata":
        return f"{_quoted(f'{name}{chr(10)}')} {arguments}"
    begin = f'{{"name": "{name}", "arguments": '
    return f'{_quoted(begin)} {arguments} "}}"'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments(function: Mapping[str, Any]) -> Grammar:
    try:
        return Grammar.from_json_schema(function.get("parameters") or NO_PARAMETERS)
    except GrammarError as error:
        raise GrammarError(f"the parameters of the tool {function['name']}: {error}") from None

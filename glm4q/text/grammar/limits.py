"""What a schema, a regular expression or a grammar may take.

A request over the network brings them, so their size, their depth and the work for each token have
bounds. llguidance counts that work itself, and ends an answer that takes more.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLParserLimits

from calculator.errors import GrammarError

MOST_CHARACTERS = 128 << 10
MOST_REGEX_CHARACTERS = 8 << 10
MOST_DEPTH = 64
"""Objects and arrays within each other in the text of a schema."""

LIMITS = LLParserLimits(
    max_lexer_states=50_000,  # of 1 to 2 kB each
    max_grammar_size=200_000,
    verbose_errors=False,  # they would repeat the grammar and the answer
)
LITERAL = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/(?:\\.|[^/\\\n])+/')
"""Strings, comments and regular expressions of a Lark grammar."""
TOKEN = re.compile(r"<[^\s>]*>?")
"""How llguidance's grammars write a token of the vocabulary."""
RESERVED = "x-guidance"
"""Options of llguidance, which would turn checks off."""


def check_schema(schema: object) -> None:
    """Raise GrammarError for what is no schema, or too large a one."""
    if not isinstance(schema, Mapping | bool):
        raise GrammarError(f"a schema must be an object or a boolean, not {schema!r:.40}")
    _check_depth(schema)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise GrammarError(f"a schema must be plain JSON: {error}") from None
    check_text(text, "a schema")


def check_grammar(text: str) -> None:
    """Raise GrammarError for a grammar that is too long, or that asks for a control token."""
    check_text(text, "a grammar")
    if token := TOKEN.search(LITERAL.sub("", text)):
        raise GrammarError(f"the grammar names the token {token[0]}, and answers contain text only")


def check_regex(regex: str) -> None:
    """Raise GrammarError for an expression that is too long."""
    check_text(regex, "a regular expression", MOST_REGEX_CHARACTERS)


def check_text(text: str, name: str, most: int = MOST_CHARACTERS) -> None:
    """Raise GrammarError for a text that is too long, or empty."""
    if not text:
        raise GrammarError(f"{name} must not be empty")
    if len(text) > most:
        raise GrammarError(f"{name} has {most:,} characters at most, not {len(text):,}")


def _check_depth(schema: object) -> None:
    """Look level by level: a recursion of our own could be too deep itself."""
    level: list[Any] = [schema]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                if RESERVED in value:
                    raise GrammarError(f"the schema's keyword {RESERVED} is not supported")
                below += value.values()
            elif isinstance(value, Sequence) and not isinstance(value, str):
                below += value
        level = below
        if not level:
            return
    raise GrammarError(f"a schema is nested {MOST_DEPTH} levels deep at most")

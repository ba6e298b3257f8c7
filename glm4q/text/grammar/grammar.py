"""A JSON schema, a regular expression or a grammar, as llguidance reads it.

https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md describes its grammars.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pydantic
from llguidance import LLMatcher, regex_to_lark

from glm4q.text.grammar.limits import LIMITS, check_grammar, check_regex, check_schema
from glm4q.text.grammar.messages import grammar_error

OPTIONS = "x-guidance"
"""llguidance reads options of its own from this keyword of a schema."""

WHITE_SPACE = r" |\n[ \t]{0,40}"
"""What may stand between the tokens of JSON. It is bounded: models at a loss write newlines."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Grammar:
    """What an answer, or a part of one, must match."""

    entry: Entry
    """One of llguidance's grammars: {"json_schema": ...} or {"lark_grammar": ...}."""

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any] | bool) -> Self:
        """An answer is JSON that a schema describes. Raises GrammarError."""
        check_schema(schema)
        return cls._checked({"json_schema": with_options(schema)}, "the schema")

    @classmethod
    def from_regex(cls, regex: str) -> Self:
        """An answer matches a regular expression, from its beginning to its end.

        The syntax is that of Rust's regex crate, without look-around. Raises GrammarError.
        """
        check_regex(regex)
        entry = {"lark_grammar": f"start: /{regex_to_lark(regex, 'd')}/"}
        return cls._checked(entry, f"the regular expression {regex[:80]!r}")

    @classmethod
    def from_lark(cls, text: str, *, own: bool = False) -> Self:
        """An answer matches llguidance's kind of Lark grammar. Raises GrammarError.

        own: the rules are ours, and need no check for control tokens.
        """
        if not own:
            check_grammar(text)
        return cls._checked({"lark_grammar": text}, "the grammar")

    @classmethod
    def _checked(cls, entry: Entry, name: str) -> Self:
        wrong, messages = LLMatcher.validate_grammar_with_warnings(_source([entry]), limits=LIMITS)
        if wrong:
            raise grammar_error(name, messages[0])
        return cls(entry)


def with_options(schema: Mapping[str, Any] | bool) -> dict[str, Any]:
    """Say in a schema, which must have been checked, how its JSON is written."""
    described = dict(schema) if isinstance(schema, Mapping) else {"allOf": [schema]}
    return {**described, OPTIONS: {"whitespace_pattern": WHITE_SPACE}}


Schema = Mapping[str, Any] | bool | type[pydantic.BaseModel] | Grammar
"""What an answer must match, as users write it."""


def read_schema(schema: Schema) -> Grammar:
    """Return the grammar of a JSON schema or of a pydantic model. Raises GrammarError."""
    if isinstance(schema, Grammar):
        return schema
    if isinstance(schema, type) and issubclass(schema, pydantic.BaseModel):
        return Grammar.from_json_schema(schema.model_json_schema())
    return Grammar.from_json_schema(schema)


def joined(rules: str, parts: Mapping[str, Grammar]) -> str:
    """Write a Lark grammar that names others as @name, as llguidance reads it."""
    named = [{"name": name, **part.entry} for name, part in parts.items()]
    return _source([{"lark_grammar": rules}, *named])


def _source(entries: list[Entry]) -> str:
    return json.dumps({"grammars": entries})

"""What answers must match, as the options of `glm4q chat` say it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from calculator.errors import OptionError
from glm4q.chat.reply_grammar import refuse_stop_strings
from glm4q.text.grammar.grammar import Grammar


def read_grammar(
    schema: str | None, regex: str | None, grammar: Path | None, stop: Sequence[str]
) -> Grammar | None:
    """Return what answers must match; None where no option says so.

    schema: a file, or the schema itself. stop: strings that end an answer: they exclude it.
    Raises OptionError, and GrammarError for what cannot be honoured.
    """
    options = {"--json-schema": schema, "--regex": regex, "--grammar": grammar}
    given = [name for name, value in options.items() if value is not None]
    if given:
        refuse_stop_strings(stop)
    if len(given) > 1:
        raise OptionError(f"{given[0]} and {given[1]} exclude each other: give one of them")
    if schema is not None:
        return Grammar.from_json_schema(_read_schema(schema))
    if regex is not None:
        return Grammar.from_regex(regex)
    if grammar is not None:
        return Grammar.from_lark(_read_text(grammar, "--grammar"))
    return None


def _read_schema(schema: str) -> dict[str, object] | bool:
    """Read the option itself where it begins as an object does, and otherwise a file."""
    path = Path(os.path.expanduser(schema))
    text = schema if schema.lstrip()[:1] == "{" else _read_text(path, "--json-schema")
    try:
        read: dict[str, object] | bool = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--json-schema is not valid JSON: {error}") from None
    return read


def _read_text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{option} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OptionError(f"{option} {path} is not UTF-8 text") from None

"""The grammar of ChatGLM3's calls: the properties of a schema as arguments of a Python call."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calculator.errors import GrammarError
from glm4q.text.grammar.grammar import Grammar, with_options
from glm4q.text.grammar.limits import check_schema

KNOWN = frozenset(
    {"type", "properties", "required", "additionalProperties", "$defs", "title", "description"}
)
"""Keywords of an object that the arguments of a call can follow."""


def python_arguments(schema: Mapping[str, Any]) -> Grammar:
    """Return the grammar of what stands behind `tool_call(`. Values are JSON.

    Raises GrammarError.
    """
    check_schema(schema)
    properties = schema.get("properties", {})
    if unknown := sorted(set(schema) - KNOWN):
        names = ", ".join(unknown)
        raise GrammarError(f"ChatGLM3's calls cannot honour these keywords: {names}")
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping):
        raise GrammarError("the arguments of a call must be an object")
    for name in properties:
        if not name.isidentifier():
            raise GrammarError(f"ChatGLM3's calls cannot name the argument {name!r}")
    required = schema.get("required", [])
    rules = [
        'start: first0 ")" /(\\n```)?/',
        *_order(list(properties), required),
    ]
    for number, (name, described) in enumerate(properties.items()):
        bare = (
            {**_definitions(schema), **described} if isinstance(described, Mapping) else described
        )
        value = with_options(bare)
        rules.append(f'pair{number}: "{name}=" value{number}')
        rules.append(f"value{number}: %json {json.dumps(value)}")
    return Grammar.from_lark("\n".join(rules), own=True)


def _order(names: Sequence[str], required: Sequence[str]) -> list[str]:
    """Rules that write the arguments in their order; `later` ones stand behind a comma."""
    rules = []
    for number, name in enumerate(names):
        following = f"later{number + 1}"
        skipped = "" if name in required else f" | first{number + 1}"
        rules.append(f"first{number}: pair{number} {following}{skipped}")
        skipped = "" if name in required else f" | {following}"
        rules.append(f'later{number}: ", " pair{number} {following}{skipped}')
    return [*rules, f'first{len(names)}: ""', f'later{len(names)}: ""']


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"$defs": schema["$defs"]} if "$defs" in schema else {}

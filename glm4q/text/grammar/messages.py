"""What llguidance says about a grammar that it refuses, in one line that names the reason."""

import re

from calculator.errors import GrammarError

KEYWORDS = re.compile(r"Unimplemented keys: \[(?P<names>[^\]]*)\]")
PLACE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")

MEANINGS = (
    ("oneOf constraints", "oneOf is supported only where no value fits two of its branches"),
    ("Resource '", "$ref may only point into the schema itself"),
    ("look-around", "look-ahead and look-behind are not supported"),
    ("backreferences", "backreferences are not supported"),
    ("recursion limit", "it is nested too deeply"),
    ("too many", "it takes too much work"),
    ("fuel", "it takes too much work"),
    ("too large", "it is too large"),
    ("panic", "llguidance itself fails at it"),
)
"""Parts of its messages, and what they mean to a user."""


def grammar_error(name: str, message: str) -> GrammarError:
    """Return the error for a thing that llguidance refuses."""
    return GrammarError(f"{name} cannot be honoured: {_reason(message)}")


def _reason(message: str) -> str:
    if keywords := KEYWORDS.search(message):
        names = keywords["names"].replace('"', "")
        return f"these keywords are not supported: {names}"
    meaning = next((meaning for part, meaning in MEANINGS if part in message), None)
    if meaning is not None:
        return meaning
    text = PLACE.sub("", message.split("<", 1)[0].strip())
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors[0].removeprefix("error: ") if errors else lines[0] if lines else "")[:300]

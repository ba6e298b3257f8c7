"""What our own endpoints are asked."""

from dataclasses import fields
from typing import Any

from calculator.model.presets import PRESETS
from calculator.questions.asked import Asked
from glm4q.server.errors import ApiError, unsupported
from glm4q.server.request.bodies import Body

NOT_ASKED = ("model", "ram_bandwidth")
"""What a plan is not asked for by the network: other files, and a measurement of this machine."""


class TokenizeRequest(Body):
    """The body of /tokenize."""

    text: str


class DetokenizeRequest(Body):
    """The body of /detokenize."""

    tokens: list[int]


def asked_names() -> list[str]:
    """List the words in which a plan may be asked for."""
    return [entry.name for entry in fields(Asked)]


def asked_plan(query: dict[str, str]) -> Asked:
    """The question that a query asks in the words of `glm4q calc`. Raises ApiError."""
    known = {entry.name: entry.type for entry in fields(Asked)}
    given: dict[str, Any] = {}
    for name, value in query.items():
        if name not in known or (name in NOT_ASKED and value not in PRESETS):
            raise unsupported(name, "a plan is not asked for by it here")
        try:
            given[name] = int(value) if "int" in str(known[name]) else value
        except ValueError:
            message = f"{name} must be a whole number, not {value[:40]!r}"
            raise ApiError(400, message, param=name, code="invalid_value") from None
    return Asked(**given)

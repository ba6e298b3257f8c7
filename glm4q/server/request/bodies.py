"""The body of a request: its types are checked, and what is not supported is refused by name."""

import json
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from glm4q.server.errors import ApiError, unsupported

Json = dict[str, Any]
MAX_DEPTH = 100


class Body(BaseModel):
    """A part of a request: its types are checked, and it has no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Fields of the API that are not supported, and the values by which they ask for nothing."""
    without_effect: ClassVar[Collection[str]] = ()
    """Fields that ask for nothing, whatever they hold."""

    def check(self) -> None:
        """Check what no single field shows. Raises ApiError."""


Kind = TypeVar("Kind", bound=Body)


def read_body(kind: type[Kind], raw: bytes) -> Kind:
    """Check a body. Raises ApiError."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    _check_depth(body)
    return checked(kind, supported_fields(kind, body))


def checked(kind: type[Kind], fields: Mapping[str, Any]) -> Kind:
    """Make a body of fields. Raises ApiError where one of them is wrong."""
    try:
        request = kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None
    request.check()
    return request


def supported_fields(kind: type[Body], body: Mapping[str, Any]) -> Json:
    """Drop what asks for nothing, and refuse what cannot be done. Raises ApiError."""
    kept = {}
    for name, value in body.items():
        if name in kind.model_fields:
            kept[name] = value
        elif name in kind.without_effect:
            continue
        elif value is not None and value not in kind.neutral.get(name, ()):
            raise unsupported(name)
    return kept


def _check_depth(body: Json) -> None:
    """Refuse what later work, which goes down by recursion, could not go through."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise ApiError(400, f"the body is nested too deeply: at most {MAX_DEPTH} levels are read")


def _refusal(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return ApiError(400, f"{place}: {problem['msg']}", param=place, code="invalid_value")

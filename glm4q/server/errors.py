"""Errors as each API writes them: a status, and an object that names what is wrong."""

from collections.abc import Mapping
from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
"""The word that OpenAI's clients read for each status; others are the server's own fault."""
ANTHROPIC_TYPES = {
    **TYPES,
    413: "request_too_large",
    503: "overloaded_error",
}
ANTHROPIC_PATH = "/v1/messages"


class ApiError(Exception):
    """A request that is refused. The message goes to the client: it names no path."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer to OpenAI's clients."""
        return error_body(self.status, self.message, param=self.param, code=self.code)

    @property
    def anthropic_body(self) -> dict[str, Any]:
        """The JSON of the answer to Anthropic's clients."""
        usual = "invalid_request_error" if self.status < 500 else "api_error"
        kind = ANTHROPIC_TYPES.get(self.status, usual)
        return {"type": "error", "error": {"type": kind, "message": valid_text(self.message)}}

    def body_at(self, path: str) -> dict[str, Any]:
        """The JSON of the answer to a request for this path of a URL."""
        anthropic = path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/")
        return self.anthropic_body if anthropic else self.body


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Write an error as OpenAI's API does."""
    message, param = valid_text(message), None if param is None else valid_text(param)
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unsupported(name: str, reason: str = "this server does not support it") -> ApiError:
    """Refuse a part of the API by its name."""
    return ApiError(400, f"{name}: {reason}", param=name, code="unsupported_parameter")


def valid_text(text: str) -> str:
    """Put U+FFFD for half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""The server's own description, in OpenAPI: its endpoints, bodies and statuses.

Bodies come from the very models that check them. Fields that ask for nothing, such as
`"store": false`, are accepted beside those that are described.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic.json_schema import models_json_schema

from glm4q import __version__
from glm4q.server.anthropic.requests import CountRequest, MessagesRequest
from glm4q.server.guard import OPEN
from glm4q.server.own.requests import DetokenizeRequest, TokenizeRequest, asked_names
from glm4q.server.request.bodies import Body, Json
from glm4q.server.request.requests import ChatRequest, CompletionRequest
from glm4q.server.responses.requests import ResponsesRequest

BY_ANY = {
    403: "The Host or the Origin is not allowed.",
    408: "The body did not come in time.",
    413: "The body is too long.",
    500: "The answer failed: the device has no memory left, or the program has a fault.",
}
BY_BODY = {400: "A field is wrong, or not supported; the error names it."}
BY_MODEL = {**BY_BODY, 404: "There is no such model."}
BY_ANSWER = {
    **BY_MODEL,
    429: "Too many answers wait.",
    503: "The server is ending.",
    504: "The answer took longer than --time-limit.",
}
BY_LIFE = {503: "The model's thread has ended."}
BY_KEY = {401: "The API key is missing or wrong."}


@dataclass(frozen=True)
class Described:
    """One endpoint."""

    path: str
    text: str
    required: tuple[str, ...] = ()
    """Fields that an answer always has."""
    body: type[Body] | None = None
    statuses: dict[int, str] = field(default_factory=dict)
    media: str = "application/json"
    query: tuple[str, ...] = ()
    anthropic: bool = False


DESCRIBED = (
    Described(
        "/health", "Whether the server lives.", ("status", "loaded"), statuses={503: "Ended"}
    ),
    Described("/metrics", "Figures for Prometheus.", media="text/plain"),
    Described("/openapi.json", "This description.", ("openapi", "paths")),
    Described("/v1/models", "The one model.", ("object", "data")),
    Described("/v1/models/{name}", "The model of a name.", ("id",), statuses=BY_MODEL),
    Described("/v1/plan", "A memory plan.", statuses=BY_BODY, query=tuple(asked_names())),
    Described("/v1/page/machine", "What the run holds beside its plan.", ("planned", "held")),
    Described("/v1/page/calculator", "What the page's calculator knows.", ("models", "cards")),
    Described("/tokenize", "The tokens of a text.", ("tokens",), TokenizeRequest, BY_BODY),
    Described("/detokenize", "The text of tokens.", ("text",), DetokenizeRequest, BY_BODY),
    Described(
        "/v1/chat/completions", "OpenAI's chat.", ("id", "choices", "usage"), ChatRequest, BY_ANSWER
    ),
    Described(
        "/v1/completions", "OpenAI's completions.", ("id", "choices"), CompletionRequest, BY_ANSWER
    ),
    Described(
        "/v1/responses", "OpenAI's responses.", ("id", "output"), ResponsesRequest, BY_ANSWER
    ),
    Described(
        "/v1/messages",
        "Anthropic's messages.",
        ("id", "content", "stop_reason", "usage"),
        MessagesRequest,
        BY_ANSWER,
        anthropic=True,
    ),
    Described(
        "/v1/messages/count_tokens",
        "The tokens of a message.",
        ("input_tokens",),
        CountRequest,
        BY_MODEL,
        anthropic=True,
    ),
)


def describe(model: str) -> Json:
    """Write the description of a server that serves a model of this name."""
    bodies = [entry.body for entry in DESCRIBED if entry.body is not None]
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    components: dict[str, Any] = schemas["$defs"]
    for body in bodies:
        properties = components[body.__name__]["properties"]
        if "model" in properties:
            properties["model"] = {"const": model}
    components |= {"OpenAIError": _openai_error(), "AnthropicError": _anthropic_error()}
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "glm4q", "version": __version__},
        "paths": {entry.path: _operation(entry, model) for entry in DESCRIBED},
        "components": {"schemas": components, "securitySchemes": keys},
    }


def _operation(entry: Described, model: str) -> Json:
    error = "AnthropicError" if entry.anthropic else "OpenAIError"
    own = {} if entry.path in OPEN else BY_KEY
    problem = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    responses: Json = {
        str(status): {"description": text, "content": problem}
        for status, text in {**BY_ANY, **own, **entry.statuses}.items()
    }
    if entry.path == "/health":
        responses["503"]["content"] = _content(entry)
    responses["200"] = {"description": entry.text, "content": _content(entry)}
    operation: Json = {"summary": entry.text, "responses": responses}
    if entry.path not in OPEN:
        operation["security"] = [{}, {"bearer": []}, {"key": []}]
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in entry.query
    ]
    if "{name}" in entry.path:
        named = {"type": "string", "examples": [model], "minLength": 1}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": named})
    if parameters:
        operation["parameters"] = parameters
    if entry.body is None:
        return {"get": operation}
    schema = {"$ref": f"#/components/schemas/{entry.body.__name__}"}
    content = {"application/json": {"schema": schema}}
    operation["requestBody"] = {"required": True, "content": content}
    return {"post": operation}


def _content(entry: Described) -> Json:
    if entry.media != "application/json":
        return {entry.media: {"schema": {"type": "string"}}}
    whole = {"type": "object", "required": list(entry.required)}
    content: Json = {"application/json": {"schema": whole}}
    if entry.body is not None and "stream" in entry.body.model_fields:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content


def _openai_error() -> Json:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    fields = {"message": text, "type": text, "param": maybe, "code": maybe}
    return _object({"error": _object(fields)})


def _anthropic_error() -> Json:
    text = {"type": "string"}
    return _object({"type": {"const": "error"}, "error": _object({"type": text, "message": text})})


def _object(fields: Json) -> Json:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }

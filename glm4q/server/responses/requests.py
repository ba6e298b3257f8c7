"""The body of /v1/responses. Nothing is stored, so nothing earlier can be referred to.

https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from glm4q.server.errors import unsupported
from glm4q.server.request.bodies import Body
from glm4q.server.request.requests import MAX_MESSAGES, MAX_TOKENS, MAX_TOOLS, TOOL_NAME

Status = Literal["in_progress", "completed", "incomplete"]


def _as_parts(content: Any) -> Any:
    """A text stands for one part of text."""
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class TextPart(Body):
    """A text, which a user or the model wrote."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[None] | None = Field(default=None, max_length=0)
    logprobs: list[None] | None = Field(default=None, max_length=0)


Parts = Annotated[
    list[TextPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart])
]


class Item(Body):
    """Something said or done earlier, with the name that it had."""

    id: str | None = None
    status: Status | None = None


class MessageItem(Item):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(Item):
    """A call in an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CallOutputItem(Item):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Parts


class ReasoningItem(Item):
    """Thoughts of an earlier answer, which the model is not shown again."""

    type: Literal["reasoning"]
    summary: Any = None
    content: Any = None
    encrypted_content: str | None = None


def _kind(item: Any) -> str:
    """A message needs no type."""
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "")
    return kind if isinstance(kind, str) else ""


AnyItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


def _as_items(content: Any) -> Any:
    """A text stands for one message of the user."""
    return [{"role": "user", "content": content}] if isinstance(content, str) else content


class Tool(Body):
    """A function that the client runs. Tools that a server would run are not known."""

    type: Literal["function"]
    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Body):
    """The one function that the model must call."""

    type: Literal["function"]
    name: str


class Text(Body):
    """The shape of the answer's text."""

    format: dict[str, Any] | None = None
    verbosity: None = None


class Reasoning(Body):
    """How the model is to think: its template alone decides that."""

    effort: None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Thoughts come whole, in plain text, whatever it is. Codex sends it with every request."""


class StreamOptions(Body):
    """What a stream is to contain beside the answer."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(Body):
    """The body of /v1/responses."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "background": (False,),
        "context_management": ([],),
        "conversation": (),
        "max_tool_calls": (),
        "previous_response_id": (),
        "prompt": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    }
    without_effect: ClassVar[Collection[str]] = (
        "user",
        "client_metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    )

    model: str
    input: Annotated[
        list[AnyItem],
        Field(min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(_as_items, json_schema_input_type=str | list[AnyItem]),
    ]
    instructions: str | None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    text: Text | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    top_p: float | None = None

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise unsupported("stream_options", "only a request with stream: true may have it")

"""The bodies of /v1/messages and /v1/messages/count_tokens.

https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from glm4q.server.request.bodies import Body
from glm4q.server.request.requests import MAX_MESSAGES, MAX_STOPS, MAX_TOKENS, MAX_TOOLS, TOOL_NAME


def _as_blocks(content: Any) -> Any:
    """A text stands for one block of text."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Cached(Body):
    """A part that may be marked for the cache; here every prefix is kept, marked or not."""

    cache_control: dict[str, Any] | None = None


class TextBlock(Cached):
    """A text."""

    type: Literal["text"]
    text: str
    citations: list[None] | None = Field(default=None, max_length=0)


Texts = Annotated[
    list[TextBlock], BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock])
]


class ThinkingBlock(Body):
    """Thoughts of an earlier answer, which the model is not shown again."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class HiddenThinkingBlock(Body):
    """Thoughts of another server's model, which nobody here can read."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Cached):
    """A call in an earlier answer."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Any = None


class ToolResultBlock(Cached):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts = Field(default=[])
    is_error: bool | None = None


Block = Annotated[
    TextBlock | ThinkingBlock | HiddenThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class Message(Body):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        list[Block], BeforeValidator(_as_blocks, json_schema_input_type=str | list[Block])
    ]


class Tool(Cached):
    """A function that the client runs. Tools that a server would run are not known."""

    type: Literal["custom"] | None = None
    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    eager_input_streaming: Any = None
    defer_loading: Literal[False] | None = None
    input_examples: list[None] | None = Field(default=None, max_length=0)
    allowed_callers: list[Literal["direct"]] | None = None


class ToolChoice(Body):
    """Whether the model may, must or must not call a tool."""

    type: Literal["auto", "none", "any", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Body):
    """Whether thoughts are sent. The model's template alone decides whether it thinks."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = Field(default=None, ge=1)
    display: Literal["summarized", "omitted"] | None = None


class ContextEdit(Body):
    """Earlier thoughts are to be dropped, which they always are."""

    type: Literal["clear_thinking_20251015"]
    keep: Any = None


class ContextManagement(Body):
    """What is to be dropped of a long conversation."""

    edits: list[ContextEdit] | None = None


class OutputFormat(Body):
    """The answer is to be JSON of a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """What the answer is to be like."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model should think, which its template alone decides: it changes nothing. Claude
    Code sends it with every request."""
    format: OutputFormat | None = None


class CountRequest(Cached):
    """The body of /v1/messages/count_tokens, and what a message has beside it."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "container": (),
        "inference_geo": (),
        "mcp_servers": ([],),
        "service_tier": ("auto", "standard_only"),
        "speed": ("standard",),
    }
    without_effect: ClassVar[Collection[str]] = ("metadata", "user_profile_id", "workspace_id")

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Texts = Field(default=[])
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None


class MessagesRequest(CountRequest):
    """The body of /v1/messages."""

    max_tokens: int = Field(ge=1, le=MAX_TOKENS)
    stream: bool | None = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, max_length=MAX_STOPS
    )
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = None
    top_k: int | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether thoughts are sent."""
        asked = self.thinking
        return asked is None or (asked.type != "disabled" and asked.display != "omitted")

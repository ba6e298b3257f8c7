"""The bodies of requests. What is not supported is refused by name, never ignored."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from glm4q.server.errors import ApiError
from glm4q.server.request.bodies import Body

MAX_CHOICES = 16
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1
TOOL_NAME = r"^[A-Za-z_][\w.-]{0,127}$"
"""Anthropic's clients name tools with up to 128 characters, OpenAI's with up to 64."""

WITHOUT_EFFECT = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Labels for the accounts of whoever runs a service; they ask for nothing."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": (),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's API that are not supported, and the values by which they ask for nothing."""


class StreamOptions(Body):
    """What a stream is to contain beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Function(Body):
    """A function that the model may call."""

    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OfferedTool(Body):
    """A tool: only functions are known."""

    type: Literal["function"]
    function: Function

    @property
    def for_template(self) -> dict[str, Any]:
        """The tool as templates take it. A schema is not copied: it may be deep."""
        names = (name for name in Function.model_fields if name != "strict")
        named = {name: getattr(self.function, name) for name in names}
        given = {name: value for name, value in named.items() if value is not None}
        return {"type": "function", "function": given}


class CalledFunction(Body):
    """The function of an earlier call, with its arguments as JSON text."""

    name: str
    arguments: str


class EarlierCall(Body):
    """A call in a message of the assistant."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(Body):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[EarlierCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: list[None] | None = Field(default=None, max_length=0)
    audio: None = None
    function_call: None = None


class Sampled(Body):
    """Fields that a chat and a completion have in common."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = NEUTRAL
    without_effect: ClassVar[Collection[str]] = WITHOUT_EFFECT

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> list[str]:
        """The strings that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def biases(self) -> dict[int, float]:
        """The bias of each token id. Raises ApiError for a name that is none."""
        try:
            return {int(token): bias for token, bias in (self.logit_bias or {}).items()}
        except ValueError as error:
            message = f"logit_bias: names must be token ids: {error}"
            raise ApiError(400, message, param="logit_bias", code="invalid_value") from None

    @property
    def log_probabilities(self) -> int | None:
        """How many likely tokens come with each token; None where no figures are asked for."""
        return None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        if len(self.stops) > MAX_STOPS or not all(self.stops):
            message = f"stop: at most {MAX_STOPS} strings, none of them empty"
            raise ApiError(400, message, param="stop", code="invalid_value")
        if self.stream_options is not None and not self.stream:
            message = "stream_options: only a request with stream: true may have it"
            raise ApiError(400, message, param="stream_options", code="invalid_value")


class NamedSchema(Body):
    """A schema that an answer must match."""

    name: str = Field(max_length=64)
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None
    """Answers match, whatever it is."""


class ResponseFormat(Body):
    """What the text of an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatRequest(Sampled):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: list[OfferedTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def log_probabilities(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    def check(self) -> None:
        super().check()
        if self.top_logprobs and not self.logprobs:
            message = "top_logprobs: only a request with logprobs: true may have it"
            raise ApiError(400, message, param="top_logprobs", code="invalid_value")


class CompletionRequest(Sampled):
    """The body of /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def log_probabilities(self) -> int | None:
        return self.logprobs

"""What an answer must match by its request: a format of its text, or the call of a tool."""

from collections.abc import Sequence

from calculator.errors import GrammarError
from glm4q.chat.reply_grammar import ReplyGrammar
from glm4q.server.errors import ApiError, unsupported
from glm4q.server.request.bodies import Json
from glm4q.server.request.protocol import offered_tools
from glm4q.server.request.requests import ChatRequest, ResponseFormat
from glm4q.text.grammar.grammar import Grammar
from glm4q.tools.calls import CallStyle

FORMAT, CHOICE = "response_format", "tool_choice"


def reply_grammar(request: ChatRequest, style: CallStyle) -> ReplyGrammar | None:
    """Return what a reply must match; None where all will do. Raises ApiError.

    style: how the template writes calls.
    """
    tools = offered_tools(request)
    text = None if request.response_format is None else _text_grammar(request.response_format)
    forced = _forced_tools(request, tools)
    if forced is not None:
        return _with_tools(None, forced, style, CHOICE)
    if text is not None and request.stops:
        message = "stop: a stop string would cut an answer that must match response_format"
        raise ApiError(400, message, param="stop", code="invalid_value")
    if text is None:
        return _free_text(request, tools, style)
    return _with_tools(text, tools, style, "tools")


def _text_grammar(wanted: ResponseFormat) -> Grammar | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Grammar.from_json_schema({"type": "object"})
    if wanted.json_schema is None:
        message = f"{FORMAT}.json_schema: the type json_schema needs it"
        raise ApiError(400, message, param=f"{FORMAT}.json_schema", code="invalid_value")
    try:
        schema = wanted.json_schema.schema_
        return Grammar.from_json_schema({} if schema is None else schema)
    except GrammarError as error:
        raise _refusal(error, FORMAT) from None


def _forced_tools(request: ChatRequest, tools: Sequence[Json]) -> Sequence[Json] | None:
    """The tools of which one must be called; None where none must."""
    choice = request.tool_choice
    if choice in (None, "auto", "none"):
        return None
    if choice == "required":
        forced = list(tools)
    elif isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        forced = [tool for tool in tools if tool["function"]["name"] == name]
    else:
        raise unsupported(CHOICE, 'it may be "auto", "none", "required" or a function\'s name')
    if not forced:
        message = f"{CHOICE}: the request offers no such tool"
        raise ApiError(400, message, param=CHOICE, code="invalid_value")
    return forced


def _free_text(
    request: ChatRequest, tools: Sequence[Json], style: CallStyle
) -> ReplyGrammar | None:
    """Text stays free; calls of strict tools match, and one is the last where the request says."""
    strict = [tool.function.name for tool in request.tools or () if tool.function.strict]
    parallel = request.parallel_tool_calls is not False
    if not tools or (parallel and not strict):
        return None
    try:
        return ReplyGrammar.free(tools, style, strict=strict, parallel=parallel)
    except GrammarError as error:
        raise _refusal(error, "tools") from None


def _with_tools(
    text: Grammar | None, tools: Sequence[Json], style: CallStyle, param: str
) -> ReplyGrammar:
    try:
        return ReplyGrammar.with_tools(text, tools, style)
    except GrammarError as error:
        raise _refusal(error, param) from None


def _refusal(error: GrammarError, param: str) -> ApiError:
    return ApiError(400, f"{param}: {error}", param=param, code="invalid_value")

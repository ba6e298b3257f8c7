"""Conversations in the formats of fine-tuning data: OpenAI's messages, ShareGPT and Alpaca."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calculator.errors import OptionError

SHARE_GPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
KNOWN = "messages, conversations, instruction and output, prompt and completion, text or token_ids"


@dataclass(frozen=True)
class Conversation:
    """Messages in OpenAI's format, and the tools that the model may call."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


def read_conversation(value: Mapping[str, Any]) -> Conversation:
    """Read a JSON object in any of the formats. Raises OptionError."""
    if "messages" in value:
        messages = tuple(_message(item) for item in _objects(value, "messages"))
        return Conversation(messages, _tools(value))
    if "conversations" in value:
        return Conversation(tuple(_share_gpt(value)), _tools(value))
    if "instruction" in value and "output" in value:
        return Conversation(tuple(_alpaca(value)))
    raise OptionError(f"must have {KNOWN}; it has {', '.join(map(str, value)) or 'nothing'}")


def for_glm4(messages: tuple[Mapping[str, Any], ...]) -> Iterator[Mapping[str, Any]]:
    """Write calls of tools and their results as GLM-4 does: it has no tool_calls and no role tool.

    A call is an answer whose metadata is the function's name. Raises OptionError.
    """
    for message in messages:
        calls = message.get("tool_calls")
        if message["role"] in ("tool", "function"):
            yield {"role": "observation", "content": message.get("content")}
            continue
        if not calls or message.get("content"):
            yield {name: item for name, item in message.items() if name != "tool_calls"}
        for call in calls or ():
            function = call.get("function") if isinstance(call, Mapping) else None
            if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
                raise OptionError("must have a function with a name in each of its tool_calls")
            arguments = function.get("arguments", "{}")
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            yield {"role": "assistant", "metadata": function["name"], "content": arguments}


def _message(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose content is one text, not a list of parts."""
    if not isinstance(item.get("role"), str):
        raise OptionError(f"must have a role in each message, and one has {item.get('role')!r}")
    content = item.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise OptionError("must have text alone in the parts of its messages")
        return {**item, "content": "".join(map(str, parts))}
    if not isinstance(content, str | None) or (content is None and not item.get("tool_calls")):
        raise OptionError(f"must have text in each message, and one has {content!r:.60}")
    return item


def _share_gpt(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(value.get("system"), str) and value["system"]:
        yield {"role": "system", "content": value["system"]}
    for item in _objects(value, "conversations"):
        if "role" in item and "content" in item:
            yield _message(item)
            continue
        role = item.get("from")
        if not isinstance(role, str) or role not in SHARE_GPT_ROLES:
            raise OptionError(
                f"must have from {', '.join(SHARE_GPT_ROLES)} in its conversations, not {role!r}"
            )
        if not isinstance(item.get("value"), str):
            raise OptionError("must have a text as value in each of its conversations")
        yield {"role": SHARE_GPT_ROLES[role], "content": item["value"]}


def _alpaca(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    texts = {name: value.get(name) or "" for name in ("system", "instruction", "input", "output")}
    history = value.get("history") or []
    pairs = isinstance(history, list) and all(_is_pair(pair) for pair in history)
    if not all(isinstance(text, str) for text in texts.values()) or not pairs:
        raise OptionError("must have text as instruction, input and output, and pairs as history")
    if texts["system"]:
        yield {"role": "system", "content": texts["system"]}
    question = "\n".join(filter(None, (texts["instruction"], texts["input"])))
    for asked, answered in (*history, (question, texts["output"])):
        yield {"role": "user", "content": asked}
        yield {"role": "assistant", "content": answered}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)


def _tools(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    tools = value.get("tools")
    if isinstance(tools, str) and tools.strip():  # ShareGPT's files hold JSON in a string
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise OptionError("must have JSON as tools") from None
    return tuple(_objects({"tools": tools}, "tools")) if tools else ()


def _objects(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = value[name]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise OptionError(f"must have a list of objects as {name}")
    return items

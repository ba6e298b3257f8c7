"""GLM-4's chat protocol, for checkpoints that bring no template of their own.

It writes what transformers renders from glm-4-9b-chat's template, down to the single newline before
each tool: the template has two there, but `trim_blocks` eats one.
"""

import json
from collections.abc import Sequence
from typing import Any

from calculator.errors import TokenizerError
from glm4q.chat.messages import Message, Tool

CONTROL_TOKENS = frozenset({"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"})
ROLES = ("system", "user", "assistant", "observation")

# The model was trained on these very characters.
TOOLS_INTRODUCTION = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"  # noqa: RUF001
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
CALL_WITH_JSON = "在调用上述函数时，请使用 Json 格式表示调用的参数。"  # noqa: RUF001


def render(
    messages: Sequence[Message], *, tools: Sequence[Tool] | None, add_generation_prompt: bool
) -> str:
    """Render the prompt. A message without content adds no text, but its tools count."""
    prompt = ["[gMASK]<sop>"]
    for message in with_tools(messages, tools):
        if "tools" in message:
            prompt.append(_offer(message["tools"]))
        if message.get("content"):
            prompt.append(_say(message))
    if add_generation_prompt:
        prompt.append("<|assistant|>")
    return "".join(prompt)


def with_tools(messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[Message]:
    """GLM-4 reads tools from a system message."""
    return [{"role": "system", "tools": tools}, *messages] if tools else [*messages]


def _offer(tools: Any) -> str:
    if not isinstance(tools, list):
        raise TokenizerError(f"tools must be a list of functions, not {type(tools).__name__}")
    return "".join(["<|system|>\n", TOOLS_INTRODUCTION, *map(_describe, tools)])


def _describe(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
        raise TokenizerError(f"a tool must be a function with a name, not {json.dumps(tool)[:80]}")
    schema = json.dumps(function, ensure_ascii=False, indent=4)
    return f"\n## {function['name']}\n\n{schema}\n{CALL_WITH_JSON}"


def _say(message: Message) -> str:
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise TokenizerError(f"GLM-4 knows the roles {', '.join(ROLES)}, not {role!r}")
    if not isinstance(content, str):
        raise TokenizerError(f"GLM-4 reads content as text, not as {type(content).__name__}")
    return f"<|{role}|>{message.get('metadata', '')}\n{content}"

"""The family's chat protocols as one table, for checkpoints whose template is missing or wrong.

Each writes what transformers renders from the authors' template, down to the newlines before each
tool: the templates have more, but `trim_blocks` eats one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calculator.errors import OptionError, TokenizerError
from glm4q.chat.messages import Message, Tool

ROLES = ("system", "user", "assistant", "observation")

# The models were trained on these very characters.
TOOLS_HEADING = "# 可用工具"
CALL_WITH_JSON = "在调用上述函数时，请使用 Json 格式表示调用的参数。"  # noqa: RUF001
GLM4_INTRODUCTION = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"  # noqa: RUF001
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n"
)
Z1_INTRODUCTION = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"  # noqa: RUF001
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n"
)


@dataclass(frozen=True)
class Dialect:
    """How one generation of the family writes a prompt. Called, it renders one."""

    name: str
    control_tokens: frozenset[str]
    """A tokenizer without these cannot speak it."""
    prefix: str = "[gMASK]<sop>"
    introduction: str | None = None
    """What a tool offer begins with; None where the dialect is rendered without tools."""
    before_tool: str = "\n"
    before_content: str = "\n"
    """Ends the line of the role."""
    system_first: bool = False
    """System messages stand before all others, and only the assistant's metadata is written."""
    writes_empty: bool = False
    """A message without content is written too."""
    hides_thinking: bool = False
    """Content is what follows the last </think>, without white space around it."""
    reply: str = "<|assistant|>"
    """Ends the prompt."""

    def __call__(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None,
        add_generation_prompt: bool,
    ) -> str:
        """Render the prompt."""
        prompt = [self.prefix]
        for message in self._ordered(with_tools(messages, tools)):
            if "tools" in message:
                prompt.append(self._offer(message["tools"]))
            if message.get("content") or (self.writes_empty and "content" in message):
                prompt.append(self._say(message))
        if add_generation_prompt:
            prompt.append(self.reply)
        return "".join(prompt)

    def _ordered(self, messages: list[Message]) -> list[Message]:
        if not self.system_first:
            return messages
        return sorted(messages, key=lambda message: message["role"] != "system")

    def _offer(self, tools: Any) -> str:
        if self.introduction is None:
            raise TokenizerError(f"the dialect {self.name} takes no tools here")
        if not isinstance(tools, list):
            raise TokenizerError(f"tools must be a list of functions, not {type(tools).__name__}")
        described = (self._describe(tool) for tool in tools)
        return "".join(["<|system|>\n", self.introduction, TOOLS_HEADING, *described])

    def _describe(self, tool: Any) -> str:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
            raise TokenizerError(
                f"a tool must be a function with a name, not {json.dumps(tool)[:80]}"
            )
        schema = json.dumps(function, ensure_ascii=False, indent=4)
        return f"{self.before_tool}## {function['name']}\n\n{schema}\n{CALL_WITH_JSON}"

    def _say(self, message: Message) -> str:
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise TokenizerError(f"{self.name} knows the roles {', '.join(ROLES)}, not {role!r}")
        if not isinstance(content, str):
            raise TokenizerError(
                f"{self.name} reads content as text, not as {type(content).__name__}"
            )
        if self.hides_thinking and role != "system":
            content = content.split("</think>")[-1].strip()
        metadata = message.get("metadata", "")
        if self.system_first and role != "assistant":
            metadata = ""
        return f"<|{role}|>{metadata}{self.before_content}{content}"


def with_tools(messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[Message]:
    """GLM-4 reads tools from a system message."""
    return [{"role": "system", "tools": tools}, *messages] if tools else [*messages]


GLM4_TOKENS = frozenset({"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"})
GLM4 = Dialect("glm-4", GLM4_TOKENS, introduction=GLM4_INTRODUCTION)

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "chatglm3",
            frozenset({"[gMASK]", "sop", "<|user|>", "<|assistant|>"}),
            prefix="[gMASK]sop",
            writes_empty=True,
            before_content="\n ",  # its tokenizer begins each text with a space
        ),
        GLM4,
        Dialect(
            "glm-4-0414",
            GLM4_TOKENS,
            introduction="",
            before_tool="\n\n",
            system_first=True,
            writes_empty=True,
        ),
        Dialect(
            "glm-z1",
            GLM4_TOKENS,
            introduction=Z1_INTRODUCTION,
            system_first=True,
            writes_empty=True,
            hides_thinking=True,
            reply="<|assistant|>\n<think>",
        ),
    )
}


def find_dialect(name: str) -> Dialect:
    """The dialect of this name. Raises OptionError."""
    if name not in DIALECTS:
        raise OptionError(f"--dialect must be {', '.join(DIALECTS)}, not {name!r}")
    return DIALECTS[name]

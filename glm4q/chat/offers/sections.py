"""GLM-4's offer of tools: an introduction, and a section of the system message for each tool."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calculator.errors import TokenizerError

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
PYTHON = (
    "当你向 `python` 发送包含 Python 代码的消息时，该代码将会在一个有状态的 Jupyter notebook "  # noqa: RUF001
    "环境中执行。\n"
    "`python` 返回代码执行的输出，或在执行 60 秒后返回超时。\n"  # noqa: RUF001
    "`/mnt/data` 将会持久化存储你的文件。在此会话中，`python` 无法访问互联网。"  # noqa: RUF001
    "不要使用 `python` 进行任何网络请求或者在线 API 调用，这些在线内容的访问将不会成功。"  # noqa: RUF001
)
SIMPLE_BROWSER = (
    "你可以使用 `simple_browser` 工具。该工具支持以下函数：\n"  # noqa: RUF001
    "`search(query: str, recency_days: int)`：使用搜索引擎进行查询并显示结果，"  # noqa: RUF001
    "可以使用 `recency_days` 参数控制搜索内容的时效性。\n"
    "`mclick(ids: list[int])`：获取一系列指定 id 的页面内容。每次调用时，须选择3-10个页面。"  # noqa: RUF001
    "选择多个角度的页面，同时尽可能选择可信任的信息来源。"  # noqa: RUF001
    "考虑到部分页面是无法加载的，你也可以多打开一些可能有用的页面而不用担心内容过多。\n"  # noqa: RUF001
    "`open_url(url: str)`：打开指定的 URL。\n\n"  # noqa: RUF001
    "使用 `【{引用 id}†{引用文本}】` 来引用内容。\n\n"
    "操作步骤：1. 使用 `search` 来获得信息列表; 2. 使用 `mclick` 来获取指定 ID 页面的内容; "  # noqa: RUF001
    "3. 根据获得的内容进行回复。在回复中应当引用信息来源。\n"
    " 如果用户提供了 URL，也可以用 `open_url` 直接打开页面。\n"  # noqa: RUF001
    "如果初次搜索结果没有找到合适的信息，也可以再次使用 `search` 进行搜索。"  # noqa: RUF001
)
NATIVE_TOOLS = {"python": PYTHON, "simple_browser": SIMPLE_BROWSER}
"""Tools that GLM-4-9B was trained with. It calls them with text: code, or `search("...")`."""


@dataclass(frozen=True)
class SectionOffer:
    """Writes the system message that offers tools."""

    introduction: str = GLM4_INTRODUCTION
    before_tool: str = "\n"
    natives: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the tools that have a kind of their own."""

    def __call__(self, tools: list[Any], content: str | None) -> str:
        """Return the content of a system message; `content` follows in one of its own."""
        described = (self._describe(tool) for tool in tools)
        return "".join([self.introduction, TOOLS_HEADING, *described])

    def _describe(self, tool: Any) -> str:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind in self.natives:
            return f"{self.before_tool}## {kind}\n\n{self.natives[kind]}"
        function = function_of(tool)
        schema = json.dumps(function, ensure_ascii=False, indent=4)
        return f"{self.before_tool}## {function['name']}\n\n{schema}\n{CALL_WITH_JSON}"


def function_of(tool: Any) -> dict[str, Any]:
    """Return the function that a tool is. Raises TokenizerError for another kind."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
        raise TokenizerError(f"a tool must be a function with a name, not {json.dumps(tool)[:80]}")
    return function

"""ChatGLM3's offer of tools: one list of JSON behind an English sentence.

It is what tokenization_chatglm.py of chatglm3-6b writes for a system message with `tools`.
"""

import json
from typing import Any

from glm4q.chat.offers.sections import function_of

INTRODUCTION = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)


def listed_offer(tools: list[Any], content: str | None) -> str:
    """Return the content of the system message: what the caller wrote, or the introduction."""
    functions = [function_of(tool) for tool in tools]
    listed = json.dumps(functions, ensure_ascii=False, indent=4)
    return f"{content or INTRODUCTION}\n{listed}"

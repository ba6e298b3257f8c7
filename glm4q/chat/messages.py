"""Messages as a chat template may see them: plain JSON, with its control tokens marked as text.

The marks are one private-use character on each side of a control token that a user typed.
`Tokenizer.encode_prompt` reads them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from calculator.errors import TokenizerError
from glm4q.text.tokenizer import USER_END, USER_START

# As in OpenAI's API: role, content, tool_calls, ... GLM-4 adds metadata and, for system, tools.
Message = Mapping[str, Any]
Tool = Mapping[str, Any]

_DROP_MARKS = str.maketrans("", "", USER_START + USER_END)
_ESCAPED_MARKS = {
    escape(mark)[1:-1]: mark for mark in (USER_START, USER_END) for escape in (repr, json.dumps)
}
_ESCAPE = re.compile("|".join(map(re.escape, _ESCAPED_MARKS)) + r"|\\.", re.DOTALL)


def read_messages(messages: str | Sequence[Message]) -> list[Message]:
    """Return a conversation; a text is one question. Raises TokenizerError where there is none."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages or not all(isinstance(message, Mapping) for message in messages):
        raise TokenizerError(
            "messages must be a question, or dicts such as {'role': 'user', 'content': 'Hello'}"
        )
    return [*messages]


def mark_messages(
    messages: Sequence[Message], control_tokens: re.Pattern[str]
) -> list[dict[str, Any]]:
    """Return marked copies of the messages, without None, which templates would print."""
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        # Templates build control tokens from roles, as in <|{{ role }}|>, where no mark would help
        if not (isinstance(role, str) and re.fullmatch(r"[\w-]+", role)):
            raise TokenizerError(f"a message must have a role of one word, not {role!r}")
    kept = (
        {key: item for key, item in message.items() if item is not None} for message in messages
    )
    return [mark_control_tokens(message, control_tokens) for message in kept]


def mark_control_tokens(value: Any, control_tokens: re.Pattern[str]) -> Any:
    """Copy JSON data, with marks around the control tokens in its strings and keys."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        text = value.translate(_DROP_MARKS)
        marked, count = control_tokens.subn(rf"{USER_START}\g<0>{USER_END}", text)
        return MarkedText(marked) if count else text
    if isinstance(value, list | tuple):
        return [mark_control_tokens(item, control_tokens) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        keys = mark_control_tokens([*value], control_tokens)
        return dict(zip(keys, mark_control_tokens([*value.values()], control_tokens), strict=True))
    raise TokenizerError(f"messages and tools must be plain JSON, not {type(value).__name__}")


class MarkedText(str):
    """Text with marks, which its `repr` keeps: `{{ tools }}` prints the `repr` of strings."""

    __slots__ = ()

    def __repr__(self) -> str:
        return restore_marks(super().__repr__())


def restore_marks(escaped: str) -> str:
    """Undo what `repr` or `json.dumps` did to the marks, and only to them."""
    return _ESCAPE.sub(lambda escape: _ESCAPED_MARKS.get(escape[0], escape[0]), escaped)

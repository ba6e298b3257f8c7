"""A summary in the place of the oldest messages of a conversation, so that it has room again."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from calculator.errors import ContextFullError, OptionError, ToolError
from glm4q.chat.completions.completion import ChatEvent
from glm4q.chat.session import ChatSession
from glm4q.decode.sampling import SamplingParams
from glm4q.tools.calls import BadCall, ToolCall

REQUEST = (
    "Summarize our conversation so far in a few sentences. Keep names, numbers, decisions and open "
    "questions."
)
LONGEST = 512
LEAST = 16
"""Tokens of a summary."""


def summarize(
    session: ChatSession, start: int, end: int, params: SamplingParams
) -> Generator[ChatEvent]:
    """Stream a summary of the messages from `start` to `end`, and put it in their place.

    The model is asked for it behind these messages, and the conversation begins with that request
    and the summary afterwards; messages before `start`, such as tools, stay. A summary is shorter
    than what it replaces. Where it is interrupted or fails the conversation is as before. Raises
    OptionError where these messages leave no room for a summary, and ToolError where the model
    calls a tool.
    """
    before, request = session.conversation, {"role": "user", "content": REQUEST}
    oldest, rest = before.messages[:end], before.messages[end:]
    first = before.messages[:start]
    replaced = session.count_tokens(oldest) - session.count_tokens([*first, request])
    limit = min(LONGEST, replaced // 2)
    if limit < LEAST:
        raise OptionError("these questions are too short for a summary; /drop forgets them")
    limited = replace(params, max_tokens=min(params.max_tokens or limit, limit))
    done = False
    try:
        with closing(session.answer([*oldest, request], limited, free=True)) as events:
            for event in events:
                if isinstance(event, ToolCall | BadCall):
                    raise ToolError("the model called a tool instead; nothing is replaced")
                yield event
        *_, summary = session.messages
        done = session.last_answer is not None and session.last_answer.finish_reason != "cancelled"
    except ContextFullError:
        raise OptionError(
            "these questions leave no room for a summary of them: name fewer, as in /summary 1, or "
            "/drop some"
        ) from None
    finally:
        session.resume(before)
    if not done or summary["role"] != "assistant" or not summary["content"].strip():
        raise OptionError("there is no summary; nothing is replaced")
    tokens = session.context_used
    session.rewind([*first, request, summary, *rest])
    if session.context_used >= tokens:
        session.resume(before)
        raise OptionError("the summary is not shorter than what it is about; nothing is replaced")

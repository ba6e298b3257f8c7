"""One question's answer as a JSON object: `glm4q chat --json`."""

import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

from glm4q.chat.completions.completion import ChatEvent
from glm4q.chat.completions.token_choices import TokenChoice, token_choices
from glm4q.chat.replies import Text, Thinking
from glm4q.chat.session import ChatSession
from glm4q.chat.tool_messages import ToolResult
from glm4q.engine import LLM
from glm4q.tools.calls import ToolCall


def answer_as_json(llm: LLM, session: ChatSession, events: Generator[ChatEvent]) -> str:
    """Read the events of an answer to their end, and describe it.

    Tokens and seconds are those of the last reply, where calls of tools made several. An error
    leaves it to the caller: then there is no object.
    """
    text, thinking = "", ""
    calls: list[dict[str, Any]] = []
    with closing(events):
        for event in events:
            if isinstance(event, Text):
                text += event.text
            elif isinstance(event, Thinking):
                thinking += event.text
            elif isinstance(event, ToolResult):
                calls.append(_describe(event))
    answer = session.last_answer
    assert answer is not None  # an answer has begun, or an error was raised
    described: dict[str, Any] = {
        "model": str(llm.directory),
        "text": text,
        "thinking": thinking or None,
        "tool_calls": calls,
        "finish_reason": answer.finish_reason,
        "tokens": {
            "prompt": answer.prompt_tokens,
            "cached": answer.cached_tokens,
            "answer": answer.tokens,
            "context": session.context_size,
        },
        "seconds": {
            "to_first_token": round(answer.prefill_seconds, 4),
            "after_it": round(answer.decode_seconds, 4),
        },
        "tokens_per_second": round(answer.tokens_per_second, 2),
    }
    if session.params.log_probabilities is not None:
        described["logprobs"] = [_token(choice) for choice in token_choices(llm.tokenizer, answer)]
    return json.dumps(described, ensure_ascii=False, indent=2)


def _token(choice: TokenChoice) -> dict[str, Any]:
    """Return a token with the logarithm of its probability, and the likeliest at its place."""
    top = [{"token": text, "logprob": value} for text, value in choice.top]
    return {"id": choice.id, "token": choice.text, "logprob": choice.log_probability, "top": top}


def _describe(result: ToolResult) -> dict[str, Any]:
    """Return a call with its result. A call that cannot be read has no name and no arguments."""
    call = result.call
    if isinstance(call, ToolCall):
        return {"name": call.name, "arguments": call.arguments, "result": result.text}
    return {"name": None, "arguments": None, "text": call.text, "result": result.text}

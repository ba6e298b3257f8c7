"""Answers as OpenAI's API writes them: the events of a reply become JSON, whole or in pieces."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from glm4q.chat.replies import BadCall, ReplyEvent, Text, Thinking
from glm4q.decode.answer import FinishReason
from glm4q.server.errors import valid_text
from glm4q.server.openai.logprobs import TokenLog
from glm4q.server.request.bodies import Json
from glm4q.tools.calls import ToolCall


class Choice(Protocol):
    """One answer to a request, on its way."""

    def begin(self) -> list[Json]:
        """The first pieces of a stream."""

    def add(self, event: ReplyEvent) -> list[Json]:
        """Keep what the model says, and return the pieces of a stream that say it."""

    def end(self, reason: FinishReason) -> Json:
        """The last piece of a stream."""

    def whole(self, reason: FinishReason) -> Json:
        """All that was said, in one object."""


def _openai_reason(reason: FinishReason) -> str:
    """The reason in OpenAI's words: an answer that repeats itself is cut, as by the limit."""
    return "length" if reason == "repetition" else reason


@dataclass
class ChatChoice:
    """An answer of /v1/chat/completions."""

    index: int
    new_id: Callable[[], str]
    """Names a call, so that its result can name it."""
    log: TokenLog | None = None
    """Tells the log-probabilities of the text's tokens, where they are asked for."""
    text: str = ""
    thinking: str = ""
    calls: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)

    def begin(self) -> list[Json]:
        return [self._piece({"role": "assistant", "content": ""})]

    def add(self, event: ReplyEvent) -> list[Json]:
        """A call comes in one piece, so its id and its name come once."""
        if isinstance(event, Thinking):
            self.thinking += event.text
            if self.log is not None:
                self.log.take(event.text)
            return [self._piece({"reasoning_content": event.text})] if event.text else []
        if isinstance(event, Text | BadCall):  # a call that cannot be read is what it says
            self.text += event.text
            return self._say(event.text) if event.text else []
        call = self._call(event)
        self.calls.append(call)
        return [self._piece({"tool_calls": [{"index": len(self.calls) - 1, **call}]})]

    def end(self, reason: FinishReason) -> Json:
        return {**self._piece({}), "finish_reason": self._reason(reason)}

    def whole(self, reason: FinishReason) -> Json:
        """There is no reasoning_content where the model did not think."""
        message: Json = {"role": "assistant", "content": self.text}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.calls:
            message |= {"content": self.text or None, "tool_calls": self.calls}
        finish_reason = self._reason(reason)
        return {
            "index": self.index,
            "message": message,
            "finish_reason": finish_reason,
            "logprobs": None if self.log is None else {"content": self.logprobs, "refusal": None},
        }

    def _say(self, text: str) -> list[Json]:
        piece = self._piece({"content": text})
        if self.log is not None:
            piece["logprobs"] = self.log.chat_record(self.log.take(text))
            self.logprobs += piece["logprobs"]["content"]
        return [piece]

    def _piece(self, delta: Json) -> Json:
        return {"index": self.index, "delta": delta, "finish_reason": None, "logprobs": None}

    def _reason(self, reason: FinishReason) -> str:
        return "tool_calls" if self.calls and reason == "stop" else _openai_reason(reason)

    def _call(self, call: ToolCall) -> Json:
        arguments = valid_text(json.dumps(call.arguments, ensure_ascii=False))
        function = {"name": call.name, "arguments": arguments}
        return {"id": self.new_id(), "type": "function", "function": function}


@dataclass
class TextChoice:
    """An answer of /v1/completions."""

    index: int
    log: TokenLog | None = None
    text: str = ""
    logprobs: dict[str, list[Any]] = field(default_factory=dict)

    def begin(self) -> list[Json]:
        return []

    def add(self, event: ReplyEvent) -> list[Json]:
        text = event.text if isinstance(event, Text) else ""
        if not text:
            return []
        piece = self._piece(text, None)
        if self.log is not None:
            piece["logprobs"] = self.log.text_record(self.log.take(text), text, self.text)
            for name, values in piece["logprobs"].items():
                self.logprobs.setdefault(name, []).extend(values)
        self.text += text
        return [piece]

    def end(self, reason: FinishReason) -> Json:
        return self._piece("", _openai_reason(reason))

    def whole(self, reason: FinishReason) -> Json:
        return {**self._piece(self.text, _openai_reason(reason)), "logprobs": self.logprobs or None}

    def _piece(self, text: str, reason: str | None) -> Json:
        return {"index": self.index, "text": text, "finish_reason": reason, "logprobs": None}


@dataclass(frozen=True)
class Heading:
    """What all objects of one answer begin with."""

    id: str
    kind: Literal["chat.completion", "text_completion"]
    created: int
    model: str

    def whole(self, choices: Sequence[Json], usage: Json) -> Json:
        """The answer in one piece."""
        return {**self._begin(self.kind), "choices": list(choices), "usage": usage}

    def chunk(self, *choices: Json) -> Json:
        """A piece of a stream."""
        streamed = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        return {**self._begin(streamed), "choices": list(choices)}

    def usage_chunk(self, usage: Json) -> Json:
        """The last piece of a stream whose request asks for it: it has no choices."""
        return {**self.chunk(), "usage": usage}

    def _begin(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Count tokens: the prompt's once, and those of all choices."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

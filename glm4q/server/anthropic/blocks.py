"""Answers as Anthropic's API writes them: content blocks, whole or as the events of a stream."""

import json
from dataclasses import dataclass, field
from typing import Literal

from glm4q.chat.replies import ReplyEvent, Thinking
from glm4q.server.errors import ApiError, valid_text
from glm4q.server.reply import Finished, Reply
from glm4q.server.request.bodies import Json
from glm4q.server.service import new_id
from glm4q.tools.calls import ToolCall

Kind = Literal["text", "thinking"]
DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


@dataclass
class MessageWriter:
    """Writes one message: blocks of text and thinking, which grow, and calls, which come whole."""

    model: str
    reply: Reply
    shows_thinking: bool
    id: str = field(default_factory=lambda: new_id("msg_"))
    blocks: list[Json] = field(default_factory=list)
    growing: bool = False
    """Whether the last block has been begun and not ended."""

    @property
    def ping(self) -> Json:
        return {"type": "ping"}

    def begin(self) -> list[Json]:
        usage = {"input_tokens": len(self.reply.job.prompt), "output_tokens": 0}
        message = {**self._message(), "content": [], "usage": usage}
        return [{"type": "message_start", "message": message}, self.ping]

    def add(self, event: ReplyEvent) -> list[Json]:
        if isinstance(event, ToolCall):
            return self._call(event)
        kind: Kind = "thinking" if isinstance(event, Thinking) else "text"
        if not event.text or (kind == "thinking" and not self.shows_thinking):
            return []
        events = []
        if not self.growing or self.blocks[-1]["type"] != kind:
            signature = {"signature": ""} if kind == "thinking" else {}
            events = [*self._stop(), self._start({"type": kind, kind: "", **signature})]
        self.blocks[-1][kind] += event.text
        return [*events, self._delta({"type": DELTAS[kind], kind: event.text})]

    def end(self, finished: Finished) -> list[Json]:
        delta = {"stop_reason": self._reason(finished), "stop_sequence": finished.stop_string}
        last = {"type": "message_delta", "delta": delta, "usage": self._usage()}
        return [*self._stop(), last, {"type": "message_stop"}]

    def fail(self, error: ApiError) -> list[Json]:
        return [error.anthropic_body]

    def whole(self, finished: Finished) -> Json:
        return {
            **self._message(),
            "content": self.blocks,
            "stop_reason": self._reason(finished),
            "stop_sequence": finished.stop_string,
            "usage": self._usage(),
        }

    def _message(self) -> Json:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _call(self, call: ToolCall) -> list[Json]:
        """Clients read the arguments from the pieces of their JSON, of which there is one."""
        arguments = valid_text(json.dumps(call.arguments, ensure_ascii=False))
        block = {"type": "tool_use", "id": new_id("toolu_"), "name": call.name, "input": {}}
        events = [*self._stop(), self._start(block)]
        events.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
        self.blocks[-1]["input"] = json.loads(arguments)
        return [*events, *self._stop()]

    def _start(self, block: Json) -> Json:
        self.growing = True
        self.blocks.append(dict(block))
        return {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _stop(self) -> list[Json]:
        if not self.growing:
            return []
        self.growing = False
        return [{"type": "content_block_stop", "index": self._index}]

    @property
    def _index(self) -> int:
        return len(self.blocks) - 1

    def _usage(self) -> Json:
        """Tokens of the prompt that were in the cache are counted for themselves."""
        cached = self.reply.job.cached_tokens
        return {
            "input_tokens": len(self.reply.job.prompt) - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self.reply.tokens,
        }

    def _reason(self, finished: Finished) -> str:
        if finished.stop_string is not None:
            return "stop_sequence"
        if finished.reason == "repetition":
            return "max_tokens"  # of Anthropic's reasons the one that says: cut, not finished
        if finished.reason == "length":
            asked = self.reply.job.params.max_tokens
            reached = asked is not None and self.reply.tokens >= asked
            return "max_tokens" if reached else "model_context_window_exceeded"
        called = any(block["type"] == "tool_use" for block in self.blocks)
        return "tool_use" if called else "end_turn"

"""Answers as items of a response, whole or as the events of a stream."""

import json
import time
from dataclasses import dataclass, field
from typing import Literal

from glm4q.chat.replies import ReplyEvent, Thinking
from glm4q.server.errors import ApiError, valid_text
from glm4q.server.reply import Finished, Reply
from glm4q.server.request.bodies import Json
from glm4q.server.responses.requests import ResponsesRequest
from glm4q.server.service import new_id
from glm4q.tools.calls import ToolCall

Kind = Literal["message", "reasoning"]
PARTS = {"message": "output_text", "reasoning": "reasoning_text"}


@dataclass
class ResponseWriter:
    """Writes one response: a message and thoughts, which grow, and calls, which come whole."""

    model: str
    asked: ResponsesRequest
    reply: Reply
    id: str = field(default_factory=lambda: new_id("resp_"))
    created: float = field(default_factory=lambda: float(int(time.time())))
    output: list[Json] = field(default_factory=list)
    growing: bool = False
    """Whether the last item has been begun and not ended."""
    events: int = 0
    thinking_tokens: int = 0

    @property
    def ping(self) -> None:
        return None

    def begin(self) -> list[Json]:
        response = self._response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def add(self, event: ReplyEvent) -> list[Json]:
        if isinstance(event, ToolCall):
            return [*self._finish(), *self._call(event)]
        if not event.text:
            return []
        kind: Kind = "reasoning" if isinstance(event, Thinking) else "message"
        events = []
        if not self.growing or self.output[-1]["type"] != kind:
            events = [*self._finish(), *self._start(kind)]
        if kind == "reasoning":
            self.thinking_tokens = self.reply.tokens
        self.output[-1]["content"][0]["text"] += event.text
        return [*events, self._text_event("delta", delta=event.text)]

    def end(self, finished: Finished) -> list[Json]:
        status = self._status(finished)
        events = self._finish(status)
        return [*events, self._event(f"response.{status}", response=self._response(status))]

    def fail(self, error: ApiError) -> list[Json]:
        failure = {"code": "server_error", "message": valid_text(error.message)}
        response = {**self._response("failed"), "error": failure}
        return [self._event("response.failed", response=response)]

    def whole(self, finished: Finished) -> Json:
        status = self._status(finished)
        self._finish(status)
        return self._response(status)

    def _status(self, finished: Finished) -> Literal["completed", "incomplete"]:
        return "incomplete" if finished.reason in ("length", "repetition") else "completed"

    def _response(self, status: str) -> Json:
        asked, params = self.asked, self.reply.job.params
        ended = status in ("completed", "incomplete")
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": time.time() if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.model,
            "output": [dict(item) for item in self.output],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": params.temperature,
            "text": {"format": (asked.text and asked.text.format) or {"type": "text"}},
            "tool_choice": _plain(asked.tool_choice) or "auto",
            "tools": [_plain(tool) for tool in asked.tools or []],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": self._usage() if ended else None,
        }

    def _usage(self) -> Json:
        prompt, answer = len(self.reply.job.prompt), self.reply.tokens
        cached = {"cached_tokens": self.reply.job.cached_tokens, "cache_write_tokens": 0}
        return {
            "input_tokens": prompt,
            "input_tokens_details": cached,
            "output_tokens": answer,
            "output_tokens_details": {"reasoning_tokens": self.thinking_tokens},
            "total_tokens": prompt + answer,
        }

    def _start(self, kind: Kind) -> list[Json]:
        own: Json = {"role": "assistant"} if kind == "message" else {"summary": []}
        prefix = "msg_" if kind == "message" else "rs_"
        item = {"id": new_id(prefix), "type": kind, "status": "in_progress", "content": [], **own}
        self.output.append(item)
        self.growing = True
        added = self._event("response.output_item.added", **self._place(), item=dict(item))
        part: Json = {"type": PARTS[kind], "text": ""}
        if kind == "message":
            part |= {"annotations": [], "logprobs": []}
        item["content"] = [part]
        return [added, self._part_event("added")]

    def _finish(self, status: str = "completed") -> list[Json]:
        """End the item that grows."""
        if not self.growing:
            return []
        self.growing = False
        self.output[-1]["status"] = status
        text = self.output[-1]["content"][0]["text"]
        return [self._text_event("done", text=text), self._part_event("done"), self._item_done()]

    def _call(self, call: ToolCall) -> list[Json]:
        arguments = valid_text(json.dumps(call.arguments, ensure_ascii=False))
        item = {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": new_id("call_"),
            "name": call.name,
            "arguments": "",
        }
        self.output.append(item)
        place = {**self._place(), "item_id": item["id"]}
        name = "response.function_call_arguments"
        events = [
            self._event("response.output_item.added", **self._place(), item=dict(item)),
            self._event(f"{name}.delta", **place, delta=arguments),
            self._event(f"{name}.done", **place, name=call.name, arguments=arguments),
        ]
        item |= {"status": "completed", "arguments": arguments}
        return [*events, self._item_done()]

    def _place(self) -> Json:
        return {"output_index": len(self.output) - 1}

    def _part_place(self) -> Json:
        return {**self._place(), "item_id": self.output[-1]["id"], "content_index": 0}

    def _part_event(self, name: str) -> Json:
        part = dict(self.output[-1]["content"][0])
        return self._event(f"response.content_part.{name}", **self._part_place(), part=part)

    def _text_event(self, name: str, **content: str) -> Json:
        kind = PARTS[self.output[-1]["type"]]
        logprobs: Json = {"logprobs": []} if kind == "output_text" else {}
        return self._event(f"response.{kind}.{name}", **self._part_place(), **content, **logprobs)

    def _item_done(self) -> Json:
        item = dict(self.output[-1])
        return self._event("response.output_item.done", **self._place(), item=item)

    def _event(self, kind: str, /, **content: object) -> Json:
        self.events += 1
        return {"type": kind, "sequence_number": self.events - 1, **content}


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    return value if dump is None else dump()

"""What the endpoints of every API share: the model, its thread, and the prompt of a chat."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from calculator.errors import Glm4qError, GrammarError, RequestTimeError
from glm4q.chat.reply_grammar import ReplyConstraints, ReplyGrammar
from glm4q.chat.reply_start import ReplyStart
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.server.errors import ApiError
from glm4q.server.mailbox import Mailbox
from glm4q.server.reply import Parser, Reply
from glm4q.server.request.grammar import reply_grammar
from glm4q.server.request.protocol import (
    max_tokens_of,
    offered_tools,
    template_messages,
)
from glm4q.server.request.requests import ChatRequest
from glm4q.server.served import ServedModel
from glm4q.server.worker import QueueFullError, Worker, WorkerEndedError

PING_SECONDS = 5.0
SEND_SECONDS = 60.0
"""How long a piece of a stream may wait for a reader whose buffers are full."""
NO_RETRY = {"x-should-retry": "false"}
"""What keeps the clients of OpenAI and Anthropic from asking the same again by themselves."""


@dataclass(frozen=True)
class ChatPrompt:
    """The prompt of a chat, and what it offers."""

    text: str
    token_ids: list[int]
    tools: list[str]
    """The names of the tools that the model is shown."""


@dataclass(frozen=True)
class Service:
    """One model and its thread, as endpoints use them."""

    model: ServedModel
    worker: Worker
    ping_seconds: float = PING_SECONDS
    send_seconds: float = SEND_SECONDS

    def check_model(self, name: str) -> None:
        """Refuse the name of another model. Raises ApiError."""
        if name != self.model.name:
            message = f"model: this server has {self.model.name}, not {name[:80]}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def chat_prompt(self, asked: ChatRequest) -> ChatPrompt:
        """Write the prompt of a chat, of any length. Raises ApiError."""
        tools = offered_tools(asked)
        messages = template_messages(asked, self.model.call_style)
        text, token_ids = await run_in_threadpool(self.model.chat_prompt, messages, tools)
        return ChatPrompt(text, token_ids, [tool["function"]["name"] for tool in tools])

    async def chat_replies(self, asked: ChatRequest) -> list[Reply]:
        """Begin the answers of a chat, one for each choice. Raises ApiError."""
        params = self.model.choices(asked, max_tokens_of(asked))
        grammar = reply_grammar(asked, self.model.call_style)
        prompt = await self.chat_prompt(asked)
        token_ids = self.model.with_room(prompt.token_ids, "messages")
        start = ReplyStart.of(prompt.text)
        constraints: list[Constraint | None] = [None] * len(params)
        if grammar is not None:
            constraints = await run_in_threadpool(self._constraints, grammar, start, len(params))
        return [
            self.reply(
                token_ids,
                own,
                start.parser(prompt.tools, asked.stops, self.model.call_style),
                constraint,
            )
            for own, constraint in zip(params, constraints, strict=True)
        ]

    def reply(
        self,
        token_ids: Sequence[int],
        params: SamplingParams,
        parser: Parser,
        constraint: Constraint | None = None,
    ) -> Reply:
        """Begin an answer, which is not queued yet."""
        return Reply(
            self.worker,
            self.model.tokenizer,
            token_ids,
            params,
            parser,
            constraint,
            mailbox=self._mailbox,
        )

    @cached_property
    def _mailbox(self) -> Mailbox:
        """The mailbox of the one loop on which the server runs."""
        return Mailbox(asyncio.get_running_loop())

    def _constraints(
        self, grammar: ReplyGrammar, start: ReplyStart, count: int
    ) -> list[Constraint | None]:
        """One for each choice. Raises ApiError."""
        try:
            begin = ReplyConstraints(self.model.grammars, grammar)
            return [begin(start) for _ in range(count)]
        except Glm4qError as error:
            raise self._ungrammatical(error) from None

    def _ungrammatical(self, error: Glm4qError) -> ApiError:
        message = self.model.without_path(error)
        return ApiError(400, message, param="response_format", code="invalid_value")

    def submit(self, replies: Sequence[Reply]) -> None:
        """Queue answers. Raises ApiError where too many wait, or the model's thread ended."""
        try:
            self.worker.submit([reply.job for reply in replies])
        except QueueFullError as error:
            retry = {"Retry-After": str(error.retry_after)}
            raise ApiError(429, str(error), code="queue_full", headers=retry) from None
        except WorkerEndedError:
            raise ApiError(503, "the server is ending") from None

    def give_up(self, replies: Sequence[Reply]) -> None:
        """End the answers that have not ended: nobody reads them."""
        self.worker.cancel([reply.job for reply in replies])

    def failure(self, error: Glm4qError | None) -> ApiError:
        """What a client reads where its answer fails."""
        if error is None:
            return ApiError(503, "the model's thread has ended")
        if isinstance(error, GrammarError):
            return self._ungrammatical(error)
        if isinstance(error, RequestTimeError):
            return ApiError(504, str(error), code="request_timeout", headers=NO_RETRY)
        return ApiError(500, self.model.without_path(error))


async def client_leaves(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def new_id(prefix: str) -> str:
    """Name an answer, or a part of it."""
    return prefix + uuid.uuid4().hex

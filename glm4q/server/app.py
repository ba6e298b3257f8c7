"""The endpoints, as a Starlette application."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calculator.errors import Glm4qError
from calculator.model.presets import PRESETS
from calculator.questions.answer import find_answer
from calculator.questions.asked import Asked
from calculator.report.records import answer_record, question_record
from glm4q.server.answers import Answers
from glm4q.server.choices import ChatChoice, Choice, Heading, Json, TextChoice
from glm4q.server.errors import ApiError, error_body, unsupported
from glm4q.server.guard import Guard, Rules
from glm4q.server.openai_protocol import (
    max_tokens_of,
    offered_tools,
    sampling_params,
    template_messages,
)
from glm4q.server.reply import PlainText, Reply, reply_parser
from glm4q.server.requests import (
    MAX_CHOICES,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Sampled,
    TokenizeRequest,
    read_body,
)
from glm4q.server.served import ServedModel
from glm4q.server.worker import Worker

PING_SECONDS = 5.0
COMPLETION_TOKENS = 16
"""OpenAI's own limit of a completion that names none."""
NOT_ASKED = ("model", "ram_bandwidth")
"""What a plan is not asked for by the network: other files, and a measurement of this machine."""


@dataclass(frozen=True)
class Service:
    """The endpoints of one model."""

    model: ServedModel
    worker: Worker
    ping_seconds: float = PING_SECONDS

    async def health(self, request: Request) -> Response:
        alive = self.worker.alive
        return JSONResponse({"status": "ok" if alive else "ended"}, 200 if alive else 503)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._record()]})

    async def one_model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return JSONResponse(self._record())

    async def chat(self, request: Request) -> Response:
        asked = read_body(ChatRequest, await request.body())
        self._check_model(asked.model)
        params = sampling_params(asked, self.model.own_params, max_tokens_of(asked))
        tools = offered_tools(asked)
        names = [tool["function"]["name"] for tool in tools]
        messages = template_messages(asked, observes=self.model.observes)
        text, token_ids = await run_in_threadpool(self.model.chat_prompt, messages, tools)
        pairs: list[tuple[Choice, Reply]] = [
            (ChatChoice(index, _call_id), self._reply(token_ids, own, text, names, asked.stops))
            for index, own in enumerate(params)
        ]
        heading = Heading(_id("chatcmpl-"), "chat.completion", int(time.time()), self.model.name)
        answers = Answers(self.model, self.worker, heading, len(token_ids), pairs)
        return await self._answer(answers, asked, request)

    async def complete(self, request: Request) -> Response:
        asked = read_body(CompletionRequest, await request.body())
        self._check_model(asked.model)
        limit = COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens
        params = sampling_params(asked, self.model.own_params, limit)
        prompts = _prompts(asked.prompt)
        if len(prompts) * len(params) > MAX_CHOICES:
            raise ApiError(400, f"prompt: at most {MAX_CHOICES} answers at once", param="prompt")
        tokens = [await run_in_threadpool(self.model.prompt, prompt) for prompt in prompts]
        replies = [
            Reply(self.worker, self.model.tokenizer, ids, own, PlainText(asked.stops))
            for ids in tokens
            for own in params
        ]
        pairs = [(TextChoice(index), reply) for index, reply in enumerate(replies)]
        heading = Heading(_id("cmpl-"), "text_completion", int(time.time()), self.model.name)
        answers = Answers(self.model, self.worker, heading, sum(map(len, tokens)), pairs)
        return await self._answer(answers, asked, request)

    async def tokenize(self, request: Request) -> Response:
        asked = read_body(TokenizeRequest, await request.body())
        return JSONResponse(
            {"tokens": await run_in_threadpool(self.model.tokenizer.encode, asked.text)}
        )

    async def detokenize(self, request: Request) -> Response:
        asked = read_body(DetokenizeRequest, await request.body())
        tokens = self.model.known_tokens(asked.tokens, "tokens")
        text = await run_in_threadpool(self.model.tokenizer.decode, tokens)
        return JSONResponse({"text": text})

    async def plan(self, request: Request) -> Response:
        """The plan of this run; with a query, what `glm4q calc` answers to it."""
        if not request.query_params:
            return JSONResponse(question_record(self.model.question))
        asked = asked_plan(dict(request.query_params))
        try:
            return JSONResponse(await run_in_threadpool(_planned, asked))
        except Glm4qError as error:
            raise ApiError(400, self.model.without_path(error)) from None

    async def _answer(self, answers: Answers, asked: Sampled, request: Request) -> Response:
        answers.submit()
        if asked.stream:
            return answers.stream(wants_usage=asked.wants_usage, ping_seconds=self.ping_seconds)
        return await answers.whole(request)

    def _reply(
        self, token_ids: list[int], params: Any, prompt: str, tools: Sequence[str], stop: list[str]
    ) -> Reply:
        parser = reply_parser(prompt, tools, stop)
        return Reply(self.worker, self.model.tokenizer, token_ids, params, parser)

    def _check_model(self, name: str) -> None:
        if name != self.model.name:
            message = f"model: this server has {self.model.name}, not {name[:80]}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _record(self) -> Json:
        return {
            "id": self.model.name,
            "object": "model",
            "created": self.model.created,
            "owned_by": "glm4q",
            "max_model_len": self.model.context,
        }


def make_app(service: Service, rules: Rules) -> Starlette:
    """Put the endpoints behind the guard."""
    routes = [
        Route("/health", service.health, methods=["GET"]),
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{name:path}", service.one_model, methods=["GET"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.complete, methods=["POST"]),
        Route("/v1/plan", service.plan, methods=["GET"]),
        Route("/tokenize", service.tokenize, methods=["POST"]),
        Route("/detokenize", service.detokenize, methods=["POST"]),
    ]
    middleware = [Middleware(Guard, rules=rules)]
    if rules.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(rules.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
        middleware.insert(0, cors)
    handlers: dict[Any, Callable[..., Any]] = {
        ApiError: _refused,
        HTTPException: _not_there,
        500: _failed,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def asked_plan(query: dict[str, str]) -> Asked:
    """The question that a query asks in the words of `glm4q calc`. Raises ApiError."""
    known = {entry.name: entry.type for entry in fields(Asked)}
    given: dict[str, Any] = {}
    for name, value in query.items():
        if name not in known or (name in NOT_ASKED and value not in PRESETS):
            raise unsupported(name, "a plan is not asked for by it here")
        try:
            given[name] = int(value) if "int" in str(known[name]) else value
        except ValueError:
            message = f"{name} must be a whole number, not {value[:40]!r}"
            raise ApiError(400, message, param=name, code="invalid_value") from None
    return Asked(**given)


def _planned(asked: Asked) -> Json:
    return answer_record(find_answer(asked.question(), asked.fixed))


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(part, int) for part in prompt):
        return [[part for part in prompt if isinstance(part, int)]]
    return [part for part in prompt if isinstance(part, str | list)]


def _id(prefix: str) -> str:
    return prefix + uuid.uuid4().hex


def _call_id() -> str:
    return _id("call_")


async def _refused(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _not_there(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the program: its traceback is in the server's log alone."""
    return JSONResponse(error_body(500, "the server failed; its log says more"), 500)

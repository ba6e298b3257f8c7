"""The endpoints of OpenAI's chat and completions, and the model of all APIs."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from glm4q.server.errors import ApiError
from glm4q.server.openai.answers import Answers
from glm4q.server.openai.choices import ChatChoice, Choice, Heading, TextChoice
from glm4q.server.openai.logprobs import TokenLog
from glm4q.server.reply import PlainText, Reply
from glm4q.server.request.bodies import Json, read_body
from glm4q.server.request.requests import MAX_CHOICES, ChatRequest, CompletionRequest, Sampled
from glm4q.server.service import Service, new_id

COMPLETION_TOKENS = 16
"""OpenAI's own limit of a completion that names none."""


@dataclass(frozen=True)
class OpenAIEndpoints:
    """OpenAI's endpoints of one model."""

    service: Service

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        record = self._record()
        ids = {"first_id": record["id"], "last_id": record["id"]}
        return JSONResponse({"object": "list", "data": [record], "has_more": False, **ids})

    async def one_model(self, request: Request) -> Response:
        self.service.check_model(request.path_params["name"])
        return JSONResponse(self._record())

    async def chat(self, request: Request) -> Response:
        asked = read_body(ChatRequest, await request.body())
        self.service.check_model(asked.model)
        replies = await self.service.chat_replies(asked)
        pairs: list[tuple[Choice, Reply]] = [
            (ChatChoice(index, _call_id, self._log(reply)), reply)
            for index, reply in enumerate(replies)
        ]
        heading = Heading(
            new_id("chatcmpl-"), "chat.completion", int(time.time()), self.service.model.name
        )
        prompt_tokens = len(replies[0].job.prompt)
        return await self._answer(
            Answers(self.service, heading, prompt_tokens, pairs), asked, request
        )

    async def complete(self, request: Request) -> Response:
        asked = read_body(CompletionRequest, await request.body())
        model = self.service.model
        self.service.check_model(asked.model)
        limit = COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens
        params = model.choices(asked, limit)
        prompts = _prompts(asked.prompt)
        if len(prompts) * len(params) > MAX_CHOICES:
            raise ApiError(400, f"prompt: at most {MAX_CHOICES} answers at once", param="prompt")
        tokens = [await run_in_threadpool(model.prompt, prompt) for prompt in prompts]
        replies = [
            self.service.reply(ids, own, PlainText(asked.stops)) for ids in tokens for own in params
        ]
        pairs: list[tuple[Choice, Reply]] = [
            (TextChoice(index, self._log(reply)), reply) for index, reply in enumerate(replies)
        ]
        heading = Heading(new_id("cmpl-"), "text_completion", int(time.time()), model.name)
        answers = Answers(self.service, heading, sum(map(len, tokens)), pairs)
        return await self._answer(answers, asked, request)

    async def _answer(self, answers: Answers, asked: Sampled, request: Request) -> Response:
        answers.submit()
        if asked.stream:
            return answers.stream(wants_usage=asked.wants_usage)
        return await answers.whole(request)

    def _log(self, reply: Reply) -> TokenLog | None:
        """Note the tokens of a reply, where their log-probabilities are asked for."""
        if reply.job.params.log_probabilities is None:
            return None
        log = TokenLog(self.service.model.tokenizer)
        reply.on_token = log.push
        return log

    def _record(self) -> Json:
        """Describe the model in the fields of both OpenAI's and Anthropic's API."""
        model = self.service.model
        created = datetime.fromtimestamp(model.created, UTC)
        return {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "glm4q",
            "max_model_len": model.context,
            "type": "model",
            "display_name": model.name,
            "created_at": created.isoformat().replace("+00:00", "Z"),
            "max_input_tokens": model.context,
        }


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(part, int) for part in prompt):
        return [[part for part in prompt if isinstance(part, int)]]
    return [part for part in prompt if isinstance(part, str | list)]


def _call_id() -> str:
    return new_id("call_")

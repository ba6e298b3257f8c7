"""The endpoints of our own: tokens of a text, the plan of the run, and whether the server lives."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calculator.errors import Glm4qError
from calculator.questions.answer import find_answer
from calculator.questions.asked import Asked
from calculator.report.records import answer_record, question_record
from glm4q.server.errors import ApiError
from glm4q.server.own.openapi import describe
from glm4q.server.own.requests import DetokenizeRequest, TokenizeRequest, asked_plan
from glm4q.server.request.bodies import Json, read_body
from glm4q.server.service import Service


@dataclass(frozen=True)
class OwnEndpoints:
    """The endpoints that no other API has."""

    service: Service

    def routes(self) -> list[Route]:
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/v1/plan", self.plan, methods=["GET"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        worker = self.service.worker
        status = {"status": "ok" if worker.alive else "ended", "loaded": worker.decoder.loaded}
        return JSONResponse(status, 200 if worker.alive else 503)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(describe(self.service.model.name))

    async def tokenize(self, request: Request) -> Response:
        asked = read_body(TokenizeRequest, await request.body())
        encode = self.service.model.tokenizer.encode
        return JSONResponse({"tokens": await run_in_threadpool(encode, asked.text)})

    async def detokenize(self, request: Request) -> Response:
        asked = read_body(DetokenizeRequest, await request.body())
        tokens = self.service.model.known_tokens(asked.tokens, "tokens")
        text = await run_in_threadpool(self.service.model.tokenizer.decode, tokens)
        return JSONResponse({"text": text})

    async def plan(self, request: Request) -> Response:
        """The plan of this run; with a query, what `glm4q calc` answers to it."""
        if not request.query_params:
            return JSONResponse(question_record(self.service.model.question))
        asked = asked_plan(dict(request.query_params))
        try:
            return JSONResponse(await run_in_threadpool(_planned, asked))
        except Glm4qError as error:
            raise ApiError(400, self.service.model.without_path(error)) from None


def _planned(asked: Asked) -> Json:
    return answer_record(find_answer(asked.question(), asked.fixed))

"""The endpoint of OpenAI's responses."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from glm4q.server.request.bodies import read_body
from glm4q.server.responses.chats import chat_of
from glm4q.server.responses.items import ResponseWriter
from glm4q.server.responses.requests import ResponsesRequest
from glm4q.server.sending.named_events import NamedEvents
from glm4q.server.service import Service


@dataclass(frozen=True)
class ResponsesEndpoints:
    """The endpoint of one model's responses. Nothing of them is kept."""

    service: Service

    def routes(self) -> list[Route]:
        return [Route("/v1/responses", self.respond, methods=["POST"])]

    async def respond(self, request: Request) -> Response:
        asked = read_body(ResponsesRequest, await request.body())
        self.service.check_model(asked.model)
        (reply,) = await self.service.chat_replies(chat_of(asked))
        writer = ResponseWriter(self.service.model.name, asked, reply)
        answer = NamedEvents(self.service, reply, writer)
        return await answer.answer(request, stream=bool(asked.stream))

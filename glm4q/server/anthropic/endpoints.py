"""The endpoints of Anthropic's messages."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from glm4q.server.anthropic.blocks import MessageWriter
from glm4q.server.anthropic.chats import chat_of
from glm4q.server.anthropic.requests import CountRequest, MessagesRequest
from glm4q.server.request.bodies import read_body
from glm4q.server.sending.named_events import NamedEvents
from glm4q.server.service import Service


@dataclass(frozen=True)
class AnthropicEndpoints:
    """Anthropic's endpoints of one model."""

    service: Service

    def routes(self) -> list[Route]:
        return [
            Route("/v1/messages", self.message, methods=["POST"]),
            Route("/v1/messages/count_tokens", self.count_tokens, methods=["POST"]),
        ]

    async def message(self, request: Request) -> Response:
        asked = read_body(MessagesRequest, await request.body())
        self.service.check_model(asked.model)
        (reply,) = await self.service.chat_replies(chat_of(asked))
        writer = MessageWriter(self.service.model.name, reply, asked.shows_thinking)
        answer = NamedEvents(self.service, reply, writer)
        return await answer.answer(request, stream=bool(asked.stream))

    async def count_tokens(self, request: Request) -> Response:
        asked = read_body(CountRequest, await request.body())
        self.service.check_model(asked.model)
        prompt = await self.service.chat_prompt(chat_of(asked))
        return JSONResponse({"input_tokens": len(prompt.token_ids)})

"""The server as a Starlette application: the endpoints of every API, behind the guard."""

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from calculator.cards.card import Card
from glm4q.server.anthropic.endpoints import AnthropicEndpoints
from glm4q.server.errors import ApiError
from glm4q.server.guard import Guard, Rules
from glm4q.server.openai.endpoints import OpenAIEndpoints
from glm4q.server.operation.metrics import Metrics
from glm4q.server.operation.observed import Observed
from glm4q.server.own.endpoints import OwnEndpoints
from glm4q.server.page.endpoints import PageEndpoints
from glm4q.server.responses.endpoints import ResponsesEndpoints
from glm4q.server.service import Service


def make_app(
    service: Service, rules: Rules, metrics: Metrics, card: Card | None = None
) -> Starlette:
    """Put the endpoints behind the guard. card: that of the run, for the page."""
    apis = (
        OpenAIEndpoints(service),
        ResponsesEndpoints(service),
        AnthropicEndpoints(service),
        OwnEndpoints(service),
        PageEndpoints(service, card),
        metrics,
    )
    routes = [route for api in apis for route in api.routes()]
    metrics.watch_service(service)
    observed = Middleware(Observed, metrics=metrics, paths=[route.path for route in routes])
    middleware = [observed, Middleware(Guard, rules=rules)]
    if rules.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(rules.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
        middleware.insert(1, cors)
    handlers: dict[Any, Callable[..., Any]] = {
        ApiError: _refused,
        HTTPException: _not_there,
        500: _failed,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


async def _refused(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body_at(request.url.path), error.status, headers=error.headers)


async def _not_there(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    headers = error.headers
    return await _refused(request, ApiError(error.status_code, message, headers=headers))


async def _failed(request: Request, error: Exception) -> Response:
    """Answer where the program has a fault: its traceback is in the server's log alone."""
    return await _refused(request, ApiError(500, "the server failed; its log says more"))

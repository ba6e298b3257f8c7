"""The server as a Starlette application: the endpoints of every API, behind the guard."""

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm4q.server.errors import ApiError, error_body
from glm4q.server.guard import Guard, Rules
from glm4q.server.openai.endpoints import OpenAIEndpoints
from glm4q.server.own.endpoints import OwnEndpoints
from glm4q.server.service import Service


def make_app(service: Service, rules: Rules) -> Starlette:
    """Put the endpoints behind the guard."""
    routes = [*OpenAIEndpoints(service).routes(), *OwnEndpoints(service).routes()]
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


async def _refused(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _not_there(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the program: its traceback is in the server's log alone."""
    return JSONResponse(error_body(500, "the server failed; its log says more"), 500)

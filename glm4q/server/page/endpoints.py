"""The addresses of the page: its files, the calculator's data, and what the run holds now."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calculator.cards.card import Card
from calculator.report.page import page_data
from glm4q.server.operation.memory import held_bytes
from glm4q.server.page.files import HEADERS, PREFIX, StaticFile, read_files
from glm4q.server.page.live import first_question
from glm4q.server.service import Service

SHOWN_SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
"""The model's own settings, which the page shows where a person sets none."""


@dataclass(frozen=True)
class PageEndpoints:
    """The page of one server. Its files need no key; what they ask for does."""

    service: Service
    card: Card | None
    """The card of the run with the bytes that the run may use; None where the host computes."""

    def routes(self) -> list[Route]:
        return [
            Route("/", self.file, methods=["GET"]),
            Route(f"{PREFIX}{{name:path}}", self.file, methods=["GET"]),
            Route("/v1/page/calculator", self.calculator, methods=["GET"]),
            Route("/v1/page/machine", self.machine, methods=["GET"]),
        ]

    @cached_property
    def files(self) -> Mapping[str, StaticFile]:
        return read_files()

    @cached_property
    def _calculator(self) -> dict[str, Any]:
        return page_data(first_question(self.service.model.question, self.card))

    async def file(self, request: Request) -> Response:
        """A file of the page, by the address that the list has for it."""
        file = self.files.get(request.url.path)
        if file is None:
            raise HTTPException(404)
        return file.answer(request)

    async def calculator(self, request: Request) -> Response:
        """The models, the cards, and the question that the calculator begins with."""
        data = await run_in_threadpool(lambda: self._calculator)
        return JSONResponse(data, headers=HEADERS)

    async def machine(self, request: Request) -> Response:
        """The plan of this run beside what is held, and the model's own settings."""
        return JSONResponse(await run_in_threadpool(self._machine), headers=HEADERS)

    def _machine(self) -> dict[str, Any]:
        model, decoder = self.service.model, self.service.worker.decoder
        plan, compute = model.question.plan, model.question.settings.compute
        planned = {
            "weights": plan.weights_bytes,
            "KV cache": plan.kv_cache_bytes,
            "workspace": plan.workspace_bytes,
            "CUDA, reserve": plan.overhead_bytes,
        }
        return {
            "model": model.name,
            "context": model.context,
            "chats": model.template is not None,
            "device": compute,
            "card": self.card.name if self.card else None,
            "loaded": decoder.loaded,
            "planned": {name: size for name, size in planned.items() if size},
            "planned_bytes": plan.device_bytes(compute),
            "held": decoder.held(),
            "process_bytes": held_bytes(compute),
            "rows": decoder.row_tokens,
            "settings": {name: getattr(model.params, name) for name in SHOWN_SETTINGS},
        }

"""The figures of a running server, for Prometheus."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calculator.memory.settings import Device
from glm4q.decode.answer import End
from glm4q.server.job import Job
from glm4q.server.operation.memory import held_bytes
from glm4q.server.service import Service

TO_FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BETWEEN_TOKENS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
REQUESTS = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


class Metrics:
    """Counts requests and tokens, and reads the worker's state when it is asked."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "glm4q_requests",
            "Requests by endpoint and status.",
            ["endpoint", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "glm4q_request_seconds",
            "Seconds to the end of an answer.",
            ["endpoint"],
            buckets=REQUESTS,
            registry=registry,
        )
        self._answers = Counter(
            "glm4q_answers", "Answers by what ended them.", ["reason"], registry=registry
        )
        self._prompt_tokens = Counter(
            "glm4q_prompt_tokens", "Tokens of prompts.", registry=registry
        )
        self._cached_tokens = Counter(
            "glm4q_cached_prompt_tokens",
            "Tokens of prompts that were in the cache already.",
            registry=registry,
        )
        self._tokens = Counter("glm4q_answer_tokens", "Tokens of answers.", registry=registry)
        self._to_first_token = Histogram(
            "glm4q_time_to_first_token_seconds",
            "Seconds from a request to its first token.",
            buckets=TO_FIRST_TOKEN,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "glm4q_time_between_tokens_seconds",
            "Seconds from a token to the next one.",
            buckets=BETWEEN_TOKENS,
            registry=registry,
        )
        self._longest_pause = 0.0
        self._loads = Counter(
            "glm4q_loads", "Times that the model was loaded again.", registry=registry
        )

    def routes(self) -> list[Route]:
        return [Route("/metrics", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        return Response(
            generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def watch_service(self, service: Service) -> None:
        """Read the worker's state, and what is held beside the plan."""
        worker, model = service.worker, service.model
        plan = model.question.plan
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "running": ("Answers that have a row.", lambda: worker.running),
            "waiting": ("Answers that wait for a row.", lambda: worker.waiting),
            "rows": ("Answers that may run at once.", lambda: worker.rows),
            "queue_room": ("Answers that may wait.", lambda: worker.queue),
            "tokens_per_second": ("Speed of late, of all.", lambda: worker.tokens_per_second),
            "kv_tokens": ("Tokens in the cache.", lambda: worker.decoder.kept_tokens),
            "kv_room_tokens": ("Tokens it holds.", lambda: worker.rows * model.context),
            "pause_bound_seconds": (
                "Seconds that an answer may pause for another's prompt.",
                lambda: worker.decoder.longest_pause,
            ),
            "longest_pause_seconds": (
                "The longest time between two tokens of an answer so far.",
                lambda: self._longest_pause,
            ),
            "loaded": ("1 while the model is in memory.", lambda: worker.decoder.loaded),
        }
        for name, (text, read) in gauges.items():
            Gauge(f"glm4q_{name}", text, registry=self._registry).set_function(read)
        planned = Gauge(
            "glm4q_planned_bytes", "Bytes that the plan gives.", ["device"], registry=self._registry
        )
        held = Gauge(
            "glm4q_held_bytes",
            "Bytes held of the host by this process, of a GPU by torch.",
            ["device"],
            registry=self._registry,
        )
        for device in get_args(Device):
            planned.labels(device).set(plan.device_bytes(device))
            held.labels(device).set_function(partial(held_bytes, device))

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self._requests.labels(endpoint, status).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def token(self, job: Job, seconds: float | None) -> None:
        self._tokens.inc()
        if seconds is not None:
            self._between_tokens.observe(seconds)
            self._longest_pause = max(self._longest_pause, seconds)
        elif job.first_token is not None:
            self._to_first_token.observe(job.first_token - job.submitted)

    def ended(self, job: Job, end: End) -> None:
        self._answers.labels(end.reason).inc()
        if job.begun is not None:
            self._prompt_tokens.inc(len(job.prompt))
            self._cached_tokens.inc(job.cached_tokens)

    def model_came(self, seconds: float) -> None:
        self._loads.inc()

    def model_went(self) -> None:
        """Whether it is loaded is read when it is asked."""

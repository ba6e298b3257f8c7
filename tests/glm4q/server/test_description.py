"""schemathesis asks the server all that its own description allows, and what it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from glm4q.server.own.openapi import DESCRIBED
from tests.glm4q.server.scripted import NAME, Running, serving

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 5
ASKED = [
    (entry.path, mode)
    for entry in DESCRIBED
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    # schemathesis leaves the description itself out, and nothing can be wrong without a field.
    if entry.path != "/openapi.json" and (mode.is_positive or entry.body or entry.query)
]


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "yes", rows=2) as server:
        yield server


@pytest.fixture(scope="module")
def schema(running: Running) -> Any:
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


@pytest.mark.parametrize(("path", "mode"), ASKED)
def test_no_request_is_answered_in_another_way_than_described(
    schema: Any, path: str, mode: GenerationMode
) -> None:
    (operation,) = (each.ok() for each in schema.get_all_operations() if each.ok().path == path)

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


def test_each_endpoint_is_described_and_each_description_has_one(running: Running) -> None:
    described = httpx2.get(f"{running.url}/openapi.json").json()
    assert described["components"]["schemas"]["ChatRequest"]["properties"]["model"]["const"] == NAME
    for path, operations in described["paths"].items():
        (method,) = operations
        asked = httpx2.request(method, f"{running.url}{path.replace('{name}', NAME)}")
        assert asked.status_code in (200, 400), path

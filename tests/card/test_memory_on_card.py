"""Memory on a card, block by block: the plan is never too low, and not 2 % too high.

At GLM-4-9B's true size, through PyTorch's allocator as its source describes it. What cuBLAS, cuDNN
or a driver take beside it no machine without a card can show: the CUDA context is the plan's own.
"""

import gc
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.errors import MemoryFullError
from calculator.model.formats import BF16, NF4, WeightFormat
from tests.card.conftest import INT4
from tests.card.sim.paper import run_on_paper
from tests.card.sim.played import simulated_card
from tests.card.test_runs import GREEDY, PROMPT, Case

LAYERS4, LAYERS8 = WeightFormat(4, 128), WeightFormat(8, 128)
PAPER: list[tuple[str, WeightFormat, WeightFormat, dict[str, Any]]] = [
    ("RTX 3060", LAYERS4, LAYERS8, {"context": 32_768, "kv": "int4", "embedding": "host"}),
    ("RTX 3060", LAYERS4, BF16, {"context": 8192, "kv": "int8"}),
    ("RTX 2060", LAYERS4, LAYERS8, {"context": 1024, "kv": "int8", "embedding": "host"}),
    ("RTX 4090", LAYERS8, BF16, {"context": 8192, "kv": "bf16"}),
    ("RTX 4090", NF4, BF16, {"context": 8192, "kv": "k8v4", "batch": 4}),
    ("RTX 4090", BF16, BF16, {"context": 4096, "kv": "bf16"}),
    ("RTX 5070", LAYERS4, LAYERS8, {"context": 131_072, "kv": "int4", "embedding": "host"}),
    ("RTX 5070", LAYERS4, LAYERS8, {"context": 8192, "kv": "int8", "draft_tokens": 7}),
]
SAMPLE = 2


def _cases() -> list[Any]:
    return [
        pytest.param(
            *case,
            marks=() if place < SAMPLE else pytest.mark.card,
            id=f"{case[0]} {case[1]} {case[2]} {case[3]['kv']} {case[3]['context']}",
        )
        for place, case in enumerate(PAPER)
    ]


@pytest.mark.parametrize(("card", "linear", "head", "settings"), _cases())
def test_the_peak_is_at_most_the_plan_and_within_2_percent_of_it(
    card: str, linear: WeightFormat, head: WeightFormat, settings: dict[str, Any]
) -> None:
    run = run_on_paper(card, linear, head, **settings)
    assert 0.98 * run.planned < run.peak <= run.planned
    assert run.loading == run.loaded, "a weight stood on the card twice while it was loaded"


def test_out_of_memory_at_any_request_is_one_line_and_leaks_nothing(checkpoints: Path) -> None:
    """Whatever is asked for when the card is full: at loading, or at any time of an answer."""
    case = Case("RTX 3060", INT4, "int8")
    with simulated_card(case.card) as (card, driver):
        memory = card.allocator
        run = case.load(checkpoints, "cuda")
        loading = memory.requests
        expected = list(run.answer(PROMPT, GREEDY))
        answering = memory.requests - loading
        del run
        driver.launched.clear()
        gc.collect()
        assert memory.allocated == card.workspace_bytes
        for request in (0, loading // 2, loading - 1):
            memory.fail_at, memory.requests = request, 0
            with pytest.raises(MemoryFullError, match="the device has no memory left"):
                case.load(checkpoints, "cuda")
            driver.launched.clear()
            gc.collect()
            assert memory.allocated == card.workspace_bytes, request
        memory.fail_at = None
        run = case.load(checkpoints, "cuda")
        held = memory.allocated
        for request in (0, answering // 2, answering - 1):
            memory.fail_at, memory.requests = request, 0
            with pytest.raises(MemoryFullError, match="the device has no memory left"):
                list(run.answer(PROMPT, GREEDY))
            driver.launched.clear()
            gc.collect()
            memory.fail_at = None
            assert memory.allocated == held, request
            run.forget()
        assert list(run.answer(PROMPT, GREEDY)) == expected

"""Memory on a card, block by block: the plan is never too low, and not 2 % too high.

At GLM-4-9B's true size, through PyTorch's allocator as its source describes it. What cuBLAS, cuDNN
or a driver take beside it no machine without a card can show: the CUDA context is the plan's own.
"""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.model.formats import BF16, LLM_INT8, NF4, WeightFormat
from glm4q.model import loader
from tests.card.conftest import INT4
from tests.card.sim.paper import run_on_paper
from tests.card.sim.played import simulated_card
from tests.card.test_runs import Case

LAYERS4, LAYERS8 = WeightFormat(4, 128), WeightFormat(8, 128)
ASYMMETRIC = WeightFormat(4, 64, zero_bits=4)
PAPER: list[tuple[str, WeightFormat, WeightFormat, dict[str, Any]]] = [
    ("RTX 3060", LAYERS4, LAYERS8, {"context": 32_768, "kv": "int4", "embedding": "host"}),
    ("RTX 3060", LAYERS4, BF16, {"context": 8192, "kv": "int8"}),
    ("RTX 2060", LAYERS4, LAYERS8, {"context": 1024, "kv": "int8", "embedding": "host"}),
    ("RTX 4090", LAYERS8, BF16, {"context": 8192, "kv": "bf16"}),
    ("RTX 4090", NF4, BF16, {"context": 8192, "kv": "k8v4", "batch": 4}),
    ("RTX 4090", BF16, BF16, {"context": 4096, "kv": "bf16"}),
    ("RTX 5070", LAYERS4, LAYERS8, {"context": 131_072, "kv": "int4", "embedding": "host"}),
    ("RTX 5070", LAYERS4, LAYERS8, {"context": 8192, "kv": "int8", "draft_tokens": 7}),
    (
        *("RTX 2060", ASYMMETRIC, LAYERS8),
        {"context": 2048, "kv": "k8v4", "gpu_layers": 38, "embedding": "host"},
    ),
    ("RTX 4090", LLM_INT8, BF16, {"context": 8192, "kv": "int4", "prefill_chunk": 128}),
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


@pytest.mark.card
@pytest.mark.parametrize("kv", ["int8", "int4"])
def test_expandable_segments_take_no_more_than_is_planned(kv: str) -> None:
    """`PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`."""
    run = run_on_paper("RTX 3060", LAYERS4, LAYERS8, expandable=True, context=8192, kv=kv)
    assert run.peak <= run.planned


def _mapped(directory: Path) -> int:
    """Files of a checkpoint that this process has mapped."""
    return sum(str(directory) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="reads maps as Linux tells them")
def test_loading_keeps_no_pages_of_a_weight_that_is_on_the_card(checkpoints: Path) -> None:
    """One weight's file is open at a time; on the CPU its pages are the weight."""
    plain, most, left = loader.load_weight, 0, 0
    case = Case("RTX 3060", INT4, "int8")
    directory = checkpoints / case.name

    def load(*arguments: Any, hold: Any, **options: Any) -> None:
        nonlocal most, left

        def put(tensor: Tensor) -> Tensor:
            nonlocal most
            most = max(most, _mapped(directory))
            return hold(tensor) if hold else tensor.to("cuda")

        plain(*arguments, hold=put, **options)
        left = max(left, _mapped(directory))

    with simulated_card(case.card), patch.object(loader, "load_weight", load):
        case.load(checkpoints, "cuda")
    assert (most > 0, left) == (True, 0)
    run = case.load(checkpoints, "cpu")
    assert _mapped(directory) > 0
    del run

"""The first hour with a real card: run tests/gpu, time what decides speed, and write one file.

python -m benchmarks.gpu_receipt [folder]    writes folder/CARD-DATE.json, and beside it
                                             CARD-DATE.trace.json.gz, the timeline of a decode step

The folder is calculator/cards/receipts if none is named: there `glm4q calc` finds it and prefers it
over the assumed band. docs/first-gpu.md says what each entry means.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_clock import replayed_seconds, seconds
from benchmarks.gpu_timeline import decode_timeline
from calculator.cards.measured import FOLDER, SCHEMA
from calculator.model.formats import NF4, WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.kernels.triton_linear import TritonLinear
from glm4q.planning.machine import versions
from glm4q.weights.packing import QuantizedWeight

COPY_BYTES = 1 << 29
"""Bytes that are copied, and bytes of the weights that are read in turns: no cache holds them."""
SHAPES = {"layer": (4096, 4096), "gate and up": (27_392, 4096), "head": (151_552, 4096)}
FORMATS = {"int4": WeightFormat(4, 128), "int8": WeightFormat(8, 128), "nf4": NF4}


@dataclass(frozen=True)
class Product:
    """One token by one weight, timed by the card's clock."""

    weight: str
    format: str
    bytes: int
    """Bytes that it reads of the weight."""
    seconds: float
    share_of_copy: float
    """The share of the rate at which the card copies memory to memory."""


class Outcomes:
    """What pytest says of each test, by name."""

    def __init__(self) -> None:
        self.tests: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.tests[report.nodeid] = report.outcome


def record(
    card: dict[str, Any],
    tests: dict[str, str],
    copy: float,
    products: list[Product],
    step: dict[str, Any],
) -> dict[str, Any]:
    """What the file holds."""
    return {
        "schema": SCHEMA,
        "date": time.strftime("%Y-%m-%d"),
        "card": card,
        "versions": versions(),
        "copy_bytes_per_second": copy,
        "tests": tests,
        "products": [asdict(product) for product in products],
        "step": step,
    }


def file_name(card: str, date: str) -> str:
    """A card's name without what a file system minds.

    >>> file_name("NVIDIA GeForce RTX 4070", "2026-11-26")
    'nvidia-geforce-rtx-4070-2026-11-26.json'
    """
    return f"{re.sub(r'[^a-z0-9]+', '-', card.lower())}-{date}.json"


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy too large for any cache."""
    block = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    copied = torch.empty_like(block)
    return 2 * block.nbytes / seconds(partial(copied.copy_, block))


def time_products(copy: float) -> list[Product]:
    """Each decode product that the card takes."""
    products = []
    for name, shape in SHAPES.items():
        for kind, weight_format in FORMATS.items():
            spec = LinearSpec(*shape, weight_format, torch.device("cuda"))
            if TritonLinear().refuses(spec) is None:
                size, (taken,) = time_weight(spec, [1], COPY_BYTES)
                products.append(Product(name, kind, size, taken, size / taken / copy))
    return products


def time_weight(
    spec: LinearSpec, counts: Sequence[int], read_bytes: int
) -> tuple[int, list[float]]:
    """The bytes of a weight, and the seconds of its product for each number of tokens.

    Weights of that many bytes in all are multiplied by in turns.
    """
    kernel = TritonLinear()
    one = kernel.pack(_random_codes(spec))
    size = sum(part.nbytes for part in one.values())
    more = range(ceil(read_bytes / size) - 1)
    weights = [one, *(kernel.pack(_random_codes(spec)) for _ in more)]
    needs = kernel.needs(spec, max(counts), 2).scratch_bytes
    scratch = torch.empty(needs, dtype=torch.uint8, device="cuda")
    times = []
    for tokens in counts:
        x = torch.randn(tokens, spec.inputs, device="cuda").bfloat16()
        out = torch.empty(tokens, spec.outputs, device="cuda")
        works = [partial(kernel.matmul, x, packed, out, scratch) for packed in weights]
        times.append(replayed_seconds(works))
    return size, times


def _random_codes(spec: LinearSpec) -> QuantizedWeight:
    weight_format = spec.weight_format
    groups = weight_format.groups(spec.inputs)
    words = spec.inputs * weight_format.bits // 32
    where = torch.device("cuda")
    return QuantizedWeight(
        weight_format.bits,
        torch.randint(-(2**31), 2**31 - 1, (words, spec.outputs), dtype=torch.int32, device=where),
        torch.rand(groups, spec.outputs, device=where).to(
            torch.float16 if weight_format.scheme == "groups" else torch.float32
        ),
        None,
        None,
        torch.linspace(-1, 1, 16, device=where) if weight_format.scheme == "nf4" else None,
    )


def main(folder: Path = FOLDER) -> int:
    if not torch.cuda.is_available():
        sys.stderr.write("make gpu: torch finds no CUDA device\n")
        return 2
    outcomes = Outcomes()
    code = pytest.main(["-q", "tests/gpu"], plugins=[outcomes])
    properties = torch.cuda.get_device_properties(0)
    card = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(properties.name, time.strftime("%Y-%m-%d"))
    copy = copy_rate()
    products = time_products(copy)
    step = decode_timeline(path.with_suffix(".trace.json.gz"))
    receipt = record(card, outcomes.tests, copy, products, step)
    path.write_text(json.dumps(receipt, indent=2) + "\n")
    sys.stdout.write(f"{path}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))

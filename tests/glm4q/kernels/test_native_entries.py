"""The functions of the extension raise an exception for every argument that they do not take."""

from array import array
from collections.abc import Callable
from ctypes import Structure, sizeof
from typing import Any

import pytest

from glm4q.kernels.cpu import records
from glm4q.kernels.cpu.extension import extension

pytestmark = pytest.mark.skipif(extension() is None, reason="the native extension was not built")
REFUSALS = TypeError, ValueError, OverflowError, BufferError

WITH_A_RECORD = {
    "matmul": records.MatmulRecord,
    "matmul_dense": records.DenseMatmulRecord,
    "attend": records.AttentionRecord,
    "norm": records.NormRecord,
    "gram": records.GramRecord,
    "round_rows": records.RoundingRecord,
    "compensate": records.CompensationRecord,
    "descend": records.DescentRecord,
    "subtract": records.SubtractionRecord,
}
"""All but these take a name, numbers, or the records of layers."""
NO_NUMBERS = (0, -1, 1 << 40, 1 << 80, 1.5, "1", None)


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(extension(), name)
    return function


def _is_refused(name: str, *arguments: object) -> bool:
    with pytest.raises(REFUSALS):
        _function(name)(*arguments)
    return True


def test_every_function_is_tested() -> None:
    functions = {name for name in dir(extension()) if callable(getattr(extension(), name))}
    others = {"find_instruction_set", "instruction_set_name", "gram_scratch", "run_layers"}
    assert {name for name in functions if not name.startswith("_")} == others | set(WITH_A_RECORD)


@pytest.mark.parametrize(("name", "record"), WITH_A_RECORD.items())
def test_a_record_of_another_size_or_without_content_is_refused(
    name: str, record: type[Structure]
) -> None:
    for size in (0, 8, sizeof(record) - 8, sizeof(record) - 1, sizeof(record) + 8, 1 << 16):
        assert _is_refused(name, 1, bytes(size), 1)
    for other in (None, 5, "text", [1, 2], record):
        assert _is_refused(name, 1, other, 1)
    assert _is_refused(name, 1, (record * 2)(), 1)
    assert _is_refused(name, 1, record(), 1)  # all addresses and sizes are 0
    assert _is_refused(name, 1, bytes([255]) * sizeof(record), 1)  # all of them are -1


@pytest.mark.parametrize(("name", "record"), WITH_A_RECORD.items())
def test_numbers_and_counts_are_checked(name: str, record: type[Structure]) -> None:
    for number in NO_NUMBERS:
        assert _is_refused(name, number, record(), 1)
        assert _is_refused(name, 1, record(), number)
    assert _is_refused(name, 99, record(), 1)  # no machine has so many instruction sets
    for arguments in ((), (1,), (1, record()), (1, record(), 1, 1)):
        assert _is_refused(name, *arguments)


def test_run_layers() -> None:
    layers, step, one = (records.LayerRecord * 2)(), records.StepRecord(), array("q", [1])
    assert _is_refused("run_layers", 1, layers, step, one, one, 1)
    assert _is_refused("run_layers", 1, bytes(sizeof(layers) - 8), step, one, one, 1)
    assert _is_refused("run_layers", 1, b"", step, one, one, 1)
    assert _is_refused("run_layers", 1, layers, bytes(sizeof(step) + 8), one, one, 1)
    for wrong in (b"", bytes(7), None, array("d", [1.0, 2.0])):
        assert _is_refused("run_layers", 1, layers, step, wrong, one, 1)
        assert _is_refused("run_layers", 1, layers, step, one, wrong, 1)
    for count in range(6):
        assert _is_refused("run_layers", *(1, layers, step, one, one, 1)[:count])


def test_gram_scratch_and_names() -> None:
    for number in NO_NUMBERS:
        for place in range(4):
            assert _is_refused("gram_scratch", *(number if at == place else 1 for at in range(4)))
    assert _function("gram_scratch")(1, 20, 30, 9) > 0
    for name in (None, 5, b"auto", ["auto"]):
        assert _is_refused("find_instruction_set", name)
    assert _is_refused("find_instruction_set")
    assert _function("find_instruction_set")("sse9") == 0
    for number in (*NO_NUMBERS, 99):
        assert _is_refused("instruction_set_name", number)
    best = _function("find_instruction_set")("auto")
    assert _function("find_instruction_set")(_function("instruction_set_name")(best)) == best

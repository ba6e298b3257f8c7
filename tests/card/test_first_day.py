"""`make gpu` writes its file: run on a simulated card, whose clock says nothing."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from benchmarks import gpu_receipt
from tests.card.sim.played import simulated_card


def test_a_card_leaves_one_file_that_says_what_it_is(tmp_path: Path) -> None:
    small = {"layer": (256, 128)}
    with (
        simulated_card("RTX 4070"),
        patch.object(gpu_receipt, "SHAPES", small),
        patch.object(gpu_receipt, "COPY_BYTES", 1 << 16),
        patch.object(gpu_receipt, "RUNS", 1),
        patch.object(pytest, "main", lambda arguments, plugins: 0),
    ):
        assert gpu_receipt.main(tmp_path) == 0
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("rtx-4070-")
    made = json.loads(file.read_text())
    assert made["schema"] == gpu_receipt.SCHEMA
    assert made["card"]["capability"] == "8.9"
    assert set(made) == {
        "schema", "date", "card", "versions", "copy_bytes_per_second", "tests", "products",
    }  # fmt: skip
    assert [each["format"] for each in made["products"]] == ["int4", "int8", "nf4"]
    assert made["products"][0]["bytes"] == 256 * 128 // 2 + 256 * 2


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with patch("torch.cuda.is_available", lambda: False):
        assert gpu_receipt.main(tmp_path) == 2
    assert capsys.readouterr().err == "make gpu: torch finds no CUDA device\n"
    assert not list(tmp_path.iterdir())

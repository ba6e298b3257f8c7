"""What the first day with a card runs, run on a simulated card, whose clock says nothing."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from benchmarks import gpu_clock, gpu_receipt, gpu_speed, gpu_timeline
from benchmarks.gpu_timeline import decode_timeline
from calculator.cards.measured import read_receipt
from calculator.model.formats import NF4, WeightFormat
from calculator.model.presets import PRESETS
from tests.card.sim.played import simulated_card
from tests.gpu import test_on_device, test_rounding_on_device

SMALL = replace(
    PRESETS["glm-4-9b-chat"],
    vocab_size=256,
    hidden_size=256,
    intermediate_size=384,
    num_hidden_layers=1,
    num_attention_heads=4,
    head_dim=64,
)


def test_a_card_leaves_a_receipt_and_a_timeline(tmp_path: Path) -> None:
    """The receipt has all its parts, and `glm4q calc` reads it."""
    with (
        simulated_card("RTX 4070"),
        patch.object(gpu_receipt, "SHAPES", {"layer": (256, 128)}),
        patch.object(gpu_receipt, "COPY_BYTES", 1 << 16),
        patch.object(gpu_clock, "RUNS", 1),
        patch.object(gpu_timeline, "TIMED", 1),
        patch.object(gpu_timeline, "CONTEXT", 64),
        patch.object(gpu_receipt, "decode_timeline", partial(decode_timeline, config=SMALL)),
        patch.object(pytest, "main", lambda arguments, plugins: 0),
    ):
        assert gpu_receipt.main(tmp_path) == 0
    file, trace = sorted(tmp_path.iterdir())
    assert file.name.startswith("rtx-4070-")
    assert trace.name == f"{file.stem}.trace.json.gz"
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    receipt = json.loads(file.read_text())
    assert receipt["schema"] == gpu_receipt.SCHEMA
    assert receipt["card"]["capability"] == "8.9"
    assert set(receipt) == {
        "schema", "date", "card", "versions", "copy_bytes_per_second", "tests", "products", "step",
    }  # fmt: skip
    assert [each["format"] for each in receipt["products"]] == ["int4", "int8", "nf4"]
    assert receipt["products"][0]["bytes"] == 256 * 128 // 2 + 256 * 2
    assert set(receipt["step"]) == {"layers", "cached", "seconds", "busy_seconds", "kernels"}
    assert receipt["step"]["layers"] == 1
    assert read_receipt(file).card == "RTX 4070"


@pytest.fixture
def _new_parameters() -> Iterator[None]:
    """`Module.to` makes new parameters: into old ones of the host it cannot put simulated ones."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.usefixtures("_new_parameters")
def test_the_tests_of_a_card_pass_on_a_simulated_one(tmp_path: Path) -> None:
    """What no clock decides passes in small shapes, and so is ready for the first card."""
    with simulated_card("RTX 4070"), patch.object(test_on_device, "CONFIG", SMALL):
        for weight_format in (WeightFormat(4, 64, zero_bits=4), NF4):
            test_on_device.test_product_equals_exact_arithmetic((136, 128), weight_format, 2)
        test_on_device.test_a_decode_step_allocates_nothing()
        test_on_device.test_replayed_steps_say_what_plain_steps_say("int8")
        test_on_device.test_attention_by_our_kernels_says_what_torch_s_says("int4")
        test_on_device.test_the_tokens_of_a_draft_have_the_bits_that_they_have_alone(
            4, "int8", tmp_path / "draft"
        )
        test_on_device.test_sequences_together_have_the_bits_that_they_have_alone(
            4, "int8", tmp_path / "sequences"
        )


def test_rounding_s_test_passes_on_a_simulated_card() -> None:
    with simulated_card("RTX 4070"), patch.object(test_rounding_on_device, "SHAPE", (3, 128)):
        test_rounding_on_device.test_one_launch_for_each_block_rounds_as_torch_s_loops_do(
            WeightFormat(4, 64, zero_bits=4)
        )


def test_kernels_are_timed_beside_torch_s(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        simulated_card("RTX 4070", hollow=True),
        patch.object(gpu_clock, "RUNS", 1),
        patch.object(gpu_receipt, "COPY_BYTES", 1 << 16),
        patch.multiple(gpu_speed, SHAPES={"o": (256, 128)}, READ_BYTES=1, ROWS=(1, 2), CHUNK=32),
        patch.object(gpu_speed, "CONTEXT", 512),
    ):
        assert gpu_speed.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("RTX 4070, code for 8.9")
    assert [line.split()[1] for line in lines[2:6]] == ["INT4", "INT8", "NF4", "bf16"]
    assert [line.split()[0] for line in lines[7:]] == ["bf16", "int8", "k8v4", "int4", "bf16"]


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with patch("torch.cuda.is_available", lambda: False):
        assert gpu_receipt.main(tmp_path) == 2
    assert capsys.readouterr().err == "make gpu: torch finds no CUDA device\n"
    assert not list(tmp_path.iterdir())

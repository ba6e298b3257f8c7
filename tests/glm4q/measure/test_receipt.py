"""What a run holds is what its plan says, wherever its parts lie; the receipt says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.engine import LLM
from glm4q.measure.receipt import LOOSE_BYTES, ReceiptLine, verify
from glm4q.planning.machine import Machine
from glm4q.planning.plan import plan_run
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests.glm4q.memories import CPU

pytestmark = pytest.mark.demo
TWO_PLACES = Machine("gpu", {"gpu": CPU, "host": CPU}, torch.bfloat16)
"""A plan for a GPU and the host beside it, carried out in one memory: no GPU is at hand."""


@pytest.fixture(scope="module")
def untied_demo(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT4 with an INT8 head: the embedding may lie apart from it."""
    output = tmp_path_factory.mktemp("untied") / "int4"
    recipe = Recipe(WeightFormat(4, 64), WeightFormat(8, 64))
    quantize_checkpoint(StoredModel.open(demo_checkpoint), output, recipe)
    return output


def load(directory: Path, wish: Wish) -> LLM:
    stored = StoredModel.open(directory)
    return LLM.load_as_planned(
        stored, TWO_PLACES, plan_run(stored, TWO_PLACES, wish, reserve=4 << 30)
    )


@pytest.mark.parametrize(
    "wish",
    [
        Wish(context=700, kv="bf16", embedding="gpu"),
        Wish(context=700, kv="int8", embedding="host", prefill_chunk=100),
        Wish(context=300, kv="int4", embedding="host", gpu_layers=11),
        Wish(context=64, kv="k8v4", embedding="gpu", prefill_chunk=64, gpu_layers=0),
    ],
    ids=str,
)
def test_the_plan_is_true(wish: Wish, untied_demo: Path) -> None:
    receipt = verify(load(untied_demo, wish), "test")
    assert receipt.is_true, [line for line in receipt.lines if not line.is_true]
    devices = {line.device for line in receipt.lines}
    assert devices == (
        {"gpu"} if wish.embedding == "gpu" and not _parted(wish) else {"gpu", "host"}
    )
    peaks = [line for line in receipt.lines if line.is_peak]
    assert all(line.held > 0 for line in peaks)


def _parted(wish: Wish) -> bool:
    return wish.gpu_layers is not None


def test_layers_on_two_devices_say_the_same(untied_demo: Path) -> None:
    whole = load(untied_demo, Wish(context=64, kv="bf16", embedding="gpu"))
    parted = load(untied_demo, Wish(context=64, kv="bf16", embedding="host", gpu_layers=13))
    input_ids = torch.arange(40).unsqueeze(0)
    said = [llm.new_runner()(input_ids).clone() for llm in (whole, parted)]
    torch.testing.assert_close(said[0], said[1])


def test_a_plan_that_is_not_true_is_told() -> None:
    assert ReceiptLine("KV cache", "gpu", 100, 100).is_true
    assert not ReceiptLine("KV cache", "gpu", 100, 101).is_true
    assert not ReceiptLine("KV cache", "gpu", 100, 99).is_true
    big = 100 * LOOSE_BYTES
    assert ReceiptLine("operators", "gpu", big, big * 96 // 100, is_peak=True).is_true
    assert not ReceiptLine("operators", "gpu", big, big * 94 // 100, is_peak=True).is_true
    assert not ReceiptLine("operators", "gpu", big, big + 1, is_peak=True).is_true


@pytest.mark.parametrize("command", ["calc", "chat"])
def test_the_commands_print_and_write_a_receipt(
    command: str,
    quantized_shallow_demo: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory, receipt = str(quantized_shallow_demo(4)), tmp_path / "receipt.json"
    options = ["--verify", "--context", "600", "--kv", "int8", "--receipt", str(receipt)]
    assert main([command, directory, *options, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "the plan is true: cpu" in shown.out
    assert shown.err == ""
    record = json.loads(receipt.read_text())
    assert record["true"] is True
    assert record["settings"]["context"] == 600
    assert {"term", "predicted", "held", "residual"} <= record["lines"][0].keys()
    for line in record["lines"]:
        assert f"{line['held']:,}" in shown.out


def test_verify_needs_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "glm-4-9b-chat", "--verify"]) == 2
    assert "glm-4-9b-chat is not a directory" in capsys.readouterr().err

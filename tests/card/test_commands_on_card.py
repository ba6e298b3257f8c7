"""Commands with `--device cuda` on a simulated card: each is whole, and within its plan."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.checkpoint.stored import StoredModel
from calculator.memory.making import PROCESS_BYTES
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.measure import bandwidth, speed
from glm4q.measure.workload import Workload
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from tests.card.sim.played import simulated_card
from tests.card.sim.trace import Trace

CARD = "RTX 3060"
TEXT = "The river rose in the night. By morning the lower field was a lake, and ducks had come. "


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What models are calibrated on, and what they predict."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT * 12)
    return file


RECIPE = """\
weights = "int4"
group_size = 32
method = "{method}"
[[layers]]
match = ["model.layers.1.*", "model.layers.0.mlp.*"]
weights = "bf16"
"""
"""One attention: more of it is the same, column by column."""


def quantize(source: Path, output: Path, text: Path, method: str, device: str) -> dict[str, Any]:
    """Quantize as the command does, and return what its report says."""
    recipe = text.with_name(f"{method}.toml")
    recipe.write_text(RECIPE.format(method=method))
    samples = ["--calibration", str(text), "--samples", "8", "--length", "64"]
    options = [*samples, "--held-out", str(text), "--recipe", str(recipe), "--dtype", "fp32"]
    command = ["quantize", str(source), "-o", str(output), *options, "--device", device]
    assert main(command) == 0
    report: dict[str, Any] = json.loads((output / "quality.json").read_text())
    return report


def worked(trace: Trace) -> set[str]:
    """The folders of the product that had the card compute."""
    return {event.place.rpartition("/")[0] for event in trace.of("operator", "launch")}


@pytest.mark.parametrize("method", ["gptq", pytest.param("awq", marks=pytest.mark.card)])
def test_quantize_computes_on_the_card_within_its_plan(
    method: str, chat_checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    """Forward passes, moments, codes and quality are computed there, as exactly as by a CPU."""
    with simulated_card(CARD) as (card, _):
        on_card = quantize(chat_checkpoint, tmp_path / "card", text, method, "cuda")
    assert worked(card.trace) >= {"quantize/calibrate", "quantize/methods", "quantize/quality"}
    assert on_card["run"]["arithmetic"].startswith("float32 on cuda")
    # Python itself, which the plan counts as well, takes nothing of the card.
    planned = on_card["run"]["predicted_bytes"] - PROCESS_BYTES * 5 // 4
    assert card.allocator.peak_allocated <= planned
    on_host = quantize(chat_checkpoint, tmp_path / "host", text, method, "cpu")
    for ours, theirs in zip(on_card["linears"], on_host["linears"], strict=True):
        assert ours["module"] == theirs["module"]
        assert ours["output_error"] < 1.1 * theirs["output_error"]
    perplexities = [report["held_out"]["perplexity"] for report in (on_card, on_host)]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=0.05)


def test_eval_predicts_on_the_card_what_the_cpu_predicts(
    chat_checkpoint: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--text", str(text), "--window", "64", "--dtype", "fp32", "--json"]
    command = ["eval", str(chat_checkpoint), *options, "--kernel", "reference"]
    perplexities = []
    for device in ("cpu", "cuda"):
        with simulated_card(CARD) as (card, _):
            assert main([*command, "--device", device]) == 0
            assert bool(card.trace.of("operator")) == (device == "cuda")
        (result,) = json.loads(capsys.readouterr().out)
        perplexities.append(result["perplexity"])
    assert perplexities[1] == pytest.approx(perplexities[0], rel=1e-4)


def test_bench_measures_on_the_card_and_holds_what_it_plans(
    checkpoints: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bandwidth.measure_read_bandwidth
    monkeypatch.setattr(speed, "measure_read_bandwidth", lambda device: plain(device, 1 << 16))
    short = ["--prompt", "16", "--decode", "3", "--runs", "1", "--depths", "0,40", "--kv", "int8"]
    model = checkpoints / "int4-g64-int8-g64"
    with simulated_card(CARD) as (card, _):
        assert main(["bench", str(model), *short, "--device", "cuda", "--json"]) == 0
        assert card.trace.of("launch")
        assert card.trace.of("replay")
    result = json.loads(capsys.readouterr().out)
    assert result["depths"] == [0, 40]
    assert result["cold_time_to_first_token_seconds"] > 0
    (refusal,) = result["kernels"][-1]["refusals"]
    assert "those of a GPU are launched one by one" in refusal
    assert "recorded as a CUDA graph" in refusal
    assert all(each["held_bytes"] == each["planned_bytes"] for each in result["held"])


def test_bench_measures_what_is_compiled_and_recorded_already(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run is measured, and no graph is recorded in it: each step of a token is replayed.

    Time goes by the launches that are no replay's.
    """
    monkeypatch.setattr(speed, "measure_read_bandwidth", lambda device: 1.0)
    stored = StoredModel.open(checkpoints / "int4-g64-int8-g64")
    workload = Workload((0, 40), prompt=16, decode=5, runs=1)
    with simulated_card(CARD) as (card, _):

        def clock() -> float:
            launches = card.trace.of("launch")
            return float(sum("steps/graphs.py" not in each.place for each in launches))

        machine = choose_machine("cuda", "auto", "auto")
        wish = Wish(context=workload.context, kv="int8", draft_tokens=0)
        run_plan = plan_run(stored, machine, wish, reserve=0)
        measured = speed.measure(stored, workload, run_plan, machine, clock=clock)
    assert measured.cold_first_token_seconds
    assert [each.decode_seconds for each in measured.speeds] == [0, 0]


def test_bandwidth_counts_one_wait_for_many_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card reads a gigabyte in less time than the host takes to wait a few times."""
    with simulated_card(CARD) as (card, _):
        monkeypatch.setattr(time, "perf_counter", lambda: float(len(card.trace.of("wait"))))
        reads_a_wait = bandwidth.measure_read_bandwidth(torch.device("cuda"), 1 << 12) / (1 << 12)
    assert reads_a_wait >= 8


def test_calc_verifies_on_the_card_what_it_planned(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`glm4q calc CKPT --verify`, and the receipt that it writes."""
    file = tmp_path / "receipt.json"
    options = ["--verify", "--context", "64", "--kv", "int8", "--device", "cuda"]
    with simulated_card(CARD):
        assert main(["calc", str(chat_checkpoint), *options, "--receipt", str(file)]) == 0
    assert "the plan is true: RTX 3060" in capsys.readouterr().out
    assert json.loads(file.read_text())


def test_chat_verifies_on_the_card_what_it_planned(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with simulated_card(CARD) as (card, _):
        options = ["--prompt", "hello", "--max-tokens", "3", "--context", "64"]
        command = ["chat", str(chat_checkpoint), *options, "--device", "cuda", "--verify"]
        assert main(command) == 0
        assert card.trace.of("replay")
    assert "the plan is true: RTX 3060" in capsys.readouterr().out

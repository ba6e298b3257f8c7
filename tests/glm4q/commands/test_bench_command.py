"""`glm4q bench`: what it measures is there and adds up; what it cannot do it says in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.model.formats import BF16, WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.decode.row import Row
from glm4q.decode.runner import Runner
from glm4q.measure import bandwidth
from glm4q.measure.speed import fill, measure
from glm4q.measure.synthetic import SPREAD, open_synthetic
from glm4q.measure.workload import Workload
from glm4q.memory.kv.cache import KVCache
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from glm4q.weights.checkpoint import read_quantized
from tests import tiny
from tests.fixtures import MakeQuantized

SHORT = ["--device", "cpu", "--prompt", "8", "--decode", "4", "--runs", "1"]
CONFIG = replace(tiny.BASE, vocab_size=96)


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bandwidth of a cache is as good as that of memory here, and a gigabyte is not spent on it."""
    measure = bandwidth.measure_read_bandwidth
    small = 1 << 20
    monkeypatch.setattr("glm4q.measure.speed.measure_read_bandwidth", lambda on: measure(on, small))


def measured(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["bench", *map(str, arguments), *SHORT, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_record_of_a_quantized_model(
    quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    record = measured(capsys, directory, "--depths", "0,64,200", "--kv", "int8")
    assert record["depths"] == [0, 64, 200]
    for name in ("prefill", "decode"):
        speeds = record[f"{name}_tokens_per_second"]
        assert len(speeds) == 3
        assert min(speeds) > 0
    first = record["prompt_tokens"] / record["prefill_tokens_per_second"][0]
    assert record["time_to_first_token_seconds"] == pytest.approx(first)
    assert record["cold_time_to_first_token_seconds"] is None  # a CPU compiles nothing
    assert record["load_seconds"] > 0
    assert record["random_weights"] is False
    assert record["context"] == 209
    assert all(each["held_bytes"] == each["planned_bytes"] for each in record["held"])
    assert [each["name"] for each in record["held"]] == ["weights", "KV cache", "workspace"]
    assert record["planned_bytes"] >= sum(each["held_bytes"] for each in record["held"])
    assert record["threads"] == torch.get_num_threads()
    assert record["versions"]["torch"] == torch.__version__


def test_the_first_steps_do_not_count(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run is measured, and the first step reads weights from the disk: it lies before."""
    stored = StoredModel.open(tiny_checkpoint)
    machine = choose_machine("cpu", "auto", "auto")
    workload = Workload((0, 64), prompt=8, decode=4, runs=1)
    run_plan = plan_run(stored, machine, Wish(context=workload.context, draft_tokens=0))
    now, cold, run = [0.0], [1000.0], Runner.__call__

    def slow_at_first(self: Runner, *arguments: Any, **named: Any) -> torch.Tensor:
        now[0] += cold.pop() if cold else 1
        return run(self, *arguments, **named)

    monkeypatch.setattr(Runner, "__call__", slow_at_first)
    speeds = measure(stored, workload, run_plan, machine, clock=lambda: now[0]).speeds
    assert [(each.prefill_seconds, each.decode_seconds) for each in speeds] == [(1, 1), (1, 1)]


def test_a_token_reads_all_weights_but_the_embedding_and_the_cache_so_far(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = measured(capsys, tiny_checkpoint, "--depths", "0,100", "--dtype", "fp32")
    weights = next(each["held_bytes"] for each in record["held"] if each["name"] == "weights")
    base = tiny.BASE
    embedding = base.vocab_size * base.hidden_size * 4
    vectors = 2 * base.num_hidden_layers * base.num_key_value_heads  # of keys and of values
    cached = 100 * vectors * base.head_dim * 4
    assert record["decode_bytes_per_token"] == [weights - embedding, weights - embedding + cached]
    for share, read, speed in zip(
        record["bandwidth_share"],
        record["decode_bytes_per_token"],
        record["decode_tokens_per_second"],
        strict=True,
    ):
        assert share * record["read_bandwidth_bytes_per_second"] == pytest.approx(read * speed)


def test_kernels_that_serve_and_refusals(
    quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = quantized_tiny(WeightFormat(8, 32))
    record = measured(capsys, directory, "--depths", "0", "--kernel", "reference")
    quantized = [each for each in record["kernels"] if each["layers"].startswith("int8")]
    assert {each["kernel"] for each in quantized} == {"reference"}
    assert sum(each["count"] for each in quantized) == 12  # six in each of two layers
    assert record["kernels"][-1]["kernel"] == "one by one"
    (refusal,) = record["kernels"][-1]["refusals"]
    assert refusal == "native takes layers whose linears are all multiplied by the native kernel"
    record = measured(capsys, directory, "--depths", "0")
    for each in record["kernels"]:
        reasons = " takes ", " runs ", " needs "
        assert all(any(reason in refusal for reason in reasons) for refusal in each["refusals"])


def test_depths_that_have_no_room_are_left_out(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(capsys, tiny_checkpoint)["depths"] == [0]  # 256 positions


def test_screen_names_speed_memory_and_what_was_filled(
    quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    assert main(["bench", str(directory), "--depths", "0,64", *SHORT]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for words in ("decode, tokens/s", "share of bandwidth", "planned", "int4 g", "load: "):
        assert words in shown.out
    assert "filled with random numbers, not by a prefill" in shown.out


@pytest.mark.parametrize("bandwidth_measured", [1.0, 1e15])
def test_a_share_above_all_says_why_and_the_heap_is_a_line(
    bandwidth_measured: float,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("glm4q.measure.speed.measure_read_bandwidth", lambda on: bandwidth_measured)
    assert main(["bench", str(tiny_checkpoint), *SHORT]) == 0
    shown = capsys.readouterr().out
    assert ("a share above 100 %: what a token reads lies in" in shown) == (bandwidth_measured == 1)
    assert "libraries and heap, which no plan counts" in shown
    assert "that the process held before it loaded" in shown


@pytest.mark.demo
def test_peak_of_the_demo_is_near_its_plan(quantized_demo: Callable[[int], Path]) -> None:
    """In a process of its own: memory that an earlier test gave back would be used again.

    Beyond the plan there are code of libraries and what the heap keeps. A prompt of 64 tokens uses
    what is planned for one; one of 8 leaves pages of it that are never touched, nor counted.
    """
    code = "import sys; from glm4q.cli import main; sys.exit(main())"
    work = [*SHORT, "--prompt", "64", "--depths", "0,1000", "--json"]
    asked = ["bench", str(quantized_demo(8)), *work]
    ran = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, check=True)
    record = json.loads(ran.stdout)
    assert record["process_bytes"] > 50 << 20
    assert 0 <= record["beyond_plan_and_process"] < 0.05
    assert record["beyond_plan_bytes"] == record["peak_bytes"] - record["planned_bytes"]


@pytest.mark.parametrize("bits", [4, 8])
def test_synthetic_checkpoint_is_an_ordinary_one(bits: int, tmp_path: Path) -> None:
    formats = assign_formats(CONFIG, WeightFormat(bits, 32), WeightFormat(8, 32))
    stored = open_synthetic(tmp_path / "made", CONFIG, formats)
    assert stored.formats == formats
    for weight, weight_format in formats.items():
        if weight_format.is_quantized:
            spread = read_quantized(stored, weight).dequantize().std().item()
            assert spread == pytest.approx(SPREAD, rel=0.15)
    written = (tmp_path / "made" / "lm_head.safetensors").stat().st_mtime_ns
    again = open_synthetic(tmp_path / "made", CONFIG, formats)
    assert again.formats == stored.formats
    assert (tmp_path / "made" / "lm_head.safetensors").stat().st_mtime_ns == written


def test_command_makes_and_keeps_what_is_synthetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "glm-4-9b", CONFIG)
    asked = ["--synthetic", "glm-4-9b", "--weights", "int8", "--group-size", "32", "--layers", "1"]
    record = measured(capsys, tmp_path / "made", *asked)
    assert record["random_weights"] is True
    assert measured(capsys, tmp_path / "made")["random_weights"] is True  # named by its path alone
    quantized = [each for each in record["kernels"] if each["layers"].startswith("int8 g32 [")]
    assert len(quantized) == 5
    others = [each["layers"].split(" over ")[0] for each in record["kernels"]][-4:-1]
    assert others == ["norms on cpu", "attention of one token", "attention of several tokens"]
    assert StoredModel.open(tmp_path / "made").config.num_hidden_layers == 1


def test_no_more_layers_than_the_model_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "glm-4-9b", CONFIG)
    asked = ["--synthetic", "glm-4-9b", "--layers", str(CONFIG.num_hidden_layers + 1)]
    assert main(["bench", str(tmp_path / "made"), *asked]) == 2
    assert f"at most glm-4-9b's {CONFIG.num_hidden_layers}, not" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_synthetic_checkpoint_that_the_disk_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(CheckpointError, match=r"made needs [\d.]+ [KM]iB of disk, and 1.0 KiB are"):
        open_synthetic(tmp_path / "made", CONFIG, assign_formats(CONFIG, BF16))
    assert list(tmp_path.iterdir()) == []


def test_synthetic_bf16_checkpoint(tmp_path: Path) -> None:
    stored = open_synthetic(tmp_path / "made", CONFIG, assign_formats(CONFIG, BF16))
    assert isinstance(stored, StoredModel)
    assert not stored.is_quantized


def test_filled_cache_holds_random_numbers_up_to_the_depth() -> None:
    for kv in ("fp32", "int8", "int4"):
        cache = KVCache(replace(CONFIG, head_dim=64), 700, kv=kv)
        for tensor in cache.tensors:
            tensor.zero_()
        fill(Row(cache), 600)
        assert cache.length == 600
        for tensor in cache.tensors:
            filled = tensor.float().flatten(4) if tensor.dim() > 4 else tensor.float().unsqueeze(-1)
            assert filled[:, :, :, :600].abs().amax(-1).min() > 0
            assert filled[:, :, :, :600].std() > 0
            assert not filled[:, :, :, 600:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a directory"),
        ([], "name a checkpoint directory, or a preset after --synthetic"),
        (["CKPT", "--depths", "0,9k"], "depth 9216 and 9 tokens after it are more than"),
        (["CKPT", "--depths", "64,0"], "depths must rise, not 64,0"),
        (["CKPT", "--depths", "far"], "a number of tokens looks like"),
        (["CKPT", "--context", "8"], "9 tokens after it are more than the context of 8"),
        (["CKPT", "--decode", "0"], "decode must be at least 1, not 0"),
        (["CKPT", "--kernel", "marlin"], "kernel must be one of"),
        (["CKPT", "--kv", "int2"], "kv must be one of"),
        (["CKPT", "--weights", "int4"], "--weights needs --synthetic"),
        (["--synthetic", "gpt-9"], "synthetic must be one of"),
        (["--synthetic", "glm-4-9b", "--weights", "nf4"], "weights must be one of bf16, int8"),
        (["--synthetic", "glm-4-9b", "--group-size", "5"], "group size must be one of"),
        (["CKPT", "--synthetic", "glm-4-9b"], "holds another model than the one asked for"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str],
    message: str,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [str(tiny_checkpoint) if each == "CKPT" else each for each in arguments]
    asked = [*SHORT, *named]  # what comes last counts
    assert main(["bench", *asked]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""

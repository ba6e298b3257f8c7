"""`glm4q calc` answers in a table or in JSON, refuses in one line, and starts without torch."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.model.formats import WeightFormat
from glm4q.cli import main
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe

HEAVY = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "numpy",
    "pydantic",
)


@pytest.fixture(autouse=True)
def wide_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences stay on one line, whatever terminal runs the tests."""
    monkeypatch.setenv("COLUMNS", "250")


def calc(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The parsed answer of a command that must succeed and complain of nothing."""
    assert main(["calc", *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert isinstance(answer, dict)
    return answer


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that must fail and print nothing else."""
    assert main(["calc", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("glm4q: ")
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    return printed.err


# Answers


def test_json_has_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    answer = calc(capsys, "glm-4-9b-chat", "--weights", "int4", "--embedding", "host")
    terms, moments = answer.pop("terms"), answer.pop("moments")
    assert {moment["name"] for moment in moments} >= {"prefill feed-forward", "decode attention"}
    offers = answer.pop("recommended_gpus")
    assert offers[0]["margin_bytes"] >= 0
    assert answer == {
        "schema": "glm4q.calc/1",
        "model": "glm-4-9b-chat",
        "parameters": 9_399_951_360,
        "context": 8192,
        "batch": 1,
        "prefill_chunk": 512,
        "draft_tokens": 7,
        "weights": "int4 g128",
        "kv": "bf16",
        "embedding": "host",
        "gpu_layers": None,
        "display_reserve_bytes": 256 << 20,
        "safety_margin_bytes": 0,
        "weights_bytes": 6_690_488_320,
        "kv_cache_bytes": 335_544_320,
        "kv_bytes_per_token": 40_960,
        "bus_bytes_per_token": 4096 * 2,
        "workspace_bytes": answer["workspace_bytes"],
        "runtime_overhead_bytes": answer["runtime_overhead_bytes"],
        "total_gpu_bytes": sum(term["bytes"] for term in terms if term["device"] == "gpu"),
        "total_host_bytes": 1_241_513_984 + 512 * 4096 * 2,
        "measured_loss": None,
        "command": "glm4q calc glm-4-9b-chat --weights int4 --kv bf16 --context 8192 "
        "--embedding host",
    }
    assert answer["weights_bytes"] + answer["kv_cache_bytes"] + answer["workspace_bytes"] + answer[
        "runtime_overhead_bytes"
    ] == sum(term["bytes"] for term in terms)
    for term in terms:
        assert term.keys() == {"name", "device", "bytes", "formula", "source"}
        assert term["device"] in ("gpu", "host")
        assert type(term["bytes"]) is int
        assert term["formula"]
        assert term["source"]


def test_glm_4_9b_chat_in_bf16_is_what_calc_means_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert calc(capsys) == calc(capsys, "glm-4-9b-chat", "--weights", "bf16", "--context", "8k")


def test_the_table_tells_what_json_tells(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("glm-4-9b-chat", "--weights", "int4", "--lm-head", "int8", "--embedding", "host")
    answer = calc(capsys, *options)
    assert main(["calc", *options]) == 0
    table = capsys.readouterr().out
    assert "glm-4-9b-chat: 9,399,951,360 parameters" in table
    for term in answer["terms"]:
        assert f"{term['bytes']:,}" in table
    assert f"{answer['total_gpu_bytes']:,}" in table
    assert f"{answer['total_host_bytes']:,}" in table
    assert "assumed: context 8,192 tokens, prefill chunk 512" in table


@pytest.mark.parametrize("context", ["128k", "128K", "131072"])
def test_the_whole_context_may_be_asked_for_in_k(
    capsys: pytest.CaptureFixture[str], context: str
) -> None:
    answer = calc(capsys, "glm-4-9b-chat", "--context", context, "--kv", "int8")
    assert answer["context"] == 131_072
    assert answer["kv_cache_bytes"] == 131_072 * 20_800


def test_the_default_context_is_no_longer_than_the_model(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    assert calc(capsys, str(checkpoint))["context"] == 256


def test_presets_are_known_whatever_their_case(capsys: pytest.CaptureFixture[str]) -> None:
    lower, upper = calc(capsys, "glm-4-32b-0414"), calc(capsys, "GLM-4-32B-0414")
    assert lower["parameters"] == 32_566_081_536
    named = {"model": "", "command": ""}
    assert {**lower, **named} == {**upper, **named}


@pytest.mark.parametrize("option", ["--context", "--batch", "--prefill-chunk"])
def test_every_number_is_heeded(capsys: pytest.CaptureFixture[str], option: str) -> None:
    answer = calc(capsys, "glm-4-9b-chat", option, "100")
    assert answer[option[2:].replace("-", "_")] == 100
    assert answer["total_gpu_bytes"] != calc(capsys)["total_gpu_bytes"]


# Directories


def test_a_directory_is_described_by_its_headers(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    answer = calc(capsys, str(checkpoint))
    tensors = load_file(checkpoint / SINGLE).values()
    assert answer["model"] == "tiny"
    assert answer["parameters"] == sum(tensor.numel() for tensor in tensors)
    assert answer["weights_bytes"] == 2 * answer["parameters"]
    assert {term["source"] for term in answer["terms"] if "KV" not in term["name"]} >= {"headers"}


@pytest.mark.parametrize("head", ["bf16", "int8"])
@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_predicted_is_what_quantize_makes(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, bits: int, head: str
) -> None:
    recipe = Recipe(WeightFormat(bits, 32), WeightFormat(8 if head == "int8" else 16, 32))
    quantized = checkpoint.parent / "made"
    quantize_checkpoint(StoredModel.open(checkpoint), quantized, recipe)
    options = ("--weights", f"int{bits}", "--group-size", "32", "--lm-head", head)
    predicted, stored = calc(capsys, str(checkpoint), *options), calc(capsys, str(quantized))
    assert predicted["weights_bytes"] == stored["weights_bytes"]
    assert predicted["total_gpu_bytes"] == stored["total_gpu_bytes"]


def test_a_directory_may_have_any_name(checkpoint: Path, tmp_path: Path) -> None:
    odd = checkpoint.rename(tmp_path / "[b]模型\udcff\x1b[31m")
    script = "import sys; from glm4q.cli import main; sys.exit(main())"
    for options in ([], ["--json"]):
        command = [sys.executable, "-c", script, "calc", str(odd), *options]
        done = subprocess.run(
            command, env={"PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stdout


# Refusals


@pytest.mark.parametrize(
    "wrong",
    [
        ("glm-5",),
        ("glm-4-9b-chat", "glm-4-9b"),
        ("--device", "cuda"),
        ("--receipt", "receipt.json"),
        ("--weights", "int3"),
        ("--weights", "INT4"),
        ("--weights", ""),
        ("--weights", "int4", "--group-size", "96"),
        ("--weights", "int4", "--group-size", ""),
        ("--group-size", "96"),
        ("--group-size", "64"),
        ("--lm-head", "int4"),
        ("--lm-head", "fp8"),
        ("--lm-head", ""),
        ("--embedding", "disk"),
        ("--kv", "fp32"),
        ("--kv", ""),
        ("--context", "0"),
        ("--context", "-1"),
        ("--context", ""),
        ("--context", "8.5k"),
        ("--context", "many"),
        ("--context", "١٢"),
        ("--context", "129k"),
        ("--context", "9" * 5000),
        ("--batch", "0"),
        ("--batch", "two"),
        ("--batch", "9" * 400),
        ("--batch", "9" * 5000),
        ("--prefill-chunk", "0"),
        ("--prefill-chunk", "1e3"),
        ("--context",),
        ("--frobnicate",),
    ],
    ids=lambda wrong: " ".join(wrong)[:40],
)
def test_a_wrong_option_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...]
) -> None:
    refusal(capsys, *wrong)


@pytest.mark.parametrize("model", ["chatglm3-6b", "GLM-4-32B-0414"])
def test_a_context_beyond_the_model_is_refused(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    assert "longer than the model's" in refusal(capsys, model, "--context", "64k")


def test_an_unknown_model_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refusal(capsys, "glm-5")
    assert line.startswith("glm4q: glm-5 is neither a directory, a config.json, a Hugging Face id")


def test_a_group_size_that_does_not_fit_is_refused_with_those_that_do(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    line = refusal(capsys, str(checkpoint), "--weights", "int4")
    assert "group size 128 does not divide model.layers.0.self_attn.q_proj, 96 wide" in line
    assert line.endswith("; 32, channel would do\n")


def test_a_quantized_checkpoint_keeps_its_format(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    quantized = checkpoint.parent / "made"
    quantize_checkpoint(StoredModel.open(checkpoint), quantized, Recipe(WeightFormat(4, 32)))
    assert "is quantized already" in refusal(capsys, str(quantized), "--weights", "int8")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b'{"model_type": "llama"}'),
        ("config.json", b'{"model_type": "glm", "rope_parameters": []}'),
        (SINGLE, b""),
        (SINGLE, (2**63).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, name: str, content: bytes
) -> None:
    (checkpoint / name).write_bytes(content)
    assert str(checkpoint / name) in refusal(capsys, str(checkpoint))


@pytest.mark.parametrize("name", ["config.json", SINGLE])
def test_a_directory_in_place_of_a_file_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, name: str
) -> None:
    (checkpoint / name).unlink()
    (checkpoint / name).mkdir()
    assert name in refusal(capsys, str(checkpoint))


# Starting


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--help"]) == 0
    text = capsys.readouterr().out
    model = "weights group-size lm-head embedding kv context users batch shared-prefix draft"
    card = "gpu vram gpus split gpu-layers ram-bandwidth reserve margin max-context list-gpus"
    answer = "show as output all verify device receipt prefill-chunk"
    for option in f"{model} {card} {answer}".split():
        assert re.search(rf"--{option}\b", text)


@pytest.mark.parametrize("arguments", ["--help", "calc --help", "calc", "calc --json", "calc {}"])
def test_planning_needs_no_heavy_import(arguments: str, checkpoint: Path) -> None:
    script = (
        "import sys\n"
        "from glm4q.cli import main\n"
        f"assert main({arguments.format(checkpoint).split()!r}) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr == "[]\n"


def test_widths_of_other_cards_lose_less_the_larger_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = calc(capsys, "--gpu", "4060", "--context", "16k", "--show", "widths")
    rungs = answer["widths"]
    assert answer["estimated_by"] == "alike"
    assert [round(rung["usable_bytes"] / (1 << 30)) for rung in rungs] == [*range(6, 13)]
    losses = [rung["share_of_the_narrowest"] for rung in rungs]
    assert losses == sorted(losses, reverse=True)
    assert 0 < losses[-1] < losses[0] < 1
    assert all(rung["need_bytes"] <= rung["usable_bytes"] for rung in rungs)
    assert all(rung["int4"] + rung["int8"] + rung["bf16"] == 160 for rung in rungs)
    assert main([*shlex.split(answer["command"].removeprefix("glm4q ")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "show widths needs one card: name it with gpu or vram"),
        (["--gpu", "4060", "--gpus", "2"], "show widths needs one card"),
        (["--gpu", "4060", "--weights", "int4"], "show widths chooses the weights and the head"),
        (["--vram", "4"], "does not fit a card: with all layers in INT4"),
        (["--gpu", "RX 7900 XTX"], "RX 7900 XTX cannot be filled"),
    ],
)
def test_widths_that_cannot_be_shown(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, *arguments, "--show", "widths")

"""`glm4q quantize --for`: a played card is filled, and every command takes what comes of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.settings import Settings, default_drafts
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.questions.widths.sensitivity import read_sensitivity
from glm4q.cli import main
from tests import tiny
from tests.plans import half_way
from tests.quantize.calibrated import token_file

MIB = 1 << 20
SETTINGS = Settings(
    256, kv="int8", embedding="host", display_reserve=256 * MIB, draft_tokens=default_drafts(1)
)
HALF = "half"


def _command(source: Path, output: Path, *options: str) -> list[str]:
    asked = ["--context", "256", "--kv", "int8", "--group-size", "32", "--dtype", "fp32"]
    return ["quantize", str(source), "-o", str(output), "--no-quality", *asked, *options]


def _samples(directory: Path) -> list[str]:
    return ["--calibration", str(token_file(directory)), "--length", "64", "--samples", "8"]


@pytest.fixture
def stored(chat_checkpoint: Path) -> StoredModel:
    return StoredModel.open(chat_checkpoint)


@pytest.fixture
def half(stored: StoredModel) -> str:
    """The memory of a card in the middle between INT4 and INT8."""
    return half_way(stored.config, SETTINGS, group_size="32")


@pytest.fixture(autouse=True)
def _no_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no unused ends of the allocator's segments: one segment is larger than this model."""
    monkeypatch.setattr("calculator.memory.plan._weights_slack", lambda placed: 0)


def test_a_played_card_is_filled_and_the_record_is_kept(
    half: str, stored: StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--vram", half, *_samples(tmp_path)]
    assert main(_command(stored.directory, tmp_path / "out", *options)) == 0
    shown = capsys.readouterr().out
    assert "for a card: " in shown
    assert "with 256 tokens in an int8 KV cache" in shown
    assert "KL divergence of the logits" in shown
    made = StoredModel.open(tmp_path / "out")
    widths = {each.bits for weight, each in made.formats.items() if weight.role == "linear"}
    assert {4, 8} <= widths
    subject = Subject("", made.config, made.formats, "headers", None)
    left = float(half[:-1]) * MIB - Question(subject, SETTINGS).need_bytes
    assert 0 <= left < 128 * 128  # the smallest matrix, from 4 to 8 bits
    record = read_sensitivity(tmp_path / "out")
    assert record.kind == "divergence"
    assert record.about["source"] == stored.name
    assert record.about["measured_on"] == {"samples": 4, "tokens": 64}
    assert main(["verify", str(tmp_path / "out"), "--source", str(stored.directory)]) == 0
    assert not list(tmp_path.glob(".out*"))
    run = ["calc", str(tmp_path / "out"), "--context", "256"]
    assert main([*run, "--verify", "--device", "cpu"]) == 0  # held to the byte
    capsys.readouterr()

    # The calculator shows the same choice, by the same record.
    assert main([*run, "--vram", half, "--show", "widths", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["estimated_by"] == "divergence"
    formats = {
        weight.module: each.bits for weight, each in made.formats.items() if weight.can_be_quantized
    }
    for name, bits in answer["bits"].items():
        assert formats[name.replace("qkv_proj", "q_proj")] == bits
    assert answer["widths"][-1]["bf16"] == 8  # a GiB more holds all as they are

    # What was measured once serves for another card.
    again = ["--vram", half, "--margin", "0.04M", "--sensitivity", str(tmp_path / "out")]
    assert main(_command(stored.directory, tmp_path / "less", *again, "--method", "rtn")) == 0
    less = StoredModel.open(tmp_path / "less")
    assert sum(each.bits == 4 for each in less.formats.values()) > sum(
        each.bits == 4 for each in made.formats.values()
    )
    assert read_sensitivity(tmp_path / "less") == record


def test_rtn_goes_by_the_weights_and_a_run_that_is_cut_off_by_what_it_has(
    half: str,
    stored: StoredModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = _command(stored.directory, tmp_path / "out", "--vram", half, "--method", "rtn")

    def refuse(*arguments: object, **options: object) -> None:
        raise OptionError("no disk")

    with monkeypatch.context() as patched:
        patched.setattr("quantize.job.quantize_checkpoint", refuse)
        assert main(command) == 2
    assert (tmp_path / ".out.sensitivity").is_dir()
    with monkeypatch.context() as patched:  # nothing is weighed again
        patched.setattr("quantize.quality.sensitivity.by_weights.errors_of", refuse)
        assert main(command) == 0
    assert "squared error of the weights" in capsys.readouterr().out
    record = read_sensitivity(tmp_path / "out")
    assert record.kind == "weights"
    assert not (tmp_path / ".out.sensitivity").exists()
    again = ["--vram", half, "--sensitivity", str(tmp_path / "out"), "--method", "rtn"]
    assert main(_command(stored.directory, tmp_path / "again", *again)) == 0
    assert read_sensitivity(tmp_path / "again") == record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--for", "RTX 4090"], "holds checkpoint in bf16 with"),
        (["--for", "RTX 9999"], "no GPU 'RTX 9999' is known"),
        (["--vram", "0.3"], "does not fit a card: with all layers in INT4"),
        (["--vram", "1", "--weights", "int4"], "--for chooses the width of each matrix: leave out"),
        (["--vram", "1", "--weights", "nf4"], "--for chooses the width of each matrix: leave out"),
        (["--vram", "1", "--kv", "fp32"], "kv must be one of bf16, int8, k8v4, int4, not fp32"),
        (["--vram", "1", "--sensitivity", "nowhere"], "nowhere cannot be read"),
        (["--vram", HALF, "--max-memory", "100M"], "needs"),
        (["--vram", HALF, "--method", "rtn", "--heal"], "--heal trains by calibration samples"),
        (["--weights", "int4"], "go with --for or --vram"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    options: list[str],
    message: str,
    half: str,
    stored: StoredModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [half if each == HALF else each for each in (*options, *_samples(tmp_path))]
    assert main(_command(stored.directory, tmp_path / "out", *asked)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob(".out*"))


def test_a_head_that_is_the_embedding_takes_no_width_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.transformers_model(replace(tiny.BASE, tie_word_embeddings=True))
    source = tiny.save_checkpoint(model, tmp_path / "source")
    options = ["--vram", "1", "--lm-head", "int8"]
    assert main(_command(source, tmp_path / "out", *options)) == 2
    assert "lm head int8: the head of source is its embedding" in capsys.readouterr().err

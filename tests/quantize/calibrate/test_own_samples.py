"""Samples that the source writes itself: seeded, kept for a run that goes on, in its protocol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from glm4q.cli import main
from glm4q.text.tokenizer import Tokenizer
from quantize.calibrate import own_samples
from quantize.calibrate.own_samples import OwnSamples
from tests.chat_checkpoint import save_chat_checkpoint

SAMPLES, LENGTH = 6, 64


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_checkpoint(tmp_path_factory.mktemp("own") / "source")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short questions and answers, few at once: a random model has nothing to say."""
    monkeypatch.setattr(own_samples, "GROUP", 2)
    monkeypatch.setattr(own_samples, "QUESTION_TOKENS", 12)
    monkeypatch.setattr(own_samples, "ANSWER_TOKENS", 40)


def writer(source: Path, file: Path, seed: int = 0) -> OwnSamples:
    return OwnSamples(StoredModel.open(source), file, {"seed": seed}, seed, "cpu", "fp32")


def test_one_seed_gives_one_set_and_another_seed_another(source: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    one = writer(source, tmp_path / "a").read(SAMPLES, LENGTH, lambda *each: heard.append(each))
    same, other = (
        writer(source, tmp_path / name, seed).read(SAMPLES, LENGTH, lambda *each: None)
        for name, seed in (("b", 0), ("c", 1))
    )
    assert one.token_ids.shape == (SAMPLES, LENGTH)
    assert one.record == same.record
    assert one.digest != other.digest
    assert one.source == "self"
    assert [wanted for _, wanted in heard] == [SAMPLES * LENGTH] * len(heard)
    assert len(heard) > 1


def test_documents_speak_the_template_of_the_source(source: Path, tmp_path: Path) -> None:
    shown = writer(source, tmp_path / "a").read(SAMPLES, LENGTH, lambda *each: None)
    control = Tokenizer.from_directory(source).control_tokens
    stream = shown.token_ids.flatten().tolist()
    assert stream[0] == control["<|user|>"]
    roles = [token for token in stream if token in (control["<|user|>"], control["<|assistant|>"])]
    assert roles[1] == control["<|assistant|>"]
    assert len(roles) >= 4


def test_run_that_was_cut_off_goes_on_to_the_same_samples(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept"
    whole = writer(source, file).read(SAMPLES, LENGTH, lambda *each: None)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:3]))
    written: list[int] = []
    write = OwnSamples._write_group

    def counted(self: OwnSamples, number: int, count: Callable[[int], None]) -> list[list[int]]:
        written.append(number)
        return write(self, number, count)

    monkeypatch.setattr(OwnSamples, "_write_group", counted)
    again = writer(source, file).read(SAMPLES, LENGTH, lambda *each: None)
    assert again.digest == whole.digest
    assert written == list(range(2, len(lines) - 1))
    # What another source or seed left is not used, and damage neither.
    for damage in ("{}\n[[1]]", "\n".join(lines)[:-9]):
        file.write_text(damage)
        assert writer(source, file).read(SAMPLES, LENGTH, lambda *each: None).digest == whole.digest


def test_command_makes_a_checkpoint_and_leaves_no_file(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "made"
    options = ["--weights", "int4", "--calibration", "self", "--samples", "4", "--length", "32"]
    options += ["--no-quality", "--dtype", "fp32", "--device", "cpu"]
    assert main(["quantize", str(source), "-o", str(output), *options]) == 0
    told = capsys.readouterr()
    assert "the source writes samples: 0 of 128 tokens" in told.err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["made"]
    assert (
        "Calibrated on 4 samples of 32 tokens: self, seed 0" in (output / "QUALITY.md").read_text()
    )


def test_what_lacks_memory_is_refused_before_the_source_writes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "made"
    options = ["--weights", "int4", "--calibration", "self", "--max-memory", "1M"]
    assert main(["quantize", str(source), "-o", str(output), *options]) == 2
    error = capsys.readouterr().err
    assert "--max-memory is 1.0 MiB" in error
    assert "writes samples" not in error
    assert not list(tmp_path.iterdir())
    with pytest.raises(OptionError, match=r"writes samples needs .*, and --max-memory is 1.0 MiB"):
        replace(writer(source, tmp_path / "a"), max_memory=1 << 20).read(1, 8, lambda *each: None)


def test_an_interrupt_while_the_source_writes_says_what_is_kept(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = OwnSamples._write_group

    def interrupted(self: OwnSamples, number: int, count: Callable[[int], None]) -> list[list[int]]:
        if number:
            raise KeyboardInterrupt
        return write(self, number, count)

    monkeypatch.setattr(OwnSamples, "_write_group", interrupted)
    options = ["--weights", "int4", "--calibration", "self", "--samples", "8", "--length", "64"]
    options += ["--no-quality", "--dtype", "fp32", "--device", "cpu"]
    assert main(["quantize", str(source), "-o", str(tmp_path / "made"), *options]) == 130
    kept = tmp_path / ".made.own-samples"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"glm4q: stopped; what the source has written is kept in {kept}; the same command goes on"
    )
    assert kept.is_file()

"""Errors and interrupts: what can be known is refused before the first layer, and no error deletes
finished layers.
"""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, TokenizerError
from calculator.model.formats import WeightFormat
from glm4q.cli import main
from quantize.export.checkpoint import export_checkpoint
from quantize.export.compressed_tensors import CompressedTensors
from quantize.output.target import JOURNAL
from quantize.parts import PartProgress
from quantize.pipeline import quantize_checkpoint
from quantize.progress import QuantizeProgress
from quantize.recipe import Recipe
from tests.glm4q.text.test_vocabulary import write_tokenizer
from tests.quantize.calibrated import token_file

INT8 = Recipe(WeightFormat(8, 32))
SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x03"
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the package bitsandbytes"
)
WAYS = ["int8", pytest.param("nf4", marks=needs_bitsandbytes)]


def options(weights: str, directory: Path) -> list[str]:
    if weights == "nf4":
        return ["--weights", "nf4"]
    more = ["--no-quality"] if weights == "int8" else ["--no-quality", "--dtype", "fp32"]
    if weights == "int4":
        more += ["--calibration", str(token_file(directory)), "--length", "64", "--samples", "8"]
    return ["--weights", weights, "--group-size", "32", *more]


def interrupt_at(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C, so to say, when a part is begun."""
    begin = QuantizeProgress.begin

    def interrupted(self: QuantizeProgress, progress: PartProgress) -> None:
        if progress.part == part:
            raise KeyboardInterrupt
        begin(self, progress)

    monkeypatch.setattr(QuantizeProgress, "begin", interrupted)


@pytest.mark.parametrize("weights", [*WAYS, "int4"])
def test_an_interrupted_command_says_where_it_goes_on_and_does(
    weights: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["quantize", str(checkpoint), "-o", str(tmp_path / "out")]
    command += options(weights, tmp_path)
    with monkeypatch.context() as patched:
        interrupt_at(2, patched)
        assert main(command) == 130
    kept = f"what is finished is kept in {tmp_path / '.out.partial'}"
    assert f"glm4q: stopped; {kept}; the same command goes on with layer 1" in (
        capsys.readouterr().err
    )
    assert main(command) == 0
    shown = capsys.readouterr().err
    assert "goes on with layer 1: an earlier run finished what is before it" in shown
    assert "layer 0" not in shown
    assert StoredModel.open(tmp_path / "out").is_quantized


def test_an_interrupt_before_anything_is_finished_keeps_nothing(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_at(0, monkeypatch)
    output = tmp_path / "made" / "out"
    assert main(["quantize", str(checkpoint), "-o", str(output), *options("int8", tmp_path)]) == 130
    assert "glm4q: stopped; nothing is finished" in capsys.readouterr().err
    assert list(output.parent.iterdir()) == []


def test_an_error_at_the_end_keeps_all_layers(checkpoint: Path, tmp_path: Path) -> None:
    stored = StoredModel.open(checkpoint)
    begun: list[PartProgress] = []

    def refuse(directory: Path, journal: object) -> None:
        raise CheckpointError("no")

    with pytest.raises(CheckpointError) as refused:
        quantize_checkpoint(stored, tmp_path / "out", INT8, finish=refuse)
    assert refused.value.__notes__ == [
        f"what is finished is kept in {tmp_path / '.out.partial'}; the same command goes on with "
        "the checks at the end"
    ]
    quantize_checkpoint(stored, tmp_path / "out", INT8, listener=begun.append)
    assert [progress.name for progress in begun] == ["the checks at the end"]
    assert not (tmp_path / "out" / JOURNAL).exists()


@pytest.mark.parametrize("weights", WAYS)
def test_a_tokenizer_that_cannot_be_converted_is_refused_before_the_first_layer(
    weights: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (checkpoint / "tokenizer.model").write_bytes(SENTENCEPIECE)
    monkeypatch.setattr(QuantizeProgress, "begin", lambda self, progress: pytest.fail("begun"))
    output = tmp_path / "made" / "out"
    command = ["quantize", str(checkpoint), "-o", str(output), *options(weights, tmp_path)]
    assert main(command) == 2
    assert str(checkpoint / "tokenizer.model") in capsys.readouterr().err
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


def test_export_refuses_such_a_tokenizer_before_the_first_weight(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize_checkpoint(StoredModel.open(checkpoint), tmp_path / "int8", INT8)
    (tmp_path / "int8" / "tokenizer.model").write_bytes(SENTENCEPIECE)
    monkeypatch.setattr("quantize.export.checkpoint.read_quantized", lambda *_: pytest.fail("read"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        export_checkpoint(
            StoredModel.open(tmp_path / "int8"), tmp_path / "out", CompressedTensors()
        )


def test_a_tokenizer_config_of_more_than_a_mebibyte_is_carried_over(
    checkpoint: Path, tmp_path: Path
) -> None:
    """GLM-4-Voice lists 16,384 audio tokens in it, and names code that is not carried over."""
    write_tokenizer(checkpoint, rows=96)
    large = {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}, "listed": "x" * (2 << 20)}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(large))
    quantize_checkpoint(StoredModel.open(checkpoint), tmp_path / "out", INT8)
    carried = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert carried == {"listed": large["listed"], "tokenizer_class": "PreTrainedTokenizerFast"}


@pytest.mark.parametrize("existing", ["file", "directory", "unwritable", "bytes"])
def test_an_output_that_cannot_be_made_is_refused_before_anything_is_read(
    existing: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    if existing == "file":
        output.write_text("mine")
    elif existing == "directory":
        output.mkdir()
    elif existing == "bytes":
        output = tmp_path / os.fsdecode(b"no text \xff")
    else:
        (tmp_path / "file").write_text("")
        output = tmp_path / "file" / "out"
    monkeypatch.setattr(
        "quantize.commands.samples.read_calibration", lambda *_, **__: pytest.fail("read")
    )
    command = ["quantize", str(checkpoint), "-o", str(output), *options("int4", tmp_path)]
    assert main([*command, "--overwrite"]) == 2
    assert f"output {output}".replace("\udcff", "?") in capsys.readouterr().err


def test_an_output_that_is_a_link_is_replaced_and_its_directory_stays(
    checkpoint: Path, tmp_path: Path
) -> None:
    quantize_checkpoint(StoredModel.open(checkpoint), tmp_path / "mine", INT8)
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    before = {each.name for each in tmp_path.iterdir()}
    quantize_checkpoint(StoredModel.open(checkpoint), tmp_path / "out", INT8, overwrite=True)
    assert {each.name for each in tmp_path.iterdir()} == before
    assert not (tmp_path / "out").is_symlink()
    assert StoredModel.open(tmp_path / "mine").is_quantized

"""What making a checkpoint costs is what `glm4q quantize` plans."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calculator.memory.making import (
    STAGE_LINEARS,
    WITH_SUMS_OF_ONE_WEIGHT,
    calibration_disk_bytes,
    estimate_memory,
)
from calculator.memory.making_cost import (
    CALIBRATION,
    CALIBRATION_SAMPLES,
    HELD_OUT_TOKENS,
    CardRates,
    making_cost,
)
from calculator.memory.settings import Settings
from calculator.model.presets import PRESETS
from calculator.questions.answer import find_answer, making_commands
from calculator.questions.variants import Fixed
from calculator.report.records import answer_record
from glm4q.cli import main
from quantize.calibrate.stages import STAGES
from tests import tiny
from tests.calculator.asking import ask


def test_the_stages_are_those_of_calibration() -> None:
    assert tuple(stage.linears for stage in STAGES) == STAGE_LINEARS
    joining = tuple(stage.linears[0] for stage in STAGES if stage.adds_to_stream)
    assert joining == WITH_SUMS_OF_ONE_WEIGHT


def test_int4_is_calibrated_and_int8_is_not() -> None:
    subject = ask(weights="int4").subject
    config, formats = subject.config, subject.formats
    plain = making_cost(formats, config, calibrated=False)
    calibrated = making_cost(formats, config, calibrated=True)
    need = estimate_memory(formats, config, CALIBRATION, held_out=HELD_OUT_TOKENS)
    assert calibrated.memory_bytes == need.total > plain.memory_bytes
    states = calibration_disk_bytes(config, samples=CALIBRATION_SAMPLES, tokens=512, number_bytes=2)
    assert calibrated.disk_bytes - plain.disk_bytes == states
    assert plain.source_bytes == calibrated.source_bytes == 2 * 9_399_951_360
    assert plain.seconds[1] < 3600 < calibrated.seconds[0] < calibrated.seconds[1]


def test_the_answer_names_the_cost() -> None:
    record = answer_record(find_answer(ask(gpu="4070"), Fixed()))
    assert record["weights"].startswith("int4")
    assert record["cost_to_make"]["memory_bytes"] > 4 << 30
    as_published = answer_record(find_answer(ask(gpu="4090", weights="bf16"), Fixed(weights=True)))
    assert as_published["cost_to_make"] is None or "int8 head" in as_published["weights"]


def test_a_card_that_holds_the_run_has_a_time_of_its_own() -> None:
    """Rounding without samples is the CPU's; a card with too little memory does not run it."""
    subject = ask(weights="int4").subject
    config, formats, rates = subject.config, subject.formats, CardRates(165e12, 82e12)
    ours = making_cost(formats, config, calibrated=True, card=rates, card_bytes=24 << 30)
    assert ours.card_seconds is not None
    least, most = ours.card_seconds
    assert 100 < least < 252 < most < 900  # an H200 took 40 x 6.3 s with a tenth of the samples
    assert most < ours.seconds[1]
    small = making_cost(formats, config, calibrated=True, card=rates, card_bytes=8 << 30)
    plain = making_cost(formats, config, calibrated=False, card=rates, card_bytes=24 << 30)
    assert small.card_seconds is plain.card_seconds is None


def test_a_head_that_is_made_of_the_embedding_is_not_read() -> None:
    subject = ask(weights="int8", lm_head="int8").subject
    tied = replace(subject.config, tie_word_embeddings=True)
    head = 2 * tied.vocab_size * tied.hidden_size
    own = making_cost(subject.formats, subject.config, calibrated=False).source_bytes
    assert making_cost(subject.formats, tied, calibrated=False).source_bytes == own - head


def test_files_that_are_here_are_not_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tiny.transformers_model(tiny.BASE)
    checkpoint = tiny.save_checkpoint(reference, tmp_path / "model")
    asked = ["--weights", "int4", "--group-size", "32", "--gpu", "4090", "--kv", "bf16"]
    assert main(["calc", str(checkpoint), *asked]) == 0
    told = capsys.readouterr().out
    assert "to make it: " in told
    assert "download" not in told
    assert main(["calc", "glm-4-9b-chat", "--gpu", "4090", "--weights", "int4"]) == 0
    assert "17.51 GiB to download" in " ".join(capsys.readouterr().out.split())


def test_a_config_alone_is_made_in_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(PRESETS["glm-4-9b-chat"].to_dict()))
    answer = find_answer(ask(str(path), gpu="4090", weights="int4"), Fixed(weights=True))
    assert making_commands(answer.question)[0].startswith(f"glm4q quantize {path.parent} -o mine-")


def test_several_users_of_one_card_are_served() -> None:
    """`glm4q chat` has one user."""
    question = ask(weights="int4", gpu="4090", settings=Settings(batch=4, context=16_384))
    assert making_commands(question)[-1] == (
        "glm4q serve glm-4-9b-chat-int4 --parallel 4 --context 16384 --kv bf16"
    )

"""What making a checkpoint costs is what `glm4q quantize` plans."""

from calculator.memory.making import (
    CALIBRATION,
    CALIBRATION_SAMPLES,
    HELD_OUT_TOKENS,
    STAGE_LINEARS,
    calibration_disk_bytes,
    estimate_memory,
    making_cost,
)
from calculator.questions.answer import find_answer
from calculator.questions.variants import Fixed
from calculator.report.records import answer_record
from quantize.calibrate.stages import STAGES
from tests.calculator.asking import ask


def test_the_stages_are_those_of_calibration() -> None:
    assert tuple(stage.linears for stage in STAGES) == STAGE_LINEARS


def test_int4_is_calibrated_and_int8_is_not() -> None:
    subject = ask(weights="int4").subject
    config, formats = subject.config, subject.formats
    plain = making_cost(formats, config, calibrated=False)
    calibrated = making_cost(formats, config, calibrated=True)
    need = estimate_memory(formats, config, CALIBRATION, held_out=HELD_OUT_TOKENS)
    assert calibrated.memory_bytes == need.total > plain.memory_bytes
    states = calibration_disk_bytes(config, samples=CALIBRATION_SAMPLES, tokens=512, number_bytes=2)
    assert calibrated.disk_bytes - plain.disk_bytes == states
    assert plain.download_bytes == calibrated.download_bytes == 2 * 9_399_951_360
    assert plain.seconds[1] < 3600 < calibrated.seconds[0] < calibrated.seconds[1]


def test_the_answer_names_the_cost() -> None:
    record = answer_record(find_answer(ask(gpu="4070"), Fixed()))
    assert record["weights"].startswith("int4")
    assert record["cost_to_make"]["memory_bytes"] > 4 << 30
    as_published = answer_record(find_answer(ask(gpu="4090", weights="bf16"), Fixed(weights=True)))
    assert as_published["cost_to_make"] is None or "int8 head" in as_published["weights"]

"""Calibration samples: where they come from, and what is refused."""

import json
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from glm4q.text.tokenizer import Tokenizer
from quantize.calibrate.samples import read_calibration
from tests.quantize.calibrated import token_file

PROSE = "The kettle sang, and nobody in the long room looked up from the map. "


@pytest.fixture
def demo(demo_checkpoint: Path) -> StoredModel:
    return StoredModel.open(demo_checkpoint)


@pytest.mark.demo
def test_built_in_set_is_text_chat_tools_and_code(demo: StoredModel) -> None:
    found = read_calibration(None, demo, samples=1000, length=128)
    text = Tokenizer.from_directory(demo.directory).decode(found.token_ids.flatten().tolist())
    assert found.token_ids.numel() > 16_000
    for part in ("user\nDo I need a coat", "get_weather", "合同", "SELECT", "def "):
        assert part in text


@pytest.mark.demo
def test_text_messages_and_ids_are_read_in_order(demo: StoredModel, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(demo.directory)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = [{"text": PROSE}, {"messages": messages}, {"token_ids": [5, 6, 7]}]
    (tmp_path / "b.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "c.bin").write_bytes(b"\xff")  # not text: not looked at
    found = read_calibration(tmp_path, demo, samples=10_000, length=1)
    ids = found.token_ids.flatten().tolist()
    prose = tokenizer.encode(PROSE)
    assert ids[: 2 * len(prose)] == prose * 2
    assert ids[-3:] == [5, 6, 7]
    rendered = tokenizer.decode(ids[2 * len(prose) : -3])
    # Decoding drops the control tokens.
    assert rendered.endswith("user\nHi\nassistant\nHello\n")


def test_seed_chooses_the_samples(tiny_checkpoint: Path, tmp_path: Path) -> None:
    stored, path = StoredModel.open(tiny_checkpoint), token_file(tmp_path, tokens=4096)

    def digest(seed: int) -> str:
        return read_calibration(path, stored, samples=8, length=32, seed=seed).digest

    assert digest(1) == digest(1) != digest(2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"token_ids": [1, 2, 3]}', "has 3 tokens, and one sample needs 32"),
        ("", r"samples\.jsonl has 0 tokens"),
        ('{"token_ids": [1, 97]}', "outside of 0 to 96"),
        ('{"token_ids": [1, -1]}', "outside of 0 to 96"),
        ('{"token_ids": [1, 2.5]}', "whole numbers as token_ids, not 2.5"),
        ("[1, 2]", "line 1, must be a JSON object"),
        ('{"token_ids": [1]}\n{', "line 2, is not JSON"),
    ],
)
def test_useless_samples_are_refused(
    content: str, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(content)
    with pytest.raises(OptionError, match=message):
        read_calibration(path, StoredModel.open(tiny_checkpoint), length=32)


def test_path_without_samples_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    stored = StoredModel.open(tiny_checkpoint)
    with pytest.raises(OptionError, match="has no file that ends in"):
        read_calibration(tmp_path, stored)
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        read_calibration(tmp_path / "missing.jsonl", stored)


def test_a_sample_is_no_longer_than_all_text(demo: StoredModel) -> None:
    with pytest.raises(OptionError, match=r"the built-in set has .* tokens, and one sample needs"):
        read_calibration(None, demo, length=2**70)

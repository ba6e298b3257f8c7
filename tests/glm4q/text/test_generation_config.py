"""The authors' sampling settings and stop tokens."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calculator.errors import ConfigError
from glm4q.decode.sampling import Sampler, SamplingParams
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from tests import tiny


def _directory(tmp_path: Path, settings: dict[str, Any]) -> Path:
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_sampling_is_the_authors(tmp_path: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "max_length": 9}
    assert read_sampling_params(_directory(tmp_path, settings)) == SamplingParams(
        temperature=0.8, top_p=0.7
    )


def test_no_sampling_is_greedy(tmp_path: Path) -> None:
    assert read_sampling_params(tmp_path).temperature == 0
    assert read_sampling_params(_directory(tmp_path, {"temperature": 0.8})).temperature == 0


def test_stop_tokens_of_all_files_count(tmp_path: Path) -> None:
    config = replace(tiny.BASE, eos_token_ids=(7, 3))
    assert read_stop_token_ids(tmp_path, config) == {3, 7}
    assert read_stop_token_ids(_directory(tmp_path, {"eos_token_id": 8}), config) == {3, 7, 8}
    assert read_stop_token_ids(_directory(tmp_path, {"eos_token_id": [1, 2]}), config) == {
        *(1, 2, 3, 7)
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 50.0}, SamplingParams(top_k=50)),
        ({"top_k": -1}, SamplingParams(top_k=0)),
        ({"temperature": None, "top_p": None, "top_k": None}, SamplingParams()),
        ({"top_k": 10**6}, SamplingParams(top_k=10**6)),
    ],
    ids=["whole float", "all", "null", "more than there are"],
)
def test_settings_as_people_write_them(
    settings: dict[str, Any], expected: SamplingParams, tmp_path: Path
) -> None:
    assert read_sampling_params(_directory(tmp_path, {"do_sample": True, **settings})) == expected


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("top_p", "x", "--top-p"),
        ("top_p", 0, "--top-p"),
        ("top_k", 1.5, "--top-k"),
        ("top_k", -2, "--top-k"),
        ("top_k", float("nan"), "--top-k"),
        ("top_k", float("inf"), "--top-k"),
        ("temperature", [1], "--temperature"),
        ("temperature", float("nan"), "--temperature"),
        ("repetition_penalty", 0.0, "--repetition-penalty"),
        ("min_p", True, "--min-p"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_option_and_the_option_wins(
    name: str, value: Any, option: str, tmp_path: Path
) -> None:
    directory = _directory(tmp_path, {"do_sample": True, name: value})
    with pytest.raises(ConfigError) as refused:
        read_sampling_params(directory)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'generation_config.json'}: {name} must be")
    assert message.endswith(f"{option} gives another")
    assert getattr(read_sampling_params(directory, {name: 1}), name) == 1


@pytest.mark.parametrize("settings", [{"do_sample": "false"}, {"eos_token_id": [2, None]}])
def test_settings_without_an_option_are_named_with_their_file(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    directory = _directory(tmp_path, settings)
    with pytest.raises(ConfigError, match=rf"generation_config\.json: {next(iter(settings))} must"):
        _read_all(directory)


def _read_all(directory: Path) -> None:
    read_sampling_params(directory)
    read_stop_token_ids(directory, tiny.BASE)


def test_a_temperature_next_to_nothing_is_greedy() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0001, -torch.inf])
    for temperature in (1e-45, 1e-40, 1e-6):
        sampler = Sampler(SamplingParams(temperature=temperature, seed=0), torch.device("cpu"))
        assert [sampler(logits).token for _ in range(8)] == [2] * 8

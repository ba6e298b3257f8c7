"""The authors' sampling settings and stop tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import BPE

from calculator.errors import Glm4qError
from glm4q.decode.sampling import SamplingParams
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from glm4q.text.tokenizer import Tokenizer
from tests import tiny


def _directory(tmp_path: Path, settings: dict[str, Any]) -> Path:
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    return tmp_path


def _tokenizer(*control: str) -> Tokenizer:
    backend = tokenizers.Tokenizer(BPE({"a": 0}, []))
    backend.add_special_tokens([*control])
    return Tokenizer(backend)


def test_sampling_is_the_authors(tmp_path: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "max_length": 9}
    assert read_sampling_params(_directory(tmp_path, settings)) == SamplingParams(
        temperature=0.8, top_p=0.7
    )


def test_no_sampling_is_greedy(tmp_path: Path) -> None:
    assert read_sampling_params(tmp_path).temperature == 0
    assert read_sampling_params(_directory(tmp_path, {"temperature": 0.8})).temperature == 0


def test_stop_tokens_of_all_places_count(tmp_path: Path) -> None:
    """GLM-4's roles end a turn even where the files forget to say so."""
    directory = _directory(tmp_path, {"eos_token_id": 7})
    tokenizer = _tokenizer("<|endoftext|>", "<|user|>", "<|observation|>")
    assert read_stop_token_ids(directory, tiny.BASE, tokenizer) == {1, 2, 3, 7}
    assert read_stop_token_ids(directory, tiny.BASE, _tokenizer("<|end|>")) == {1, 7}


@pytest.mark.parametrize(
    "settings", [{"do_sample": True, "top_p": "x"}, {"do_sample": True, "top_p": 7}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Glm4qError, match="top_p"):
        read_sampling_params(_directory(tmp_path, settings))

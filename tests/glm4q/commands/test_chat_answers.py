"""`glm4q chat --prompt`: log-probabilities in JSON, and the line about a base model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import tokenizers

from glm4q.chat.dialects import GLM4
from glm4q.cli import main


def ask(checkpoint: Path, *options: str) -> int:
    return main(["chat", str(checkpoint), "--prompt", "Hi", "--max-tokens", "3", *options])


def test_log_probabilities_stand_in_the_json(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    likeliest = ("--json", "--temperature", "0")
    assert ask(chat_checkpoint, *likeliest, "--logprobs", "2") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["logprobs"]) == answer["tokens"]["answer"] == 3
    for token in answer["logprobs"]:
        assert token["top"][0] == {"token": token["token"], "logprob": token["logprob"]}
        assert len(token["top"]) == 2
        assert sum(math.exp(each["logprob"]) for each in token["top"]) < 1
    assert ask(chat_checkpoint, *likeliest, "--logprobs", "0") == 0
    assert json.loads(capsys.readouterr().out)["logprobs"][0]["top"] == []
    assert ask(chat_checkpoint, *likeliest) == 0
    assert "logprobs" not in json.loads(capsys.readouterr().out)


def test_a_base_model_is_named_as_one(
    chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its name, or by GLM-4's control tokens without a template; based is no such name."""
    for name in ("chat", "glm-4-9b-based", "GLM-4-9B-0414-Base"):
        shutil.copytree(chat_checkpoint, tmp_path / name)
        assert ask(tmp_path / name) == 0
        note = f"{name} is a base model by its name: it was not taught to answer"
        assert (note in capsys.readouterr().err) == name.endswith("Base")
    bare = tmp_path / "chat"
    (bare / "tokenizer_config.json").unlink()
    backend = tokenizers.Tokenizer.from_file(str(bare / "tokenizer.json"))
    backend.add_special_tokens([*sorted(GLM4.control_tokens)])
    backend.save(str(bare / "tokenizer.json"))
    assert ask(bare) == 0
    assert "has no chat template, as base models have none" in capsys.readouterr().err

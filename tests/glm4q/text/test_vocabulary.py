"""A tokenizer that knows more tokens than the model has embedding rows is refused by every user."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from calculator.checkpoint.stored import StoredModel
from calculator.errors import TokenizerError
from glm4q.cli import main
from glm4q.text.tokenizer import Tokenizer
from tests import tiny

ROWS = 97


def write_tokenizer(directory: Path, *, rows: int = ROWS, added_id: int | None = None) -> None:
    """Every byte's letter that the rows leave room for, and perhaps a token with a given id."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:rows]
    vocab = {letter: place for place, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    raw = json.loads(backend.to_str())
    if added_id is not None:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        raw["added_tokens"].append({"id": added_id, "content": "<think>", **flags})
    (directory / "tokenizer.json").write_text(json.dumps(raw))


def test_the_token_the_id_and_vocab_size_are_named(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, added_id=ROWS)
    assert Tokenizer.for_model(tmp_path, replace(tiny.BASE, vocab_size=ROWS + 1))
    with pytest.raises(TokenizerError) as refused:
        Tokenizer.for_model(tmp_path, tiny.BASE)
    message = str(refused.value)
    assert f"{tmp_path / 'tokenizer.json'} gives '<think>' the id 97" in message
    assert "ids below 97 only (vocab_size in config.json)" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat", "{model}", "--prompt", "a"],
        ["quantize", "{model}", "-o", "{output}", "--weights", "int8", "--group-size", "32"],
        ["quantize", "{model}", "-o", "{output}", "--weights", "int4", "--group-size", "32"],
        ["eval", "{model}", "--text", "{text}"],
    ],
    ids=["chat", "int8", "int4", "eval"],
)
def test_commands_refuse_before_they_work(
    arguments: list[str],
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, text = tmp_path / "model", tmp_path / "text.txt"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).symlink_to(tiny_checkpoint / name)
    write_tokenizer(model, added_id=ROWS)
    text.write_text("aab" * 100)
    assert StoredModel.open(model).config.vocab_size == ROWS
    places = {"model": model, "output": tmp_path / "out", "text": text}
    assert main([word.format(**places) for word in arguments]) == 2
    shown = capsys.readouterr()
    assert "gives '<think>' the id 97" in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()

"""`glm4q chat` with --json-schema, --regex and --grammar."""

import json
import re
from pathlib import Path

import pytest

from glm4q.cli import main

SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"]}
CLOSED = json.dumps({**SCHEMA, "additionalProperties": False})


def ask(checkpoint: Path, *options: str) -> int:
    return main(["chat", str(checkpoint), "--prompt", "Hi", "--temperature", "1.5", *options])


def test_an_answer_matches_a_schema_from_the_line_or_from_a_file(
    chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.json").write_text(CLOSED)
    for schema in (CLOSED, str(tmp_path / "schema.json")):
        assert ask(chat_checkpoint, "--json-schema", schema) == 0
        assert json.loads(capsys.readouterr().out)["n"] in (1, 22)


def test_an_answer_matches_an_expression_or_a_grammar(
    chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.lark").write_text('start: word (" " word)?\nword: /[xyz]{3}/\n')
    for options, pattern in (
        (("--regex", "[ab]{5}"), "[ab]{5}\n"),
        (("--grammar", str(tmp_path / "words.lark")), "[xyz]{3}( [xyz]{3})?\n"),
    ):
        assert ask(chat_checkpoint, *options) == 0
        assert re.fullmatch(pattern, capsys.readouterr().out)


def test_a_limit_that_cuts_is_an_error_after_the_answer(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(chat_checkpoint, "--regex", "a{30}", "--max-tokens", "9") == 2
    shown = capsys.readouterr()
    assert shown.out == "a" * 9 + "\n"
    assert "max_tokens cut the answer after 9 tokens" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regex", "a", "--json-schema", "{}"), "--json-schema and --regex exclude each other"),
        (("--regex", "a", "--stop", "b"), "the stop string 'b' would cut answers"),
        (("--json-schema", '{"not": {}}'), "these keywords are not supported: not"),
        (("--json-schema", "{"), "--json-schema is not valid JSON"),
        (("--json-schema", "nowhere.json"), "--json-schema nowhere.json cannot be read"),
        (("--grammar", "nowhere.lark"), "--grammar nowhere.lark cannot be read"),
        (("--logit-bias", "1"), "--logit-bias is a token and a number, such as 98=3, not '1'"),
        (("--stop", ""), "--stop must be a string that is not empty"),
        (("--receipt", "r.json"), "--receipt goes with --verify"),
        (("--logit-bias", "288=1"), "the model has the tokens 0 to 287, not 288"),
        (("--logprobs", "2"), "--logprobs needs --json, or a conversation"),
        (("--logprobs", "-1", "--json"), "log_probabilities must be 0 or more, not -1"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: tuple[str, ...],
    message: str,
    chat_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(chat_checkpoint, *options) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_bias_decides_between_answers(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint's token 64 is the letter a, 65 is b."""
    for token, letter in ((64, "a"), (65, "b")):
        assert ask(chat_checkpoint, "--regex", "[ab]{4}", "--logit-bias", f"{token}=100") == 0
        assert capsys.readouterr().out == letter * 4 + "\n"

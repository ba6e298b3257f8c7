"""Calibration files as people have them: each is read as what it is, or refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from calculator.errors import OptionError
from quantize.calibrate.conversations import Conversation, for_glm4
from quantize.calibrate.documents import read_documents

USER, ASSISTANT = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CHAT = Conversation((USER, ASSISTANT))
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
SHARE_GPT = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
PARTS = [{"type": "text", "text": "Q"}]


def contents(path: Path, text: str | bytes) -> list[Any]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [document.content for document in read_documents(path)]


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ({"messages": [USER, ASSISTANT]}, CHAT),
        ([USER, ASSISTANT], CHAT),
        (
            {"messages": [{"role": "user", "content": PARTS}, ASSISTANT], "tools": [TOOL]},
            Conversation((USER, ASSISTANT), (TOOL,)),
        ),
        (SHARE_GPT, CHAT),
        (
            {**SHARE_GPT, "system": "S", "tools": json.dumps([TOOL])},
            Conversation(({"role": "system", "content": "S"}, USER, ASSISTANT), (TOOL,)),
        ),
        ({"instruction": "Q", "input": "", "output": "A"}, CHAT),
        (
            {"instruction": "Q", "input": "I", "output": "A", "history": [["Q", "A"]]},
            Conversation((USER, ASSISTANT, {"role": "user", "content": "Q\nI"}, ASSISTANT)),
        ),
        ({"prompt": "Once ", "completion": "upon"}, "Once upon"),
        ({"text": "\u2028prose"}, "\u2028prose"),
        ({"token_ids": [1, 2]}, [1, 2]),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_formats_of_fine_tuning_data(value: Any, content: Any, tmp_path: Path) -> None:
    line = json.dumps(value, ensure_ascii=False)
    assert contents(tmp_path / "a.jsonl", f"\n{line}\r\n{line}\n") == [content] * 2
    assert contents(tmp_path / "b.json", json.dumps([value, value], indent=1)) == [content] * 2
    assert contents(tmp_path / "c.json", json.dumps(value)) == [content]
    assert contents(tmp_path / "d.json", f"{line}\n{line}") == [content] * 2


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert contents(tmp_path / "a.txt", b"\xef\xbb\xbfprose") == ["prose"]
    assert contents(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "prose"}') == ["prose"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", json.dumps([SHARE_GPT]), "a.txt holds JSON: let its name end in .json"),
        ("a.md", '{"text": "a"}\n{"text": "b"}', "a.md holds JSON"),
        ("a.txt", b"one\ntwo \xb4\xba", "a.txt, line 2, is not UTF-8 text: byte 0xb4"),
        ("a.json", "[1,\n2", "a.json, line 2, is not JSON"),
        ("a.json", "[[1]]", r"a.json, item 1, must be a JSON object or a list of messages"),
        ("a.jsonl", '{"text": "a"}\n{', "a.jsonl, line 2, is not JSON"),
        ("a.jsonl", '{"text": "a"}\n7', "a.jsonl, line 2, must be a JSON object"),
        ("a.jsonl", '{"content": "a"}', "a.jsonl, line 1, must have messages.*it has content"),
        ("a.jsonl", '{"messages": "hi"}', "line 1, must have a list of objects as messages"),
        ("a.jsonl", '{"messages": [{"content": "hi"}]}', "line 1, must have a role"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": 7}]}', "line 1, must have text"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "must have text in each message, and one"),
        ("a.jsonl", '{"text": null}', "line 1, must have text as text, not null"),
        ("a.jsonl", '{"token_ids": [1, 2.5]}', "must have whole numbers as token_ids, not 2.5"),
        ("a.jsonl", "null", "line 1, must be a JSON object or a list of messages, not null"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "line 1, must have text alone in the parts",
        ),
        ("a.jsonl", '{"conversations": [{"from": "bot", "value": ""}]}', "line 1, must have from"),
        ("a.jsonl", '{"conversations": [{"from": "human"}]}', "line 1, must have a text as value"),
        ("a.jsonl", '{"instruction": 1, "output": "a"}', "line 1, must have text as instruction"),
        ("a.jsonl", '{"messages": [], "tools": "{"}', "line 1, must have JSON as tools"),
    ],
)
def test_what_is_not_understood_is_refused_by_file_and_line(
    name: str, text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        contents(tmp_path / name, text)


def test_glm4_gets_calls_and_results_in_its_own_roles() -> None:
    messages = (
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
        ASSISTANT,
    )
    assert list(for_glm4(messages)) == [
        {"role": "assistant", "metadata": "weather", "content": '{"a": 1}'},
        {"role": "observation", "content": "rain"},
        ASSISTANT,
    ]
    with pytest.raises(OptionError, match="a function with a name"):
        list(for_glm4(({"role": "assistant", "tool_calls": [{}]},)))

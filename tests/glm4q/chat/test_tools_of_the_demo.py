"""A trained model calls a real tool because its grammar says so, reads the result, and answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from glm4q import LLM, SamplingParams
from glm4q.cli import main
from glm4q.tools.calls import ToolCall

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou are a helpful assistant. You can call these functions:\n"
    "{% for tool in tools %}{{ tool.function | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages if not message.tool_calls %}"
    "<|im_start|>{{ 'system' if message.role == 'tool' else message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The model's own template takes no tools. With this one it reads what a call gave, and not the
call: a model of this size would write whatever it reads again and again.
"""
TOOLS = '''
from pathlib import Path
from typing import Literal


def open_hours(place: Literal["library", "museum", "swimming pool"]) -> str:
    """When a place is open today."""
    Path("asked.txt").write_text(place)
    return f"The {place} is open from 7:45 to 19:20 today."
'''
QUESTION = "When is the museum open today?"


@pytest.fixture(scope="module")
def checkpoint(
    quantized_demo: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo model with a template that takes tools."""
    directory = tmp_path_factory.mktemp("tools") / "demo"
    directory.mkdir()
    for file in quantized_demo(8).iterdir():
        (directory / file.name).symlink_to(file)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


@pytest.mark.demo
def test_a_required_call_runs_and_its_result_is_in_the_answer(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tools.py").write_text(TOOLS)
    options = ["--tools", "tools.py", "--yes-tools", "open_hours", "--tool-choice", "required"]
    options += ["--temperature", "0", "--max-tokens", "60", "--context", "1k", "--device", "cpu"]
    assert main(["chat", str(checkpoint), "--prompt", QUESTION, "--json", *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    (call,) = answer["tool_calls"]
    assert call["name"] == "open_hours"
    place = call["arguments"]["place"]
    assert place in ("library", "museum", "swimming pool")
    assert Path("asked.txt").read_text() == place  # the tool has run
    assert call["result"] == f"The {place} is open from 7:45 to 19:20 today."
    assert "7:45" in answer["text"]  # which the model knows from nowhere else
    assert answer["tokens"]["cached"] > 0  # tools and question are read once


@pytest.mark.demo
def test_what_the_model_calls_with_is_valid_at_any_temperature(checkpoint: Path) -> None:
    """By the Python API, at a temperature at which the model would write anything."""
    asked: list[tuple[int, str]] = []

    def add_note(
        day: Annotated[int, pydantic.Field(ge=1, le=31)],
        text: Annotated[str, pydantic.Field(max_length=20)],
    ) -> str:
        """Write a note into the calendar."""
        asked.append((day, text))
        return "noted"

    llm = LLM.load(checkpoint, device="cpu", context=1024)
    never_ends = dict.fromkeys(llm.stop_token_ids, -100.0)
    params = SamplingParams(temperature=1.5, max_tokens=80, logit_bias=never_ends)
    question = "Remind me to buy bread on the 5th."
    answer = llm.chat(question, params, tools=[add_note], tool_choice="add_note")
    first = answer.results[0].call
    assert isinstance(first, ToolCall)
    assert asked[0] == (first.arguments["day"], first.arguments["text"])
    assert answer.results[0].text == "noted"
    assert answer.messages[-1]["role"] == "assistant"

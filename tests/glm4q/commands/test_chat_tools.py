"""The tool options of `glm4q chat`, refused before anything is loaded."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from glm4q.cli import main
from tests.paths import ROOT

TOOLS = '''
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"
'''


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    path = tmp_path / "tools.py"
    path.write_text(TOOLS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tools", "nowhere.py"], "there is no such file"),
        (["--think", "loudly"], "--think must be show or hide, not 'loudly'"),
        (["--dialect", "glm5"], "--dialect must be chatglm3, glm-4,"),
        (["--tool", "perl"], "--tool must be python or browser, not 'perl'"),
        (["--tools", "TOOLS", "--yes-tools", "climate"], "the tools are weather"),
        (["--yes-tools", "python"], "--tools FILE.py, --mcp or --tool python offers some"),
        (["--search-url", "http://x"], "--search-url is for --tool browser"),
        (["--tool", "browser", "--search-url", "x"], "--search-url must begin with http://"),
        (["--mcp", "nowhere-to-be-found"], "--mcp nowhere-to-be-found: the server cannot be used"),
        (["--mcp", "'"], "the command cannot be read"),
        (["--mcp", "false"], "--mcp false: the server cannot be used: Connection closed"),
        (["--mcp", "http://127.0.0.1:9/mcp"], "the server cannot be used: All connection"),
        (["--tool-choice", "required"], "a call is required, and no tool is offered"),
        (["--tools", "TOOLS", "--tool-choice", "sun"], "one of auto, required, weather, not sun"),
        (["--tools", "TOOLS", "--tools", "TOOLS"], "two tools are called weather"),
    ],
)
def test_wrong_tools_are_one_line(
    chat_checkpoint: Path,
    tools: Path,
    options: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [str(tools) if option == "TOOLS" else option for option in options]
    assert main(["chat", str(chat_checkpoint), "--prompt", "hi", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_a_template_without_tools_is_refused_before_anything_is_loaded(
    chat_checkpoint: Path,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = tmp_path / "plain"
    shutil.copytree(chat_checkpoint, checkpoint)
    (checkpoint / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    monkeypatch.setattr("glm4q.commands.chat.load", pytest.fail)
    assert main(["chat", str(checkpoint), "--prompt", "hi", "--tools", str(tools)]) == 2
    assert "plain: this chat template takes no tools; --dialect" in capsys.readouterr().err


def test_question_with_tools_is_answered(
    chat_checkpoint: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["--prompt", "Weather?", "--max-tokens", "4", "--seed", "1"]
    options = ["--tools", str(tools), "--yes-tools", "weather", "--think", "hide"]
    assert main(["chat", str(chat_checkpoint), *question, *options]) == 0
    assert capsys.readouterr().out


def test_a_tool_whose_parameters_no_grammar_follows_is_named_and_can_be_called(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ROOT / "tests" / "glm4q" / "tools" / "paged_mcp_server.py"
    options = ["--mcp", shlex.join([sys.executable, str(server), "2", "1"])]
    assert (
        main(["chat", str(chat_checkpoint), *options, "--prompt", "Hi", "--max-tokens", "2"]) == 0
    )
    notes = [line for line in capsys.readouterr().err.splitlines() if "tool_" in line]
    assert len(notes) == 1
    assert notes[0].startswith("glm4q: the parameters of the tool tool_0: ")
    assert notes[0].endswith("not supported: not; its calls are checked only when they run")

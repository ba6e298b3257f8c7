"""`glm4q chat` as a user runs it: pipes, one shot, a terminal session, and refusals."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glm4q.cli import main
from glm4q.kernels.cpu import extension

pytestmark = pytest.mark.demo
QUESTION = "What is the capital of France?"


def _command(*arguments: object) -> list[str]:
    code = "import sys; from glm4q.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_greedy_int8_answer_names_paris(
    quantized_demo: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", str(quantized_demo(8)), "--prompt", QUESTION]) == 0
    assert "Paris" in capsys.readouterr().out


def test_pipe_gets_the_answer_and_nothing_else(quantized_demo: Callable[[int], Path]) -> None:
    ran = subprocess.run(
        _command("chat", quantized_demo(8), "--max-tokens", 7),
        input=QUESTION,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "The capital of France is Paris.\n"
    assert ran.stderr == ""


def test_without_the_extension_one_line_says_that_answers_are_slow(
    quantized_demo: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extension, "_native", None)
    question = ["--prompt", QUESTION, "--max-tokens", "1"]
    assert main(["chat", str(quantized_demo(8)), *question]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "slower" in line]
    assert "C++ compiler" in line


def test_guesses_leave_the_answer_as_it_is(
    demo_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["--prompt", f"Say this twice: {QUESTION}", "--max-tokens", "24", "--dtype", "fp32"]
    answers = []
    for draft in (0, 4):
        assert main(["chat", str(demo_checkpoint), *question, "--draft", str(draft)]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


def test_terminal_session(quantized_demo: Callable[[int], Path]) -> None:
    """A dumb terminal gets plain lines: a question, commands, an unknown one, and the end."""
    typed = [QUESTION, "/help", "/nonsense", "/system Answer in French.", "/reset", "/exit"]
    shown = _in_terminal(_command("chat", quantized_demo(8), "--max-tokens", 20), typed)
    assert "The capital of France is Paris." in shown
    assert "tokens/s" in shown
    assert "context 44 of 8,192" in shown
    assert "forget the conversation" in shown
    assert "/nonsense is not a command" in shown
    assert shown.count("The conversation is forgotten.") == 2
    assert "Traceback" not in shown


def _in_terminal(command: list[str], lines: list[str]) -> str:
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    os.write(master, "".join(f"{line}\n" for line in lines).encode())
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait(timeout=60) == 0
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--context", "9k"], "context 9216 is longer than the model's 8192 positions"),
        (["--context", "many"], "8192, 128k or 1m"),
        (["--context", "0"], "context must be 1 to 1000000000, not 0"),
        (["--device", "tpu"], "device must be auto, cuda or cpu, not tpu"),
        (["--dtype", "fp16"], "dtype must be auto, bf16 or fp32, not fp16"),
        (["--kernel", "marlin"], "kernel must be one of"),
        (["--top-p", "2"], "top_p must be above 0 and at most 1, not 2.0"),
        (["--temperature", "warm"], "--temperature"),
        (["--prompt", " "], "the question is empty"),
        (["--prefill-chunk", "0"], "prefill_chunk must be 1 to"),
        (["--draft", "99"], "draft_tokens must be 0 to 7, not 99"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str],
    message: str,
    demo_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["chat", str(demo_checkpoint), "--prompt", QUESTION, *options]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""

"""Encodings, piped questions, interrupts: what stands between a command and its terminal."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from calculator.errors import OptionError
from glm4q.commands.process.streams import read_question
from glm4q.terminal.screen.answer import AnswerWriter
from glm4q.terminal.screen.console import Console

HIDE_CURSOR = "\x1b[?25l"


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1"])
def test_what_an_encoding_lacks_is_replaced(encoding: str) -> None:
    """In a help text's frame, in a table, and in text that a model wrote."""
    code = (
        "from glm4q.cli import main\n"
        "codes = [main(['--help']), main(['calc', '--chart']), main(['calc', 'no\\U0001f600'])]\n"
        "print('answer \\U0001f600', codes)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert ran.stdout.decode(encoding).splitlines()[-1] == "answer ? [0, 0, 2]"
    assert b"no?" in ran.stderr
    assert b"Traceback" not in ran.stderr


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    """Standard input from a file, decoded as the command line decodes it."""
    (tmp_path / "input").write_bytes(b"")
    with (tmp_path / "input").open(encoding="utf-8", errors="surrogateescape") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield stream


@pytest.mark.parametrize(
    ("prompt", "content", "question"),
    [
        ("What is this?", b"a = 1\n", "What is this?\n\na = 1\n"),
        ("What is this?", b"", "What is this?"),
        (None, b"a = 1\n", "a = 1\n"),
        ("What is this?", b" \n", "What is this?"),
    ],
    ids=["both", "empty file", "file", "blank file"],
)
def test_a_file_stands_below_the_question(
    prompt: str | None, content: bytes, question: str, stdin: io.TextIOWrapper
) -> None:
    Path(stdin.name).write_bytes(content)
    assert read_question(prompt) == question


def test_a_pipe_is_joined_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a = 1")
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert read_question("What is this?") == "What is this?\n\na = 1"


def test_a_device_that_may_stay_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", encoding="utf-8") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        assert read_question("What is this?") == "What is this?"


@pytest.mark.parametrize(
    ("prompt", "content", "message"),
    [
        (None, b"", "standard input has no text"),
        (" ", b"\n", "--prompt has no text"),
        ("What?", b"ab\x81", "standard input is not utf-8 text: byte 0x81 at character 3"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(
    prompt: str | None, content: bytes, message: str, stdin: io.TextIOWrapper
) -> None:
    Path(stdin.name).write_bytes(content)
    with pytest.raises(OptionError, match=message):
        read_question(prompt)


def test_streams_may_be_closed(chat_checkpoint: Path, tmp_path: Path) -> None:
    """As services close them. What is opened next must not become a standard stream."""
    answer = tmp_path / "answer"
    code = (
        "import os, sys; from glm4q.cli import main;"
        f"code = main(sys.argv[1:]); made = os.open({str(answer)!r}, os.O_CREAT | os.O_WRONLY);"
        "os.write(made, str((code, made > 2)).encode())"
    )
    closed = f'exec "{sys.executable}" -c "$0" "$@" <&- >&- 2>&-'
    words = ["chat", str(chat_checkpoint), "--prompt", "Hi", "--max-tokens", "2", "--device", "cpu"]
    subprocess.run(["sh", "-c", closed, code, *words], check=True, timeout=60)
    assert answer.read_text() == "(0, True)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_modules_are_imported_ends_the_process(
    number: signal.Signals, tmp_path: Path
) -> None:
    """A module that swallows KeyboardInterrupt, as imports of extensions do at times."""
    (tmp_path / "torch.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    print('lost', flush=True)\n"
    )
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import sys; from glm4q.__main__ import run; sys.exit(run())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "chat", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert (rest, errors) == ("", "")


def test_an_interrupt_while_python_ends_leaves_no_traceback() -> None:
    """torch cleans up for some tenths of a second after a command is done: Ctrl-C came there."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    late = "import atexit, os; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    code = f"{heard}; {late}; import sys; from glm4q.__main__ import run; sys.exit(run())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.startswith("glm4q ")
    assert (ran.returncode, ran.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_unwinds_a_command(number: signal.Signals) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from glm4q.commands.process.signals import unwind_on_stops\n"
        "unwind_on_stops()\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "finally:\n    print('unwound', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert (rest, process.returncode) == ("unwound\n", 128 + number)


def test_a_warning_is_shown_once() -> None:
    """`glm4q chat` opens a checkpoint to refuse a wrong one early, and again to load it."""
    code = (
        "import logging\n"
        "from glm4q.commands.process.streams import each_warning_once\n"
        "with each_warning_once():\n"
        "    for name in ('a', 'a', 'b'):\n"
        "        logging.getLogger(__name__).warning('%s is not read', name)\n"
        "logging.getLogger(__name__).warning('%s is not read', 'a')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines() == ["a is not read", "b is not read", "a is not read"]


def test_nothing_hides_the_cursor() -> None:
    """A process that is killed could not show it again."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True)
    with console.status("loading"), closing(AnswerWriter(console)) as writer:
        writer.write("some *text*")
    assert "text" in shown.getvalue()
    assert HIDE_CURSOR not in shown.getvalue()


def test_a_width_of_nothing_hides_nothing() -> None:
    """Some shells set COLUMNS=0, with which rich prints no letter."""
    shown = subprocess.run(
        [sys.executable, "-m", "glm4q", "calc", "--list-gpus", "4060"],
        env={**os.environ, "COLUMNS": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "RTX 4060 Ti 16GB" in shown.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_on_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "glm4q", "calc", "--list-gpus", "4060"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2
    assert ended.stderr == "glm4q: the output cannot be written: No space left on device\n"

"""Record docs/transcript.md: `make transcript`, which names the checkpoint of the demo model.

A real chat runs in a pseudo-terminal, keys are typed into it, and what stands on its screen is
written down.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.glm4q.terminal.pseudo_terminal import PseudoTerminal
from tests.paths import ROOT

PAGE = ROOT / "docs" / "transcript.md"
COLUMNS = 96
MODEL = "demo-int8"
OPTIONS = ("--device", "cpu", "--context", "1k", "--kv", "int8", "--max-tokens", "40")
SAMPLING = ("--temperature", "0", "--seed", "1")
NOTES = "The meeting is on Tuesday at ten. Bring the plan of the bridge.\n"
BOOK = "It was a dark and stormy night. " * 130
PROMPT = "\n>"
STEPS = (
    "/help",
    "What is the capital of France?",
    "/stats",
    "When is the meeting? @notes.txt",
    "/edit What do I bring to the meeting? @notes.txt",
    "/branch italy",
    "What is the capital of Italy?",
    "/branch main",
    "/branch",
    '"""\rWrite one line about the sea.\rWrite one line about the wind.\r"""',
    "/retry",
    "/save letters",
    "/set temperature 0.3",
    "/set top_p 9",
    "What is this about? @book.txt",
    "/drop 1",
    "/kv int8 8k",
    "/undo",
    "/show",
    "/raw",
    "/etc",
)
"""What is typed, each with Enter."""

INTRODUCTION = f"""# A conversation

What a person sees who types into `glm4q chat`: the screen of a pseudo-terminal of {COLUMNS}
columns, without its colours. `make transcript` records it with the demo model, whose 135 million
parameters know little; a test types the same keys and compares all but answers and figures.
[chat.md](chat.md) says what each command does.
"""


def record(checkpoint: Path, place: Path, options: Sequence[str] = ()) -> str:
    """Return the command and its screen. place: an empty directory."""
    (place / MODEL).symlink_to(checkpoint.resolve())
    (place / "notes.txt").write_text(NOTES)
    (place / "book.txt").write_text(BOOK)
    command = ("chat", MODEL, *OPTIONS, *SAMPLING)
    chat = PseudoTerminal(
        [sys.executable, "-m", "glm4q", *command, *options],
        columns=COLUMNS,
        cwd=place,
        XDG_STATE_HOME=str(place / "state"),
        XDG_CACHE_HOME=str(place / "cache"),
        XDG_CONFIG_HOME=str(place / "config"),
        PYTHONPATH=str(ROOT),
    )
    chat.wait_until(_waits_for_keys, "a prompt")
    for step in STEPS:
        before = chat.screen().count(PROMPT)
        chat.type(f"{step}\r")
        _wait(chat, before + 1, step)
    chat.type("/bye\r")
    assert chat.end() == 0
    return f"$ glm4q {' '.join(command)}\n" + "\n".join(_lines(chat.screen())) + "\n"


def _wait(chat: PseudoTerminal, prompts: int, step: str) -> None:
    """Wait for the prompt after a step, of which more stand on the screen then."""
    chat.wait_until(
        lambda screen: screen.count(PROMPT) >= prompts and _waits_for_keys(screen),
        f"a prompt after {step!r}",
    )


def _lines(screen: str) -> list[str]:
    return screen.rstrip().split("\n")


def _waits_for_keys(screen: str) -> bool:
    """Whether an empty prompt stands above the footer."""
    *_, prompt, footer = ["", "", *(line for line in _lines(screen) if line)]
    return prompt == ">" and footer.startswith(" context ")


def structure(transcript: str) -> list[str]:
    """Return what was typed and what the program said to it, without answers and figures.

    The breaks of lines go as well: they come from the lengths of figures.
    """
    entries = re.split(r"^(?=> )", transcript, flags=re.M)
    return [_without_figures(_without_answer(entry)) for entry in entries]


def _without_answer(entry: str) -> str:
    """Keep an entry's own lines and what follows the figures of its answer, if it has one."""
    lines = entry.splitlines()
    ends = [number for number, line in enumerate(lines) if " first after " in line]
    if not ends or entry.startswith("> /stats"):
        return entry
    typed = [line for line in lines[: ends[0]] if line.startswith((">", ". ")) or FILE in line]
    return "\n".join([*typed, "ANSWER", *lines[ends[0] + 1 :]])


FILE = ".txt: "
"""Stands in the line that counts the tokens of a file."""


def _without_figures(text: str) -> str:
    text = re.sub(r"\d[\d,.]*", "0", text)
    text = re.sub(r"logit_bias \S+", "logit_bias none,", text)
    text = re.sub(r"\b(KiB|MiB|GiB)\b", "B", text)
    text = re.sub(r"ended by +\w+", "ended by REASON", text)
    text = text.replace("0 tokens", "0 token").replace("0 characters", "0 character")
    return "".join(text.split())


def page(transcript: str) -> str:
    """Write the page."""
    return f"{INTRODUCTION}\n```text\n{transcript}```\n"


def main() -> None:
    (checkpoint,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        PAGE.write_text(page(record(Path(checkpoint), Path(directory))), encoding="utf-8")


if __name__ == "__main__":
    main()

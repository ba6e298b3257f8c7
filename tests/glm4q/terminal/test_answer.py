"""An answer on a screen: all of it is there, words stay whole, and nothing moves the cursor."""

import io
import time

import pytest
from rich.console import Console

from glm4q.terminal.screen.answer import AnswerWriter

PROSE = "The quick brown fox jumps over the lazy dog and looks for its **friend** there. " * 3
CODE = "```python\nvalue = some_function(argument_one, argument_two, argument_three)\n```\n"


def shown(
    text: str, *, size: int = 3, width: int = 40, terminal: bool = True, raw: bool = False
) -> str:
    """What is written to a console of that width, without colours."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, no_color=True, color_system=None
    )
    writer = AnswerWriter(console, raw=raw)
    for place in range(0, len(text), size):
        writer.write(text[place : place + size])
    writer.close()
    return file.getvalue()


def test_prose_wraps_between_words() -> None:
    lines = shown(PROSE).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines).split()) == PROSE.strip()


def test_code_is_verbatim() -> None:
    assert shown(CODE) == CODE


def test_wide_characters_wrap_anywhere() -> None:
    text = "模型在显卡上运行" * 8
    lines = shown(text, width=20).splitlines()
    assert "".join(lines) == text
    assert {len(line) for line in lines} <= {10, 4}


@pytest.mark.parametrize("options", [{"terminal": False}, {"raw": True}])
def test_a_pipe_and_raw_output_are_the_answer_itself(options: dict[str, bool]) -> None:
    assert shown(PROSE + "\n\n" + CODE, **options) == PROSE + "\n\n" + CODE


def test_a_model_cannot_command_the_terminal() -> None:
    assert shown("a\x1b[2Jb\x9bc\r") == "a\u241b[2Jb\ufffdc\u240d\n"


def test_nothing_moves_or_hides_the_cursor() -> None:
    file = io.StringIO()
    console = Console(file=file, width=40, force_terminal=True, color_system="truecolor")
    writer = AnswerWriter(console)
    writer.think("Hm.")
    writer.end_thinking()
    for character in PROSE + "\n" + CODE:
        writer.write(character)
    writer.close()
    commands = {part[: part.index("m") + 1] for part in file.getvalue().split("\x1b[")[1:]}
    assert all(command.replace(";", "").rstrip("m").isdigit() for command in commands)


def test_a_token_costs_the_same_late_in_a_long_block() -> None:
    """The last of 3,000 lines of code takes no longer than the first, but for noise."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    writer = AnswerWriter(console)
    writer.write("```\n")

    def seconds(lines: int) -> float:
        begun = time.process_time()
        for _ in range(lines):
            writer.write("x = 1\n")
        return time.process_time() - begun

    early = min(seconds(100) for _ in range(5))
    seconds(2000)
    assert min(seconds(100) for _ in range(5)) < 5 * early

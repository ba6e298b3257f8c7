"""Streamed Markdown: finished blocks are those that later text cannot change."""

import io

import pytest
from rich.console import Console

from glm4q.terminal.markdown import MarkdownStream, finished_blocks

ANSWER = """# Title

A paragraph with **bold** words.

- one
- two

  still two

- three

```python
x = 1

y = 2
```

The end.
"""


def _rendered(pieces: list[str]) -> str:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    with MarkdownStream(console) as stream:
        for piece in pieces:
            stream.write(piece)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


@pytest.mark.parametrize("size", [1, 3, 17, 1000])
def test_any_split_renders_the_same(size: int) -> None:
    pieces = [ANSWER[place : place + size] for place in range(0, len(ANSWER), size)]
    assert _rendered(pieces) == _rendered([ANSWER])


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one\n\ntwo", ""),
        ("one\n\ntwo\n", "one\n\n"),
        ("one\n\ntwo\n\nthree\n", "one\n\ntwo\n\n"),
        ("- a\n\n- b\n", ""),
        ("- a\n\n  more\n", ""),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nend\n", "```\na\n\nb\n```\n\n"),
        ("~~~\n```\n\nx\n", ""),
    ],
)
def test_finished_blocks(text: str, finished: str) -> None:
    assert text[: finished_blocks(text)] == finished


def test_everything_is_shown_once() -> None:
    shown = _rendered(list(ANSWER))
    for word in ("Title", "bold", "three", "x = 1", "y = 2", "The end."):
        assert shown.count(word) == 1

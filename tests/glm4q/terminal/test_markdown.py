"""Styles of streamed Markdown: no character is lost or moved, however the stream is cut."""

from hypothesis import given
from hypothesis import strategies as st

from glm4q.terminal.screen.markdown import (
    CODE,
    EMPHASIS,
    HEADING,
    MARK,
    STRONG,
    MarkdownStyler,
    Span,
)

ANSWER = """# Title

A **bold** word, *one* more, `co*de`, 2*3*4, __init__, snake_case, List<String>, <div>, \\*x\\*.

- item *x*
12. twelve
> quote
---
```python
# no heading
x = 1 ** 2
```
~~~
```
~~~
***both*** and **open
end
"""


def characters(pieces: list[str]) -> list[tuple[str, str]]:
    """Each character with its style."""
    styler = MarkdownStyler()
    spans: list[Span] = [span for piece in pieces for span in styler.feed(piece)]
    return [(character, span.style) for span in spans + styler.finish() for character in span.text]


def styles(text: str, part: str) -> set[str]:
    """The styles of a part of the text."""
    place = text.index(part)
    return {style for _, style in characters([text])[place : place + len(part)]}


def test_every_character_stays() -> None:
    assert "".join(character for character, _ in characters([ANSWER])) == ANSWER


def test_a_cut_changes_no_style() -> None:
    whole = characters([ANSWER])
    assert characters([*ANSWER]) == whole
    for place in range(1, len(ANSWER), 7):
        assert characters([ANSWER[:place], ANSWER[place:]]) == whole


@given(st.text(alphabet="ab \n#*_`~->1.\\|", max_size=80), st.integers(0, 80))
def test_any_text_stays_and_no_cut_changes_it(text: str, place: int) -> None:
    whole = characters([text])
    assert "".join(character for character, _ in whole) == text
    assert characters([text[:place], text[place:]]) == whole
    assert characters([*text]) == whole


def test_styles_are_those_of_markdown() -> None:
    assert styles(ANSWER, " Title") == {HEADING}
    assert styles(ANSWER, "bold") == {STRONG}
    assert styles(ANSWER, "one") == {EMPHASIS}
    assert styles(ANSWER, "**bold"[:2]) == {MARK}
    assert styles(ANSWER, "co*de") == {CODE}
    assert styles(ANSWER, "# no heading\nx = 1 ** 2") == {CODE, ""}
    assert styles(ANSWER, "```python") == {MARK}
    assert styles(ANSWER, "both") == {f"{STRONG} {EMPHASIS}"}


def test_arithmetic_and_names_have_no_style() -> None:
    for part in ("2*3*4", "snake_case", "List<String>, <div>", "\\*x\\*"):
        assert styles(ANSWER, part) == {""}


def test_what_is_left_open_ends_with_its_line() -> None:
    assert styles(ANSWER, "open") == {STRONG}
    assert styles(ANSWER, "end\n") == {""}


def test_text_waits_for_one_character_at_most() -> None:
    styler = MarkdownStyler()
    assert styler.feed("Hello") == [Span("Hello")]
    assert styler.feed(" wor") == [Span(" wor")]
    assert styler.feed("*") == []
    assert styler.feed(" ") == [Span("*"), Span(" ")]

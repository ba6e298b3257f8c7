"""Golden screens: what owners of cards ask, at 80 and 120 columns."""

import pytest

from tests.golden.write_screens import FOLDER, QUESTIONS, WIDTHS, screen


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_screen(name: str, width: int) -> None:
    golden = (FOLDER / f"{name}-{width}.txt").read_text()
    assert screen(QUESTIONS[name], width) == golden
    _, *lines = golden.splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_word_is_broken_at_80_columns(name: str) -> None:
    """Every word of the narrow screen stands in the wide one."""
    narrow, wide = ((FOLDER / f"{name}-{width}.txt").read_text().split() for width in (80, 120))
    assert set(narrow) <= set(wide)

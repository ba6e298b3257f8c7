"""Columns of plain text."""

from glm4q.terminal.screen.table import table_lines


def test_nothing_is_cut_off_and_columns_begin_at_one_place() -> None:
    rows = [("name", "tokens", "model"), ("n" * 90, "7", "模型"), ("模型", "12,345", "x")]
    lines = list(table_lines(rows, right=(1,)))
    assert lines == [
        f"name{' ' * 86}  tokens  model",
        f"{'n' * 90}       7  模型",
        f"模型{' ' * 86}  12,345  x",  # each of these letters takes two columns
    ]


def test_a_name_on_disk_cannot_break_a_row() -> None:
    (line,) = table_lines([("book", "models\nglm\x1b[2J")])
    assert line == "book  models\N{REPLACEMENT CHARACTER}glm\N{REPLACEMENT CHARACTER}[2J"

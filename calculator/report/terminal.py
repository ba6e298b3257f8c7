"""Sheets on a terminal, coloured where it has colours."""

from rich.table import Table
from rich.text import Text

from calculator.report.sheets import MARKS, Sheet

STYLES = {"fits": "green", "tight": "yellow", "no": "red"}
MARK_STYLES = {MARKS["tight"]: STYLES["tight"], MARKS["no"]: STYLES["no"]}


def sheet_as_table(sheet: Sheet, *, marked: bool = False) -> Table:
    """A rich table without its title; `marked` numbers are coloured by their first letter."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in sheet.columns:
        table.add_column(
            Text(column), justify="right" if column in sheet.right else "left", overflow="fold"
        )
    first_total = len(sheet.rows) - sheet.totals
    for number, row in enumerate(sheet.rows):
        cells = [Text(cell, style=_style(cell, marked and column in sheet.right))
                 for column, cell in zip(sheet.columns, row, strict=True)]  # fmt: skip
        table.add_row(*cells, style="bold" if number >= first_total else None)
    return table


def _style(cell: str, marked: bool) -> str:
    if marked:
        return MARK_STYLES.get(cell[:1], STYLES["fits"])
    return STYLES.get(cell, "")

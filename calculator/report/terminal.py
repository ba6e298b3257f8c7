"""Sheets and sentences on a terminal, coloured where it has colours, as wide as it is."""

import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calculator.report.headline import VERDICTS, Headline
from calculator.report.sheets import MARKS, Sheet

STYLES = {"fits": "green", "tight": "yellow", "no": "red", "does not fit": "red"}
MARK_STYLES = {MARKS["tight"]: STYLES["tight"], MARKS["no"]: STYLES["no"]}
WIDE = 1000
"""Columns of a file or pipe, where nothing should wrap."""
GAP = 2
"""Spaces between two columns."""
LONGEST_WORD = 40
"""A longer name, of a directory perhaps, may be broken."""


def make_console() -> Console:
    """A console of the terminal's width; COLUMNS wins, and a pipe is wide."""
    width = shutil.get_terminal_size((WIDE, 24)).columns
    return Console(highlight=False, markup=False, emoji=False, width=width)


def print_headline(console: Console, headline: Headline) -> None:
    """The card, its verdict in colour, and the lines below it."""
    line = Text(f"{headline.card}, ", style="bold")
    line.append(VERDICTS[headline.verdict], style=STYLES[headline.verdict])
    line.append(f": {headline.sentence}")
    console.print(line)
    for below in headline.lines:
        console.print(below)


def print_sheet(console: Console, sheet: Sheet, *, marked: bool = False) -> None:
    """A title and its table, in several tables where the terminal is too narrow for one."""
    console.print(Text(sheet.title, style="bold"))
    for columns in _fitting_columns(sheet, console.width):
        console.print(sheet_as_table(sheet, columns, marked=marked), "")


def _fitting_columns(sheet: Sheet, width: int) -> list[list[int]]:
    """Groups of columns, each with the first ones, so that no number is broken."""
    widths = [_unbroken_width(sheet, place) for place in range(len(sheet.columns))]
    names = list(range(sheet.names))
    groups, used = [list(names)], sum(widths[name] + GAP for name in names)
    start = used
    for place in range(sheet.names, len(widths)):
        if used + widths[place] > width and len(groups[-1]) > len(names):
            groups.append(list(names))
            used = start
        groups[-1].append(place)
        used += widths[place] + GAP
    return groups


def _unbroken_width(sheet: Sheet, place: int) -> int:
    """The width at which a column breaks no number and no word, up to half of a terminal."""
    column = sheet.columns[place]
    cells = [row[place] for row in sheet.rows]
    if column not in sheet.right:
        cells = [word for cell in cells for word in cell.split()]
    return min(max(map(len, [*cells, *column.split(), ""])), LONGEST_WORD)


def sheet_as_table(
    sheet: Sheet, columns: Sequence[int] | None = None, *, marked: bool = False
) -> Table:
    """A rich table of these columns; `marked` numbers are coloured by their first letter."""
    columns = range(len(sheet.columns)) if columns is None else columns
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place in columns:
        column = sheet.columns[place]
        table.add_column(
            Text(column),
            justify="right" if column in sheet.right else "left",
            overflow="fold",
            min_width=_unbroken_width(sheet, place),
        )
    first_total = len(sheet.rows) - sheet.totals
    for number, row in enumerate(sheet.rows):
        cells = [
            Text(
                row[place], style=_style(row[place], marked and sheet.columns[place] in sheet.right)
            )
            for place in columns
        ]
        table.add_row(*cells, style="bold" if number >= first_total else None)
    return table


def _style(cell: str, marked: bool) -> str:
    if marked:
        return MARK_STYLES.get(cell[:1], STYLES["fits"])
    return STYLES.get(cell, "")

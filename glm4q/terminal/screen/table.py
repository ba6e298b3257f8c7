"""Columns of plain text: a name that a user types again is never cut off."""

from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len

from calculator.options import printable


def table_lines(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield each row as a line, as wide as its cells are; what no terminal prints is replaced.

    right: the columns of numbers, which end at one place.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if place in right else cell + space)
        yield "  ".join(cells).rstrip()

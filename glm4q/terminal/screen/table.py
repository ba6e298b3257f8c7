"""Columns of plain text: a name that a user types again is never cut off."""

from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len


def table_lines(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield each row as a line, as wide as its cells are.

    right: the columns of numbers, which end at one place.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if place in right else cell + space)
        yield "  ".join(cells).rstrip()

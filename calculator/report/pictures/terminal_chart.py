"""The curves as letters on a terminal."""

from calculator.report.pictures.curves import Curves
from calculator.units import GIB, human_tokens

HEIGHT = 18
WIDTH = 64
LIMIT = "-"


def chart_lines(curves: Curves) -> list[str]:
    """Lines of text: a scale in GiB, a letter a curve, the card's limit across, a legend."""
    letters = _letters([curve.name for curve in curves.curves])
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    if curves.limit is not None:
        cells[_row(curves.limit, curves.top)] = [LIMIT] * WIDTH
    last = max(len(curves.contexts) - 1, 1)
    for curve, letter in zip(curves.curves, letters, strict=True):
        for column in range(WIDTH):
            need = curve.bytes[round(column / (WIDTH - 1) * last) if len(curve.bytes) > 1 else 0]
            cells[_row(need, curves.top)][column] = letter
    lines = [curves.title]
    for number, row in enumerate(cells):
        gib = curves.top * (HEIGHT - 1 - number) / (HEIGHT - 1) / GIB
        lines.append(f"{gib:6.1f} GiB |{''.join(row).rstrip()}")
    ends = human_tokens(curves.contexts[0]), human_tokens(curves.contexts[-1])
    lines.append(f"{'':10} +{'-' * WIDTH}")
    lines.append(f"{'':12}{ends[0]}{ends[1]:>{WIDTH - len(ends[0])}} tokens, each step doubles")
    named = [f"{letter} {curve.name}" for letter, curve in zip(letters, curves.curves, strict=True)]
    if curves.limit is not None:
        named.append(f"{LIMIT} {curves.limit_name}, {curves.limit / GIB:.2f} GiB")
    return [*lines, f"{'':12}{'   '.join(named)}"]


def _row(need: int, top: int) -> int:
    return HEIGHT - 1 - round(need / top * (HEIGHT - 1))


def _letters(names: list[str]) -> list[str]:
    """A capital for each name: its first letter or digit that is still free."""
    taken: list[str] = []
    for name in names:
        wanted = [*name.upper().replace("INT", ""), *"ABCDEFGHIJ"]
        taken.append(next(letter for letter in wanted if letter.isalnum() and letter not in taken))
    return taken

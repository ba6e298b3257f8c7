"""The curves as lines and labels on a plane, for whoever paints them: SVG or PNG."""

from collections.abc import Callable
from math import ceil, log2
from typing import Literal

from calculator.dataclass import dataclass
from calculator.report.pictures.curves import STEPS_PER_DOUBLING, Curves
from calculator.units import GIB, human_tokens

WIDTH, HEIGHT = 860, 500
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 50, 60
INK, FAINT, LIMIT = "#333333", "#dddddd", "#c02020"
# Okabe and Ito's colours, which colour-blind people can distinguish; black is for the ink.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
LABEL_GAP = 16

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1
    dashed: bool = False


@dataclass(frozen=True)
class Label:
    """Words that begin, end or are centred at a point of their middle line."""

    at: Point
    text: str
    colour: str = INK
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = 13


@dataclass(frozen=True)
class Drawing:
    """The lines and labels to paint on a white plane of WIDTH x HEIGHT."""

    lines: tuple[Line, ...]
    labels: tuple[Label, ...]


def draw(curves: Curves) -> Drawing:
    """Axes, curves with their names at their ends, and the card's limit."""
    step = _step(curves.top / GIB)
    top = ceil(curves.top / GIB / step) * step * GIB

    first, last = curves.contexts[0], curves.contexts[-1]
    doublings = max(log2(last / first), 1)

    def place(context: int, need: float) -> Point:
        along = log2(context / first) / doublings
        return (
            round(LEFT + along * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - need / top * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines, labels = _axes(curves, place, top, step)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(curves.curves))]
    for curve, colour in zip(curves.curves, colours, strict=True):
        points = zip(curves.contexts, curve.bytes, strict=True)
        lines.append(Line(tuple(place(context, need) for context, need in points), colour, 2.5))
    ends = [
        (place(last, curve.bytes[-1])[1], curve.name, colour)
        for curve, colour in zip(curves.curves, colours, strict=True)
    ]
    if curves.limit is not None:
        across = place(first, curves.limit), place(last, curves.limit)
        lines.append(Line(across, LIMIT, 2, dashed=True))
        ends.append((across[1][1], curves.limit_name, LIMIT))
    labels += _spread(ends)
    return Drawing(tuple(lines), tuple(labels))


def _axes(
    curves: Curves, place: Callable[[int, float], Point], top: float, step: int
) -> tuple[list[Line], list[Label]]:
    first, last = curves.contexts[0], curves.contexts[-1]
    lines, labels = [], [Label((LEFT, TOP / 2), curves.title, size=16)]
    for gib in range(0, round(top / GIB) + 1, step):
        left, right = place(first, gib * GIB), place(last, gib * GIB)
        lines.append(Line((left, right), INK if gib == 0 else FAINT))
        labels.append(Label((left[0] - 8, left[1]), f"{gib} GiB", anchor="end"))
    for context in curves.contexts[::STEPS_PER_DOUBLING]:
        x, y = place(context, 0)
        labels.append(Label((x, y + 18), human_tokens(context), anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    labels.append(Label((middle, HEIGHT - 18), "tokens of context", anchor="middle"))
    return lines, labels


def _step(gib: float) -> int:
    """GiB between two lines of the scale: 1, 2, 4, ... so that there are at most ten."""
    return 1 << max(0, ceil(log2(max(gib, 1) / 10)))


def _spread(ends: list[tuple[float, str, str]]) -> list[Label]:
    """Names at the ends of their curves, pushed apart where they would overlap."""
    labels: list[Label] = []
    lowest = float(HEIGHT)
    for y, name, colour in sorted(ends, reverse=True):
        lowest = min(y, lowest - LABEL_GAP)
        labels.append(Label((WIDTH - RIGHT + 8, lowest), name, colour))
    return labels

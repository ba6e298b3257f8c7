"""A chart: curves with their names, over an axis below and a scale on the left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from calculator.report.pictures.drawing import (
    BOTTOM,
    FAINT,
    HEIGHT,
    INK,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Drawing,
    Label,
    Line,
    Point,
)

STEPS = 5
"""Lines of the scale above its foot."""


@dataclass
class Chart:
    """Collects lines and labels. Values are given in the units of the axes."""

    first: float
    """Where the lower axis begins."""
    last: float
    top: float
    """Where the scale ends; it begins at 0."""
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def place(self, across: float, up: float) -> Point:
        """The point of a value; what lies below 0 is drawn at 0."""
        along = (across - self.first) / ((self.last - self.first) or 1)
        return (
            round(LEFT + along * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - max(up, 0) / self.top * (HEIGHT - TOP - BOTTOM), 1),
        )

    def frame(
        self,
        title: str,
        below: str,
        marks: Sequence[tuple[float, str]],
        name: Callable[[float], str],
    ) -> None:
        """Draw what stands around the curves.

        below: what the lower axis counts; marks: values on it with their names; name: names a value
        of the scale.
        """
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.labels += [
            Label((LEFT, TOP / 2), title, size=16),
            Label((middle, HEIGHT - 18), below, anchor="middle"),
        ]
        for step in range(STEPS + 1):
            value = self.top * step / STEPS
            left, right = self.place(self.first, value), self.place(self.last, value)
            self.lines.append(Line((left, right), FAINT if step else INK))
            self.labels.append(Label((left[0] - 8, left[1]), name(value), anchor="end"))
        for across, mark in marks:
            x, y = self.place(across, 0)
            self.labels.append(Label((x, y + 18), mark, anchor="middle"))

    def curve(
        self,
        values: Sequence[tuple[float, float]],
        name: str,
        colour: str,
        *,
        dashed: bool = False,
    ) -> None:
        """Draw a curve through values, and its name behind its end."""
        points = tuple(self.place(across, up) for across, up in values)
        x, y = points[-1]
        self.lines.append(Line(points, colour, 2.5, dashed))
        self.labels.append(Label((x + 8, y), name, colour))

    def drawing(self) -> Drawing:
        """All of it."""
        return Drawing(tuple(self.lines), tuple(self.labels))

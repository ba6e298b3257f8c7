"""A drawing as PNG, painted by Pillow."""

import io
from itertools import pairwise
from math import dist

from PIL import Image, ImageDraw, ImageFont

from calculator.report.pictures.drawing import HEIGHT, WIDTH, Drawing, Line, Point

SCALE = 2
"""Pixels a unit: sharp on a dense screen."""
DASH, GAP = 7, 5
ANCHORS = {"start": "lm", "middle": "mm", "end": "rm"}


def as_png(drawing: Drawing) -> bytes:
    """The bytes of a PNG file."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    brush = ImageDraw.Draw(image)
    for line in drawing.lines:
        for stroke in _dashes(line) if line.dashed else [line.points]:
            points = [_scaled(point) for point in stroke]
            brush.line(points, fill=line.colour, width=round(line.width * SCALE), joint="curve")
    for label in drawing.labels:
        font = ImageFont.load_default(label.size * SCALE)
        brush.text(
            _scaled(label.at), label.text, label.colour, font=font, anchor=ANCHORS[label.anchor]
        )
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _scaled(point: Point) -> Point:
    return point[0] * SCALE, point[1] * SCALE


def _dashes(line: Line) -> list[tuple[Point, ...]]:
    """The strokes of a dashed line."""
    strokes: list[tuple[Point, ...]] = []
    for begin, end in pairwise(line.points):
        length = dist(begin, end)
        starts = range(0, round(length), DASH + GAP)
        strokes += [
            (_between(begin, end, at / length), _between(begin, end, min((at + DASH) / length, 1)))
            for at in starts
        ]
    return strokes


def _between(begin: Point, end: Point, part: float) -> Point:
    return begin[0] + (end[0] - begin[0]) * part, begin[1] + (end[1] - begin[1]) * part

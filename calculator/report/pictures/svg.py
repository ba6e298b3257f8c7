"""A drawing as SVG."""

from html import escape

from calculator.report.pictures.drawing import HEIGHT, WIDTH, Drawing, Label, Line


def as_svg(drawing: Drawing) -> str:
    """One file, with no script and nothing to fetch."""
    body = "\n".join([*map(_line, drawing.lines), *map(_label, drawing.labels)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _line(line: Line) -> str:
    points = " ".join(f"{x},{y}" for x, y in line.points)
    dashes = ' stroke-dasharray="7 5"' if line.dashed else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{line.colour}" '
        f'stroke-width="{line.width}"{dashes}/>'
    )


def _label(label: Label) -> str:
    x, y = label.at
    return (
        f'<text x="{x}" y="{y}" fill="{label.colour}" font-size="{label.size}" '
        f'text-anchor="{label.anchor}" dominant-baseline="middle">{escape(label.text)}</text>'
    )

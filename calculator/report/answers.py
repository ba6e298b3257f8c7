"""Show an answer in the asked format: on the screen, as text for programs, or in a file."""

import sys
from pathlib import Path
from typing import Any, Literal

from calculator.atomic_write import write_atomically
from calculator.errors import OptionError
from calculator.extras import require_packages
from calculator.questions.answer import Answer
from calculator.report import sheets
from calculator.report.headline import headline
from calculator.report.sentences import (
    assumptions,
    cards_assumptions,
    details,
    recommended_assumptions,
    without_a_card,
)
from calculator.report.sheets import Sheet

Show = Literal[
    "answer", "terms", "variants", "explain", "grid", "cards", "widths", "chart", "recommended"
]
"""What is shown: the answer with its tables, one table alone, or a chart."""
SHOWN: tuple[Show, ...] = (
    "answer",
    "terms",
    "variants",
    "explain",
    "grid",
    "cards",
    "widths",
    "chart",
    "recommended",
)
"""What a user can ask for."""
CHOOSING: tuple[Show, ...] = ("answer", "terms", "variants", "explain")
"""What shows the best way to run. Others look at all of them, or at the question as it is."""

Format = Literal["text", "json", "csv", "md", "html", "svg", "png"]
FORMATS: tuple[Format, ...] = ("text", "json", "csv", "md", "html", "svg", "png")


def write(answer: Answer, *, show: Show, form: Format, every: bool, output: Path | None) -> None:
    """Print the answer, or write it whole to a file. Raises OptionError."""
    if form == "text" and output is None:
        _print_screen(answer, show, every)
        return
    content = _content(answer, show, form, every)
    if output is not None:
        _write(output, content)
    elif form == "png" and sys.stdout.isatty():
        raise OptionError("as png needs a file: --output chart.png")
    else:
        sys.stdout.buffer.write(content) if form == "png" else print(content.decode(), end="")


def _content(answer: Answer, show: Show, form: Format, every: bool) -> bytes:
    """The bytes of a file in that format."""
    if form == "json":
        import json

        return (json.dumps(_record(answer, show, every), indent=2) + "\n").encode()
    if form == "csv":
        from calculator.report.csv_text import records_as_csv

        rows = _record(answer, show, every)[_rows_of(show)]
        return records_as_csv(rows).encode()
    if form == "md":
        return _as_markdown(answer, show, every).encode()
    if form == "html":
        from calculator.report.page import as_page

        return as_page(answer.question).encode()
    if form == "text":
        raise OptionError("output is for json, csv, md, html, svg and png; text goes to the screen")
    from calculator.report.pictures.curves import make_curves
    from calculator.report.pictures.drawing import draw

    drawing = draw(make_curves(answer.question))
    if form == "svg":
        from calculator.report.pictures.svg import as_svg

        return as_svg(drawing).encode()
    require_packages("as png", "PIL")  # svg needs no package
    from calculator.report.pictures.png import as_png

    return as_png(drawing)


def _rows_of(show: Show) -> str:
    """The list of a record that CSV shows."""
    if show in ("grid", "cards", "widths", "variants", "recommended"):
        return show
    return "terms"


def _record(answer: Answer, show: Show, every: bool) -> dict[str, Any]:
    from calculator.questions.grid import make_grid
    from calculator.questions.longest import longest_contexts
    from calculator.report import records

    question = answer.question
    if show == "grid":
        return records.grid_record(question, make_grid(question))
    if show == "cards":
        return records.cards_record(question, longest_contexts(question))
    if show == "widths":
        from calculator.questions.widths.ladder import climb

        return records.widths_record(question, climb(question))
    record = records.answer_record(answer, every=every)
    if show == "recommended":
        record["recommended"] = records.recommended_records(question)
    return record


def _as_markdown(answer: Answer, show: Show, every: bool) -> str:
    """The tables and sentences of the screen."""
    from calculator.report.markdown import sheets_as_markdown

    shown = [sheet for sheet, _ in _sheets(answer, show, every)]
    first = headline(answer)
    sentences = []
    if first is not None and show in CHOOSING:
        sentences += [f"{first.card}, {first.verdict}: {first.sentence}", *first.lines]
    sentences += [*(details(answer) if show in CHOOSING else []), _assumptions(answer, show)]
    return sheets_as_markdown(shown, sentences, _command(answer, show))


def _print_screen(answer: Answer, show: Show, every: bool) -> None:
    from calculator.report.terminal import make_console, print_headline, print_sheet

    console = make_console()
    first = headline(answer) if show in CHOOSING else None
    if first is not None:
        print_headline(console, first)
        console.print()
    if show == "chart":
        from calculator.report.pictures.curves import make_curves
        from calculator.report.pictures.terminal_chart import chart_lines

        console.print("\n".join(chart_lines(make_curves(answer.question))), soft_wrap=True)
    for sheet, marked in _sheets(answer, show, every):
        print_sheet(console, sheet, marked=marked)
    for line in details(answer) if show in CHOOSING else []:
        console.print(line)
    if show == "recommended":
        console.print("your card: glm4q calc --gpu 4070; all cards: glm4q calc --list-gpus")
        if cpu := without_a_card(answer.question):
            console.print(cpu)
    console.print(_assumptions(answer, show))
    console.print(f"again: {_command(answer, show)}")


def _sheets(answer: Answer, show: Show, every: bool) -> list[tuple[Sheet, bool]]:
    """The tables that are shown, each with whether its cells carry the grid's marks."""
    question = answer.question
    if show == "chart":
        return []
    if show == "grid":
        from calculator.questions.grid import make_grid

        return [(sheets.grid_sheet(question, make_grid(question)), question.card is not None)]
    if show == "cards":
        from calculator.questions.longest import longest_contexts

        return [(sheets.cards_sheet(question, longest_contexts(question)), False)]
    if show == "widths":
        from calculator.questions.widths.ladder import climb

        return [(sheets.widths_sheet(question, climb(question)), False)]
    if show == "recommended":
        return [(sheets.recommendations_sheet(question), False)]
    shown = []
    if question.card is not None and show in ("answer", "variants"):
        name = headline(answer)
        shown.append(sheets.choices_sheet(answer.choices, name.card if name else "", every=every))
    if show != "variants":
        shown.append(sheets.terms_sheet(question))
    if show == "explain":
        shown += [sheets.explain_sheet(question), sheets.moments_sheet(question)]
    if question.card is None:
        from calculator.questions.solve import cards_that_fit

        shown.append(sheets.offers_sheet(cards_that_fit(question)))
    return [(sheet, False) for sheet in shown if sheet.rows]


def _assumptions(answer: Answer, show: Show) -> str:
    if show == "recommended":
        return recommended_assumptions()
    if show == "widths":
        from calculator.questions.widths.ladder import find_sensitivity

        estimate = find_sensitivity(answer.question).unit
        loss = f"estimated loss by {estimate}, where all in INT4 is 100%"
        return f"{assumptions(answer.question)}; {loss}"
    return cards_assumptions() if show == "cards" else assumptions(answer.question)


def _command(answer: Answer, show: Show) -> str:
    if show == "recommended":
        return f"glm4q calc {answer.question.model_argument}"
    if show == "widths":
        from calculator.questions.widths.ladder import command

        return command(answer.question)
    shown = f" --show {show}" if show != "answer" else ""
    return answer.question.command() + shown


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or nothing: a file that exists stays until the new one is complete."""
    try:
        write_atomically(path, content, mode=0o644)
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None

"""The answer to a question in the asked form: on the screen, as text, in files."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from calculator.errors import OptionError
from calculator.extras import require_packages
from calculator.questions.grid import make_grid
from calculator.questions.longest import longest_contexts
from calculator.questions.question import Question
from calculator.questions.solve import best_variants, cards_that_fit
from calculator.report import records, sheets
from calculator.report.sentences import assumptions, card_sentences, cards_assumptions
from calculator.report.sheets import Sheet

Table = Literal["terms", "grid", "cards"]
"""What is shown: the terms of one plan, weights x KV x context, or variant x card."""


def as_json(question: Question, *, table: Table) -> str:
    """Indented JSON."""
    return json.dumps(_record(question, table), indent=2)


def as_csv(question: Question, *, table: Table) -> str:
    """The terms, or the cells of the grid or of the cards, a line each."""
    from calculator.report.csv_text import records_as_csv

    return records_as_csv(_record(question, table)[table])


def _record(question: Question, table: Table) -> dict[str, Any]:
    if table == "grid":
        return records.grid_record(question, make_grid(question))
    if table == "cards":
        return records.cards_record(question, longest_contexts(question))
    return records.question_record(question)


def as_markdown(question: Question, *, explain: bool, table: Table) -> str:
    """The screen's tables and sentences."""
    from calculator.report.markdown import sheets_as_markdown

    shown = [sheet for sheet, _ in _sheets(question, explain=explain, table=table)]
    sentences = [*card_sentences(question), _assumptions(question, table)]
    return sheets_as_markdown(shown, sentences, _command(question, table=table))


def show(question: Question, *, explain: bool, table: Table, chart: bool) -> None:
    """Print the screen; wide tables are not cut where the output is no terminal."""
    from rich.console import Console

    from calculator.report.terminal import sheet_as_table

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    if chart:
        from calculator.report.curves import make_curves
        from calculator.report.terminal_chart import chart_lines

        console.print("\n".join(chart_lines(make_curves(question))), soft_wrap=True)
    else:
        shown = _sheets(question, explain=explain, table=table)
        for number, (sheet, marked) in enumerate(shown):
            if number == 1:  # the verdict stands under the terms, before what else there is
                console.print(*card_sentences(question), "", sep="\n")
            console.print(sheet.title, style="bold", soft_wrap=True)
            console.print(sheet_as_table(sheet, marked=marked), "")
    if chart or table != "terms":
        console.print(*card_sentences(question), sep="\n")
    console.print(_assumptions(question, table), soft_wrap=True)
    console.print(f"again: {_command(question, table=table, chart=chart)}", soft_wrap=True)


def write_files(
    question: Question, *, svg: Path | None, png: Path | None, html: Path | None
) -> None:
    """Write each file that is asked for, whole or not at all. Raises OptionError."""
    if svg is not None or png is not None:
        from calculator.report.curves import make_curves
        from calculator.report.drawing import draw

        drawing = draw(make_curves(question))
    if svg is not None:
        from calculator.report.svg import as_svg

        _write(svg, as_svg(drawing).encode())
    if png is not None:
        require_packages("png", "PIL")  # svg needs none
        from calculator.report.png import as_png

        _write(png, as_png(drawing))
    if html is not None:
        from calculator.report.page import as_page

        _write(html, as_page(question).encode())


def _sheets(question: Question, *, explain: bool, table: Table) -> list[tuple[Sheet, bool]]:
    """What is shown, each with whether its cells carry the grid's marks."""
    if table == "grid":
        sheet = sheets.grid_sheet(question, make_grid(question))
        return [(sheet, question.card is not None)]
    if table == "cards":
        return [(sheets.cards_sheet(question, longest_contexts(question)), False)]
    shown = [sheets.terms_sheet(question)]
    if explain:
        shown += [sheets.explain_sheet(question), sheets.moments_sheet(question)]
    card = question.card
    if card is None or (question.margin_bytes or 0) < 0:
        shown.append(sheets.offers_sheet(cards_that_fit(question)))
    if card is not None:
        shown.append(sheets.choices_sheet(best_variants(question, card.usable_bytes), card.name))
    return [(sheet, False) for sheet in shown if sheet.rows]


def _assumptions(question: Question, table: Table) -> str:
    return cards_assumptions() if table == "cards" else assumptions(question)


def _command(question: Question, *, table: Table, chart: bool = False) -> str:
    return question.command() + (table != "terms") * f" --{table}" + " --chart" * chart


def _write(path: Path, content: bytes) -> None:
    """A file that is there stays as it is until the new one is whole."""
    try:
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(made).chmod(0o644)
            Path(made).replace(path)
        except OSError:
            Path(made).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None

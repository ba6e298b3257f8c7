"""Sheets and sentences as Markdown, for papers and issues."""

from calculator.report.sheets import Sheet


def sheets_as_markdown(sheets: list[Sheet], sentences: list[str], command: str) -> str:
    """Tables, then a list, then the command line that asks again."""
    parts = [_table(sheet) for sheet in sheets]
    parts.append("\n".join(f"- {_escaped(sentence)}" for sentence in sentences))
    parts.append(f"```sh\n{command}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(sheet: Sheet) -> str:
    rule = ["---:" if column in sheet.right else "---" for column in sheet.columns]
    lines = [sheet.columns, tuple(rule), *sheet.rows]
    rows = [f"| {' | '.join(map(_escaped, line))} |" for line in lines]
    return "\n".join([f"**{_escaped(sheet.title)}**", "", *rows])


def _escaped(text: str) -> str:
    """A name from a disk must not end its cell or begin markup."""
    for letter in "\\|`*<[":
        text = text.replace(letter, f"\\{letter}")
    return text

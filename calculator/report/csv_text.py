"""Rows of an answer as CSV: bytes, for machines."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def records_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows under their keys. A cell that a spreadsheet would run is quoted as text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

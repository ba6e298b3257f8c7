"""Rows of an answer as CSV: bytes, for machines."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def records_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows under their keys. A cell that a spreadsheet would run is quoted as text."""
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in flat)
    return out.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A band becomes two columns, one for each end."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells |= {f"{name}_{end}": number for end, number in value.items()}
        else:
            cells[name] = value
    return cells


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

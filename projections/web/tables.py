"""A board's rows as CSV, for spreadsheets: no cell is ever taken for a formula."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

NUMBER = re.compile(r"-?\d+(\.\d+)?")
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""Spreadsheets read UTF-8 as such only behind it."""


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """Rows under a header of column names."""
    names = list(columns)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return BOM + out.getvalue()


def cell(value: Any) -> str:
    """One cell. A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay numbers."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    risky = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not NUMBER.fullmatch(text)
    return f"'{text}" if risky else text

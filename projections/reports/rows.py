"""A report's lines as rows for other programs: CSV and JSON lines. Amounts are exact decimal text, never floats. Pure.

Each row names the position and the head that it rests on, for rows are what is pasted together. The total is no row:
whoever adds up a column would have everything twice.
"""

import csv
import io
from typing import Any

import msgspec

from projections.reports.report import Line, Report

COLUMNS = (*Line.__struct_fields__, "position", "head")
_FORMULA = frozenset("=+-@'")


def rows(report: Report) -> list[dict[str, Any]]:
    """A row for each line."""
    ground = {"position": report.position, "head": report.head}
    return [msgspec.structs.asdict(line) | ground for line in report.lines]


def csv_text(report: Report) -> str:
    """The rows under a line of their names, as RFC 4180 has it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows(row | {"key": _no_formula(row["key"])} for row in rows(report))
    return out.getvalue()


def json_lines(report: Report) -> str:
    """The rows, an object a line."""
    return msgspec.json.Encoder().encode_lines(rows(report)).decode()


def _no_formula(key: str) -> str:
    """*key* as a spreadsheet takes it for text: an account may be called ``=1+1``. No two become the same."""
    return f"'{key}" if key[:1] in _FORMULA else key

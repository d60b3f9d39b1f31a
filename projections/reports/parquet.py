"""A report's lines as a Parquet file, with amounts as ``decimal128(38, 6)``: no float on the way. Needs pyarrow.

What the figures rest on stands in the file's metadata, under ``task_ledger.``.
"""

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.money import DECIMALS
from projections.reports.report import Line, Report

AMOUNT = pa.decimal128(38, DECIMALS)
"""Credits: as many digits as the format has."""


def parquet_bytes(report: Report) -> bytes:
    """The file."""
    out = io.BytesIO()
    pq.write_table(_table(report), out)
    return out.getvalue()


def _table(report: Report) -> pa.Table:
    names = Line.__struct_fields__
    columns = {name: pa.array([_value(line, name) for line in report.lines], _type(name)) for name in names}
    ground = {"position": report.position, "head": report.head, "by": report.by, "clock": report.clock}
    ground |= {"since": report.since or "", "until": report.until or "", "books": report.books}
    return pa.table(columns).replace_schema_metadata({f"task_ledger.{name}": str(ground[name]) for name in ground})


def _type(name: str) -> pa.DataType:
    if name == "key":
        return pa.string()
    return AMOUNT if name.endswith("_credits") else pa.int64()


def _value(line: Line, name: str) -> object:
    value = getattr(line, name)
    return Decimal(value) if name.endswith("_credits") else value

"""A provider's statement as a file, CSV or JSON lines, and beside it the list of what is wrong with it."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from ledger.engine import Engine
from ledger.money import credits_text
from ledger.times import rfc3339
from projections.reconciliation.statement_format import COLUMNS
from scripts.simulation import dice_for
from scripts.simulation.bills import CURRENCY, Line, bill, billed_by
from scripts.simulation.faults import Fault, planted

Row: TypeAlias = tuple[str | None, ...]


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    path: str
    provider: str
    lines: int
    total_credits: str
    """Of the lines that are in credits."""
    faults: dict[str, int]
    """How many were planted, by kind."""
    faults_path: str


async def state(engine: Engine, path: Path, *, provider: str, seed: int, share: float) -> Stated:
    """Write what *provider* bills for the tasks of *engine* to *path*, with faults in *share* of the lines."""
    dice = dice_for(seed, "statement", provider)
    bills = [bill(task, dice) async for task in billed_by(engine, provider)]
    lines, faults = planted(bills, dice, share=share)
    FORMATS[path.suffix](path, map(_row, lines))
    beside = faults_path(path)
    _write_lines(beside, faults)
    return Stated(
        path=str(path),
        provider=provider,
        lines=len(lines),
        total_credits=credits_text(sum(line.amount_micros for line in lines if line.currency == CURRENCY)),
        faults=Counter(fault.kind.value for fault in faults),
        faults_path=str(beside),
    )


def faults_path(path: Path) -> Path:
    """Where the list of faults of the statement at *path* lies."""
    return path.with_suffix(".faults.jsonl")


def _row(line: Line) -> Row:
    return (
        line.line_id,
        line.provider_task_id,
        line.our_task_id,
        line.model,
        line.status,
        credits_text(line.amount_micros),
        line.currency,
        rfc3339(line.started_at_us),
        rfc3339(line.finished_at_us),
        rfc3339(line.billed_at_us),
    )


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    """What is not known is an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        out.writerows(rows)


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    _write_lines(path, (dict(zip(COLUMNS, row, strict=True)) for row in rows))


def _write_lines(path: Path, things: Iterable[dict[str, str | None]] | Sequence[Fault]) -> None:
    with path.open("wb") as file:
        file.writelines(msgspec.json.encode(thing) + b"\n" for thing in things)


FORMATS = {".csv": _write_csv, ".jsonl": _write_jsonl}
"""By the ending of the file's name."""

"""`task-ledger report`: what was moved in a period, as a table, as data, or as a journal for accountants' programs."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from projections.books.books import Clock
from projections.reports import beancount, hledger
from projections.reports.journal import Journal, draw_journal
from projections.reports.parameters import WrongWordError, wanted_of
from projections.reports.report import By, Line, Report, Wanted, draw
from projections.reports.rows import csv_text, json_lines
from scripts import stores
from scripts.options import OutputOption, at_option
from scripts.printed import JsonOption, json_line, table
from scripts.progress import bar

HEX_SHOWN = 12


class Format(StrEnum):
    """How a report is told."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"
    HLEDGER = "hledger"
    BEANCOUNT = "beancount"


ByOption = Annotated[By | None, typer.Option(help="What a line is about; account if not told.")]
FormatOption = Annotated[Format | None, typer.Option("--format", help="How it is told; a table if not told.")]
SinceOption = Annotated[str | None, typer.Option(metavar="T", help="From this time on, or a date's midnight, UTC.")]
UntilOption = Annotated[str | None, typer.Option(metavar="T", help="Before this time, or a date's midnight, UTC.")]
ClockOption = Annotated[Clock, typer.Option(help="By which time a movement belongs to the period.")]
AtOption = Annotated[
    str | None, typer.Option(metavar="POSITION|TIME", help="As known there in the log; at its end if not told.")
]


def report(
    *,
    by: ByOption = None,
    kind: FormatOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    clock: ClockOption = Clock.EFFECTIVE,
    at: AtOption = None,
    output: OutputOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Tell what was held, released, charged and refunded; the books are kept in a file beside the ledger."""
    chosen = _format(kind, as_json=as_json)
    if by not in {None, By.ACCOUNT} and chosen in JOURNALS:
        raise typer.BadParameter("a journal has its accounts, and is drawn by nothing else", param_hint="'--by'")
    told = {"by": by, "since": since, "until": until, "clock": clock, "at": at}
    tell = asyncio.run(_drawn(store, _wanted({name: text for name, text in told.items() if text is not None}), chosen))
    with _written_to(output):
        tell()


def _format(kind: Format | None, *, as_json: bool) -> Format:
    if as_json and kind not in {None, Format.JSON}:
        raise typer.BadParameter("--json is --format json", param_hint="'--json'")
    chosen = Format.JSON if as_json else kind or Format.TABLE
    if chosen is Format.PARQUET:
        _to_parquet()
    return chosen


def _wanted(words: dict[str, str]) -> Wanted:
    try:
        return wanted_of(words)
    except WrongWordError as wrong:
        raise typer.BadParameter(str(wrong), param_hint=f"'--{wrong.name}'") from None


Tell: TypeAlias = Callable[[], None]
"""Prints what has been drawn."""


async def _drawn(store: str, wanted: Wanted, chosen: Format) -> Tell:
    with at_option(), bar("report") as move:
        async with stores.with_books(store) as (engine, books):
            if chosen in JOURNALS:
                journal = await draw_journal(engine, books, wanted, progress=move)
                return lambda: _print(JOURNALS[chosen](journal))
            drawn = await draw(engine, books, wanted, progress=move)
            return lambda: REPORTS[chosen](drawn)


# Formats


def _print(text: str) -> None:
    print(text, end="")


def _tell(report: Report) -> None:
    """A table, and what it rests on."""
    names = [name for name in Line.__struct_fields__ if name != "key"]
    table(
        (report.by, *(name.removesuffix("_credits") for name in names)),
        (
            (line.key, *(_aligned(str(getattr(line, name)), name) for name in names))
            for line in (*report.lines, report.total)
        ),
        right_from=1,
    )
    print(f"\nfrom {report.since or 'the beginning'} until {report.until or 'the end'}, by {report.clock} time")
    print(f"as known at position {report.position}, head {report.head[:HEX_SHOWN] or 'none'}; books {report.books}")


def _aligned(text: str, name: str) -> str:
    """An amount with all six decimals, so that points stand under points."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<6}" if name.endswith("_credits") else text


def _put_parquet(report: Report) -> None:
    if sys.stdout.isatty():
        raise typer.BadParameter("a Parquet file is nothing to look at: name one", param_hint="'--output'")
    content = _to_parquet()(report)
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _to_parquet() -> Callable[[Report], bytes]:
    try:
        from projections.reports.parquet import parquet_bytes  # noqa: PLC0415 - an extra, and slow to load
    except ModuleNotFoundError as error:
        raise typer.BadParameter("Parquet needs pyarrow: pip install pyarrow", param_hint="'--format'") from error
    return parquet_bytes


REPORTS: dict[Format, Callable[[Report], None]] = {
    Format.TABLE: _tell,
    Format.CSV: lambda report: _print(csv_text(report)),
    Format.JSON: json_line,
    Format.JSONL: lambda report: _print(json_lines(report)),
    Format.PARQUET: _put_parquet,
}
JOURNALS: dict[Format, Callable[[Journal], str]] = {
    Format.HLEDGER: hledger.journal_text,
    Format.BEANCOUNT: beancount.journal_text,
}


@contextmanager
def _written_to(output: Path | None) -> Iterator[None]:
    """What is printed inside goes to the file *output*, if there is one."""
    if output is None:
        yield
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file, redirect_stdout(file):
            yield
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}", param_hint="'--output'") from error


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(report)

"""`task-ledger reconcile`: the ledger against itself, and against a provider's statement, line by line."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer

from api import settings
from api.contracts import parse_any
from ledger.break_log import BreakLog
from ledger.breaks import Life
from ledger.catalogue import Catalogue
from ledger.engine import Engine
from ledger.errors import NotReplaceable, StatementSuperseded, UnknownProvider
from ledger.events import BreakKind
from ledger.money import credits_text, mixed_text
from projections.asked import WrongWordError, period_of
from projections.balances import account_balances, task_balances
from projections.books import Books
from projections.books_file import open_books
from projections.break_rows import Count, count_breaks, together
from projections.break_shapes import counts_view, statement_view, told_view
from projections.comparison import Billed
from projections.cost_log import CostLog
from projections.follow import Progress, catch_up
from projections.places import NoSuchPlaceError, Place, place_of
from projections.providers import refuse_unknown
from projections.reconcile import Clerk, Tally, Told
from projections.self_check import STUCK_HOURS, Scope, late_truths, settlement
from projections.statement_format import StatementFormat
from projections.statements import NotAStatementError, Statement, read_statement
from scripts import stores
from scripts.printed import JsonOption, json_line, table
from scripts.progress import bar
from scripts.typed import BY, now_us, wrong_config

STATEMENT_MAX_BYTES = 256 * 2**20
DIGEST = re.compile("[0-9a-f]{64}")
SHOWN_MAX = 200
"""Breaks shown in a table; all of them are counted, and listed by ``breaks list``."""


def reconcile(
    *,
    statement: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A provider's statement: CSV or JSON lines.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="P", help="Only this provider: whose statement it is.")
    ] = None,
    new_provider: Annotated[
        bool, typer.Option("--new-provider", help="It is one that no task, catalogue or configuration knows yet.")
    ] = False,
    replaces: Annotated[
        str | None,
        typer.Option(metavar="FILE|DIGEST", help="The statement that this one stands for: its file, or its SHA-256."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="T", help="Where the period begins: a date or a time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Before when it ends.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="POSITION", help="As known there, or at a time; writes nothing.")
    ] = None,
    stuck_hours: Annotated[int, typer.Option(min=0, help="After how many hours a hold is stuck.")] = STUCK_HOURS,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing to the log.")] = False,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Compare the books with themselves and with a statement; exit 1 when a break is open or a line is malformed."""
    period, found = _period(since, until), _settings(config)
    billed = None if statement is None else _billed(statement, provider, found.statements, period)
    providers = None if new_provider or provider is None else {*found.statements, *_catalogue(found).providers}
    if billed is not None:
        billed = billed._replace(providers=providers, replaces=None if replaces is None else _digest(replaces))
    elif replaces is not None or new_provider:
        raise typer.BadParameter("without a statement there is nothing to say it of", param_hint="'--statement'")
    scope = Scope(provider, *(given or whole for given, whole in zip(period, Scope()[1:], strict=True)))
    wanted = _Wanted(now_us(), billed, scope, providers, stuck_hours, at, writes=not dry_run and at is None)
    try:
        outcome = asyncio.run(_reconciled(store, wanted, as_json=as_json))
    except NotAStatementError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="'--statement'") from None
    except NoSuchPlaceError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="'--at'") from None
    except UnknownProvider as unknown:
        way = "" if billed is None else "; --new-provider takes a new one"
        raise typer.BadParameter(f"{unknown}{way}", param_hint="'--provider'") from None
    except (NotReplaceable, StatementSuperseded) as refusal:
        hint = "'--replaces'" if isinstance(refusal, NotReplaceable) else "'--statement'"
        raise typer.BadParameter(str(refusal), param_hint=hint) from None
    _tell(outcome, wanted, as_json=as_json)
    if outcome.open or (billed is not None and billed.statement.malformed_count):
        raise typer.Exit(1)


# What is asked


class _Wanted(NamedTuple):
    now_us: int
    billed: Billed | None
    scope: Scope
    """Which tasks the ledger is held against itself for."""
    providers: Collection[str] | None
    """As in `Billed`."""
    stuck_hours: int
    at: str | None
    writes: bool


def _settings(config: Path | None) -> settings.Settings:
    try:
        return settings.read(config)
    except (ValueError, OSError) as error:
        raise wrong_config(error) from error


def _catalogue(found: settings.Settings) -> Catalogue:
    try:
        return found.models()
    except (ValueError, OSError) as error:
        raise wrong_config(error) from error


def _digest(replaces: str) -> str:
    """The SHA-256 that names a statement: as it is given, or of the file of that name."""
    if DIGEST.fullmatch(replaces):
        return replaces
    try:
        return hashlib.sha256(_data(Path(replaces), "'--replaces'")).hexdigest()
    except OSError as error:
        problem = f"it is neither a SHA-256 in hex nor a file that can be read: {error.strerror}"
        raise typer.BadParameter(problem, param_hint="'--replaces'") from error


def _period(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    told = {name: text for name, text in (("since", since), ("until", until)) if text is not None}
    try:
        return period_of(told)
    except WrongWordError as wrong:
        raise typer.BadParameter(str(wrong), param_hint=f"'--{wrong.name}'") from None


def _billed(
    path: Path,
    provider: str | None,
    formats: dict[str, StatementFormat],
    period: tuple[int | None, int | None],
) -> Billed:
    if provider is None and len(formats) == 1:
        (provider,) = formats
    if not provider:
        raise typer.BadParameter("a statement is a provider's: name it", param_hint="'--provider'")
    form = formats.get(provider, StatementFormat())
    return Billed(provider, _read(path, form), form, *period)


def _read(path: Path, form: StatementFormat) -> Statement:
    try:
        return read_statement(_data(path, "'--statement'"), form, task_in=parse_any)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="'--statement'") from error
    except NotAStatementError as wrong:
        raise typer.BadParameter(f"{path} is no statement: {wrong}", param_hint="'--statement'") from None


def _data(path: Path, option: str) -> bytes:
    with path.open("rb") as file:
        data = file.read(STATEMENT_MAX_BYTES + 1)
    if len(data) > STATEMENT_MAX_BYTES:
        raise typer.BadParameter(f"it is larger than {STATEMENT_MAX_BYTES} bytes", param_hint=option)
    return data


# Carrying out


class _Outcome(NamedTuple):
    place: Place
    tally: Tally
    """Of what is listed: with a statement, what that shows."""
    own: Tally
    """Of what the ledger's own check finds beside a statement."""
    shown: list[Told]
    open: dict[BreakKind, Count]
    """All that is open when it is over: found just now, or before."""
    moving: int = 0
    """Accounts that could not be compared with their rows, since others moved them all the while."""


async def _reconciled(store: str, wanted: _Wanted, *, as_json: bool) -> _Outcome:
    shown: list[Told] = []

    def tell(told: Told) -> None:
        if as_json:
            json_line(told_view(told, now_us=wanted.now_us))
        elif len(shown) < SHOWN_MAX:
            shown.append(told)

    with bar("reconcile") as move:
        async with stores.with_books(store) as (engine, books), _to_write(store, wanted) as writing:
            log = BreakLog(writing or engine)
            clerk = Clerk(log, by=BY, now_us=wanted.now_us, writes=wanted.writes, tell=tell)
            own = clerk if wanted.billed is None else clerk.beside()
            tallies = [clerk.tally] if wanted.billed is None else [clerk.tally, own.tally]
            place = await place_of(engine, wanted.at)
            if wanted.at is None:
                await catch_up(engine, books, progress=move)
                await _compare(CostLog(writing or engine, books), clerk, own, wanted, move)
                await _take_late(store, engine, own, wanted)
                await own.take(await task_balances(engine, books, now_us=wanted.now_us))
                accounts = await account_balances(engine, books, now_us=wanted.now_us)
                await own.take(accounts.found)
                await catch_up(engine, books)
                still = await count_breaks(books, life=Life.OPEN)
                if not wanted.writes:  # what it would have opened, too
                    still = together(still, *(tally.new for tally in tallies))
                return _Outcome(place, clerk.tally, own.tally, shown, still, accounts.moving)
            async with _as_known_at(engine, place, move) as then:
                await _compare(CostLog(engine, then), clerk, own, wanted, move)
                return _Outcome(place, clerk.tally, own.tally, shown, together(*(tally.open for tally in tallies)))


@asynccontextmanager
async def _to_write(store: str, wanted: _Wanted) -> AsyncIterator[Engine | None]:
    if not wanted.writes:
        yield None
        return
    async with stores.beside(store, make=False) as engine:
        yield engine


@asynccontextmanager
async def _as_known_at(engine: Engine, place: Place, move: Progress) -> AsyncIterator[Books]:
    """Books of their own, followed up to *place* and no further."""
    with TemporaryDirectory(prefix="task-ledger-") as folder:
        books = await open_books(Path(folder, "books"), engine)
        try:
            await catch_up(engine, books, until=place.position, progress=move)
            yield books
        finally:
            await books.close()


async def _compare(costs: CostLog, clerk: Clerk, own: Clerk, wanted: _Wanted, move: Progress) -> None:
    if wanted.billed is not None:
        await clerk.read(wanted.billed, costs, progress=move)
    elif wanted.scope.provider is not None:
        await refuse_unknown(costs.books, wanted.scope.provider, wanted.providers or ())
    looked_at = settlement(costs.books, now_us=wanted.now_us, stuck_hours=wanted.stuck_hours, scope=wanted.scope)
    async for found in looked_at:
        await own.take(found)


async def _take_late(store: str, engine: Engine, clerk: Clerk, wanted: _Wanted) -> None:
    """Take what was reported after outcomes that it contradicts: of the tasks as they stand now."""
    async with stores.deadlines(store, engine) as deadlines:
        await catch_up(engine, deadlines)
        async for found in late_truths(engine, deadlines, scope=wanted.scope):
            await clerk.take(found)


# Printing


def _tell(outcome: _Outcome, wanted: _Wanted, *, as_json: bool) -> None:
    summary = _summary(outcome, wanted)
    if as_json:
        json_line(summary)
        return
    billed, tally = wanted.billed, outcome.tally
    if billed is not None:
        statement = billed.statement
        for number, reason in statement.malformed:
            print(f"line {number} is malformed: {reason}")
        left_out = statement.malformed_count - len(statement.malformed)
        print(f"{len(statement.lines)} lines of {billed.provider}, {statement.malformed_count} malformed")
        print(f"statement {statement.digest}")
        if statement.remainder:
            left = mixed_text(statement.remainder)
            print(f"its lines are rounded to the nearest micro-credit: remainder {left} of one in all")
        if left_out:
            print(f"of the malformed, {left_out} are not shown")
    if tally.found:
        kinds = [kind for kind in BreakKind if kind in tally.found]
        table(
            ("kind", "found", "new", "open", "at stake"),
            [_by_kind(outcome, kind) for kind in kinds] + [_total(outcome, kinds)],
            right_from=1,
        )
        print()
        table(("kind", "break", "life", "at stake", "task", "lines", "detail"), map(_row, _grouped(outcome.shown)))
        hidden = sum(count.breaks for count in tally.found.values()) - len(outcome.shown)
        if hidden:
            print(f"and {hidden} more: task-ledger breaks list")
    closed = sum(count.breaks for count in tally.closed.values())
    if closed:
        print(f"{closed} breaks are corrected: task and bills agree now")
    own = sum(count.breaks for count in outcome.own.found.values())
    if billed is not None and own:
        print(f"{own} more of the ledger against itself: task-ledger reconcile, without a statement, lists them")
    if outcome.moving:
        print(f"{outcome.moving} accounts were moved all the while, and not compared with their rows")
    still = sum(count.breaks for count in outcome.open.values())
    where = f"at position {outcome.place.position}"
    print(f"{'clean' if not still else f'{still} breaks are open'}, compared {where}")


def _summary(outcome: _Outcome, wanted: _Wanted) -> dict[str, Any]:
    tally, own = outcome.tally, outcome.own
    summary = {
        "position": outcome.place.position,
        "head": outcome.place.hash.hex(),
        "found": counts_view(tally.found),
        "new": counts_view(tally.new),
        "open": counts_view(outcome.open),
        "accounts_not_compared": outcome.moving,
        "written": wanted.writes,
    }
    if wanted.billed is None:
        return summary
    beside = {
        "closed": counts_view(tally.closed),
        "own": {"found": counts_view(own.found), "new": counts_view(own.new)},
    }
    return summary | beside | statement_view(wanted.billed)


def _by_kind(outcome: _Outcome, kind: BreakKind) -> tuple[str, ...]:
    tally, none = outcome.tally, Count(0, 0)
    found = tally.found[kind]
    numbers = (found.breaks, tally.new.get(kind, none).breaks, tally.open.get(kind, none).breaks)
    return kind, *map(str, numbers), credits_text(found.at_stake_micros)


def _total(outcome: _Outcome, kinds: list[BreakKind]) -> tuple[str, ...]:
    columns = list(zip(*(_by_kind(outcome, kind)[1:4] for kind in kinds), strict=True))
    micros = sum(count.at_stake_micros for count in outcome.tally.found.values())
    return "total", *(str(sum(map(int, column))) for column in columns), credits_text(micros)


def _grouped(shown: list[Told]) -> list[Told]:
    order = list(BreakKind)
    return sorted(shown, key=lambda told: order.index(told.found.kind))


def _row(told: Told) -> tuple[str, ...]:
    found = told.found
    lines = ", ".join(map(str, found.lines[:5])) + (", ..." if len(found.lines) > 5 else "")  # noqa: PLR2004 - a glance
    return (
        found.kind,
        found.break_id,
        told.life,
        credits_text(found.at_stake_micros),
        found.task or "",
        lines,
        found.detail,
    )


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(reconcile)

"""A run of `task-ledger reconcile`: the ledger held against itself and a statement, now or as known at a place."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ledger.break_log import BreakLog
from ledger.breaks import Life
from ledger.engine import Engine
from ledger.events import BreakKind
from projections.books.books import Books, open_books
from projections.books.break_rows import Count, count_breaks, together
from projections.follow import Progress, catch_up
from projections.places import Place, place_of
from projections.reconciliation.balances import account_balances, task_balances
from projections.reconciliation.break_shapes import told_view
from projections.reconciliation.comparison import Billed
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.providers import providers_named, refuse_unknown
from projections.reconciliation.reconcile import Clerk, Tally, Told
from projections.reconciliation.self_check import Scope, late_truths, settlement
from projections.reconciliation.statements import Statement
from scripts import stores
from scripts.options import BY
from scripts.printed import json_line
from scripts.progress import bar

SHOWN_MAX = 200
"""Breaks shown in a table; all of them are counted, and listed by ``breaks list``."""


class Wanted(NamedTuple):
    """What is to be compared, and whether what differs is written to the log."""

    now_us: int
    billed: Billed | None
    scope: Scope
    """Which tasks the ledger is held against itself for."""
    providers: Collection[str] | None
    """As in `Billed`."""
    stuck_hours: int
    at: str | None
    writes: bool


class Outcome(NamedTuple):
    """What a run came to, as of *place*."""

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


async def reconciled(store: str, wanted: Wanted, *, as_json: bool) -> Outcome:
    """Compare what is *wanted*; with *as_json* what is found is printed as it is found.

    Raises:
        NotAStatementError, NoSuchPlaceError, UnknownProvider, StatementSuperseded, NotReplaceable: nothing was written.
    """
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
                return Outcome(place, clerk.tally, own.tally, shown, still, accounts.moving)
            async with _as_known_at(engine, place, move) as then:
                await _compare(CostLog(engine, then), clerk, own, wanted, move)
                return Outcome(place, clerk.tally, own.tally, shown, together(*(tally.open for tally in tallies)))


async def providers_of(store: str, statement: Statement) -> set[str]:
    """Whose tasks the lines of *statement* name: one provider's, if it can be told by them whose statement it is."""
    with bar("reconcile") as move:
        async with stores.with_books(store) as (engine, books):
            await catch_up(engine, books, progress=move)
            return await providers_named(books, statement.lines)


@asynccontextmanager
async def _to_write(store: str, wanted: Wanted) -> AsyncIterator[Engine | None]:
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


async def _compare(costs: CostLog, clerk: Clerk, own: Clerk, wanted: Wanted, move: Progress) -> None:
    if wanted.billed is not None:
        await clerk.read(wanted.billed, costs, progress=move)
    elif wanted.scope.provider is not None:
        await refuse_unknown(costs.books, wanted.scope.provider, wanted.providers or ())
    looked_at = settlement(costs.books, now_us=wanted.now_us, stuck_hours=wanted.stuck_hours, scope=wanted.scope)
    async for found in looked_at:
        await own.take(found)


async def _take_late(store: str, engine: Engine, clerk: Clerk, wanted: Wanted) -> None:
    """Take what was reported after outcomes that it contradicts: of the tasks as they stand now."""
    async with stores.deadlines(store, engine) as deadlines:
        await catch_up(engine, deadlines)
        async for found in late_truths(engine, deadlines, scope=wanted.scope):
            await clerk.take(found)

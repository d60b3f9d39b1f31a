"""The ledger held against itself: whether tasks are settled, the books say what their rows say, and late reports agree.

Another keeper of balances is held against the books in the same way: it gives its `Balance` of each account, and
`apart` tells where they differ.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.engine import Engine
from ledger.events import BreakKind
from ledger.ids import TaskId
from ledger.money import credits_text
from ledger.records import TaskFilter
from ledger.times import US_PER_HOUR
from ledger.views import seen_of
from projections.booked import Asked, Booked, unsettled
from projections.books import FOREVER_US, Books, Period
from projections.deadlines import Deadlines
from projections.follow import catch_up
from projections.late import late_truth
from projections.matching import about_task

STUCK_HOURS = 24
PAGE_MAX = 500
LATE_PAGE_MAX = 20


class Scope(NamedTuple):
    """Which tasks are looked at: of that provider, that ended, or held something, from *since_us* to *until_us*."""

    provider: str | None = None
    since_us: int = 0
    until_us: int = FOREVER_US

    def has(self, found: Difference) -> bool:
        return self.provider in (None, found.provider) and self.since_us <= found.since_us < self.until_us


async def settlement(
    books: Asked, *, now_us: int, stuck_hours: int, scope: Scope | None = None
) -> AsyncIterator[list[Difference]]:
    """Tasks whose money is not settled as the rules have it, page by page, each as a break of kind *unsettled*."""
    scope = scope or Scope()
    async for page in unsettled(books, held_before_us=now_us - stuck_hours * US_PER_HOUR):
        yield [found for found in map(_unsettled, page) if scope.has(found)]


def _unsettled(task: Booked) -> Difference:
    if task.refunded_micros > task.charged_micros:
        at_stake_micros = task.refunded_micros - task.charged_micros
        detail = f"{credits_text(task.refunded_micros)} given back of {credits_text(task.charged_micros)} charged"
    elif task.held_micros < 0:
        at_stake_micros, detail = -task.held_micros, "more was taken out of holds than had been held"
    else:
        at_stake_micros = task.held_micros
        held = f"{credits_text(task.held_micros)} held"
        detail = f"{held} for a task that is {task.status}"
    return about_task(task, BreakKind.UNSETTLED, at_stake_micros, detail)


# Late truth


async def late_truths(
    engine: Engine, deadlines: Deadlines, *, scope: Scope | None = None
) -> AsyncIterator[list[Difference]]:
    """Tasks of which something else was reported after their outcome, page by page, as they stand now."""
    scope, beyond = scope or Scope(), None
    while tasks := await deadlines.late_tasks(beyond=beyond, limit=LATE_PAGE_MAX):
        yield [found for found in await late_truths_of(engine, deadlines, tasks) if scope.has(found)]
        beyond = tasks[-1]


async def late_truths_of(engine: Engine, deadlines: Deadlines, tasks: Sequence[TaskId]) -> list[Difference]:
    """The same of these tasks, of which there are at most `LATE_PAGE_MAX`: their rows may be large."""
    reports, placed = await deadlines.late_of(tasks), await engine.tasks(tasks)
    told = (late_truth(seen_of(placed[task]).task, reports[task]) for task in tasks)
    return [found for found in told if found is not None]


# Balances


class Balance(NamedTuple):
    """What an account has open and has paid, in micro-credits."""

    held_micros: int = 0
    net_micros: int = 0


def apart(
    books: Mapping[str, Balance], other: Mapping[str, Balance], *, whose: str, at_us: int
) -> Iterator[Difference]:
    """The accounts of which the books say something else than *whose* figures."""
    for account in sorted({*books, *other}):
        here, there = books.get(account, Balance()), other.get(account, Balance())
        if here != there:
            yield Difference(
                provider="",
                kind=BreakKind.AMOUNT,
                about=f"account {account} by {whose}",
                at_stake_micros=abs(here.held_micros - there.held_micros) + abs(here.net_micros - there.net_micros),
                since_us=at_us,
                detail=f"account {account}: {_words(here)} in the books, {_words(there)} by {whose}",
            )


async def balances(engine: Engine, books: Books, *, now_us: int) -> list[Difference]:
    """Where the books and the rows of the tasks differ, of one moment: not for an engine that serves."""
    async with engine.snapshot():
        position = (await engine.head()).position
        await catch_up(engine, books, until=position)
        kept: dict[str, Balance] = {}
        for (purpose, _), sums in (await books.totals(Period(position))).items():
            held_micros, net_micros = kept.get(purpose.account, Balance())
            kept[purpose.account] = Balance(held_micros + sums.open_micros, net_micros + sums.net_micros)
        rows = await _of_the_rows(engine)
    return list(apart(kept, rows, whose="the rows of its tasks", at_us=now_us))


async def _of_the_rows(engine: Engine) -> dict[str, Balance]:
    balances: dict[str, Balance] = {}
    after: TaskId | None = None
    while page := await engine.page(TaskFilter(after=after, oldest_first=True, limit=PAGE_MAX)):
        for row in (placed.row for placed in page):
            held_micros, net_micros = balances.get(row.account, Balance())
            net_micros += row.charged_micros - row.refunded_micros
            balances[row.account] = Balance(held_micros + row.held_micros, net_micros)
        after = page[-1].row.task_id
    return balances


def _words(balance: Balance) -> str:
    return f"{credits_text(balance.held_micros)} held and {credits_text(balance.net_micros)} charged"

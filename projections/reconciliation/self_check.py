"""The ledger held against itself, task by task: whether money is settled by rule, and late reports agree with it."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.engine import Engine
from ledger.events import BreakKind
from ledger.ids import TaskId
from ledger.money import credits_text
from ledger.times import US_PER_HOUR
from ledger.views import seen_of
from projections.books.booked import Asked, Booked, unsettled
from projections.books.books import FOREVER_US
from projections.deadlines.deadlines import Deadlines
from projections.deadlines.late_reports import late_truth
from projections.reconciliation.differences import about_task

STUCK_HOURS = 24
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

"""The ledger held against itself, task by task: whether every task's money is settled as the rules have it."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.events import BreakKind
from ledger.money import credits_text
from ledger.times import US_PER_HOUR
from projections.booked import Asked, Booked, unsettled
from projections.books import FOREVER_US
from projections.matching import about_task

STUCK_HOURS = 24


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

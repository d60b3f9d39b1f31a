"""What an honest provider bills: one line for a task, or several that add up to what the ledger has charged for it.

A provider knows its own id of a task, ours, or both. What has ended is billed within two days, at what the ledger's row
says: charged less given back. What was begun in vain is listed at nothing, or not at all; what is under way is billed
when it ends. Its words are the ledger's own (chosen: every provider has others, and whoever reads a statement maps
them); a task that expired here has failed there, where nobody was told of the deadline.
"""

from collections.abc import AsyncIterator, Sequence
from random import Random

import msgspec
from msgspec.structs import replace

from ledger.engine import Engine
from ledger.ids import Spelling
from ledger.records import TaskFilter
from ledger.task import TERMINAL, Status, Task
from ledger.times import US_PER_DAY
from ledger.views import seen_of
from scripts.simulation.jobs import chance

PAGE = 1000
CURRENCY = "credits"
BILLED_WITHIN_US = 2 * US_PER_DAY
SPLIT_SHARE, LISTED_SHARE = 0.05, 0.5
"""Of what was paid for, the share that is billed in parts; of what was begun in vain, that which is listed."""
ONE_ID_SHARE = 0.06
"""Of the tasks, those billed without our id, and as many without theirs."""
SPLIT_MIN_MICROS = 1000
"""What costs less is billed in one line."""

WORDS = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.EXPIRED: "failed",
}


class Line(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A line of the statement. Amounts are micro-credits, times Unix microseconds."""

    line_id: str
    provider_task_id: str | None
    our_task_id: str | None
    model: str
    status: str
    amount_micros: int
    currency: str
    started_at_us: int
    finished_at_us: int
    billed_at_us: int


class Billed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the ledger says of one of the provider's tasks; *task* is its id as the native API spells it."""

    task: str
    provider_task_id: str | None
    model: str
    status: Status
    net_micros: int
    estimated_micros: int
    runs: int
    started_at_us: int
    finished_at_us: int | None
    cancel_requested_at_us: int | None


class Bill(msgspec.Struct, frozen=True, gc=False):
    """A task, and the lines that bill it, if any do."""

    task: Billed
    lines: tuple[Line, ...]

    @property
    def amount_micros(self) -> int:
        return sum(line.amount_micros for line in self.lines)


async def billed_by(engine: Engine, provider: str) -> AsyncIterator[Billed]:
    """The provider's tasks, in order of creation."""
    wanted = TaskFilter(oldest_first=True, limit=PAGE)
    while rows := await engine.page(wanted):
        for placed in rows:
            task = seen_of(placed).task
            if task.provider == provider:
                yield _billed(task)
        wanted = replace(wanted, after=rows[-1].row.task_id)


def _billed(task: Task) -> Billed:
    run = task.run
    return Billed(
        task=Spelling.UUID.spell(task.task_id),
        provider_task_id=run.provider_task_id,
        model=task.resolved_model or task.model,
        status=task.status,
        net_micros=task.net_micros,
        estimated_micros=task.terms.estimated_micros,
        runs=run.number,
        started_at_us=task.created_at_us if run.started_at_us is None else run.started_at_us,
        finished_at_us=run.finished_at_us,
        cancel_requested_at_us=run.cancel_requested_at_us,
    )


def bill(task: Billed, dice: Random) -> Bill:
    """What an honest provider has to say of *task*."""
    begun = task.provider_task_id is not None
    if task.status not in TERMINAL or not (task.net_micros or (begun and chance(dice, LISTED_SHARE))):
        return Bill(task, ())
    ours, theirs = _ids(task, dice)
    amounts = _amounts(task.net_micros, dice)
    return Bill(
        task, tuple(replace(line(task, dice, amount), our_task_id=ours, provider_task_id=theirs) for amount in amounts)
    )


def line(task: Billed, dice: Random, amount_micros: int) -> Line:
    """A line about *task*, with all that is known of it."""
    finished_at_us = task.started_at_us if task.finished_at_us is None else task.finished_at_us
    return Line(
        line_id=dice.randbytes(8).hex(),
        provider_task_id=task.provider_task_id,
        our_task_id=task.task,
        model=task.model,
        status=WORDS.get(task.status, "completed"),
        amount_micros=amount_micros,
        currency=CURRENCY,
        started_at_us=task.started_at_us,
        finished_at_us=finished_at_us,
        billed_at_us=finished_at_us + dice.randrange(BILLED_WITHIN_US),
    )


def _ids(task: Billed, dice: Random) -> tuple[str | None, str | None]:
    """Ours and theirs. Where a task ran more than once theirs names one run only, so ours is always there."""
    share = dice.random()
    if share < ONE_ID_SHARE:
        return task.task, None
    if share < 2 * ONE_ID_SHARE and task.provider_task_id is not None and task.runs == 1:
        return None, task.provider_task_id
    return task.task, task.provider_task_id


def _amounts(net_micros: int, dice: Random) -> Sequence[int]:
    """The amount in one, or in two or three parts, no two of them equal: those would look like one billed twice."""
    if net_micros < SPLIT_MIN_MICROS or not chance(dice, SPLIT_SHARE):
        return (net_micros,)
    shares = dice.choice(((1, 2), (1, 2, 3)))
    parts = [net_micros * share // sum(shares) for share in shares[:-1]]
    return (*parts, net_micros - sum(parts))

"""What the books know of each task: whose it is, how it stands, and what has been charged for it.

One row a task, moved on by its events (`booked_steps`). It is what a provider's statement is held against, and what is
asked whether anything is left unsettled.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Container, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from ledger.ids import TaskId
from projections.books.booked_sql import (
    BILLED,
    BY_END,
    BY_ID,
    BY_PROVIDER_ID,
    HELD,
    IDS_BY_END,
    OPEN_HOLDS,
    PURPOSES_NUMBERED,
    READ_MAX,
    REFUNDED_TOO_MUCH,
)
from projections.books.books_sql import LOW_BITS
from projections.books.movements import Purpose

PAGE_MAX = 2000
"""Tasks that go by together."""


class Booked(msgspec.Struct, frozen=True, gc=False):
    """A task in the books. Amounts are micro-credits, times are Unix microseconds."""

    task: TaskId
    purpose: Purpose
    """What its money is for, the model that was ordered among it; one object for all tasks of one purpose."""
    model: str
    """The one that makes it, as the provider bills it."""
    created_at_us: int
    status: str
    finished_at_us: int | None
    cancel_requested_at_us: int | None
    held_at_us: int | None
    """When something was last held for it."""
    held_micros: int
    charged_micros: int
    refunded_micros: int
    billed_came: int
    """The position of the log at which the latest of the statements came that have billed it; 0: none has."""
    identified: bool
    """Whether anybody has told the provider's own id of it."""
    billed_micros: int
    """What its provider has billed for it, in all statements that have been read."""

    @property
    def net_micros(self) -> int:
        """What the customer has paid for it, all said and done."""
        return self.charged_micros - self.refunded_micros


Purposes: TypeAlias = dict[int, Purpose]
"""By their numbers in the file."""


class Asked(Protocol):
    """The books, as far as they answer questions."""

    async def ask(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        """The rows that a statement gives."""


class Holds(NamedTuple):
    """For how many tasks something is held, and how many micro-credits that is in all."""

    tasks: int
    held_micros: int


async def open_holds(books: Asked) -> Holds:
    """What is held now."""
    ((tasks, high, low),) = await books.ask(OPEN_HOLDS)
    return Holds(tasks, (high << LOW_BITS) + low)


async def by_ids(books: Asked, ids: Sequence[TaskId]) -> dict[TaskId, Booked]:
    """Those of these tasks that there are."""
    found: dict[TaskId, Booked] = {}
    purposes: Purposes = {}
    for start in range(0, len(ids), READ_MAX):
        some = ids[start : start + READ_MAX]
        rows = await books.ask(BY_ID, (*some, *[None] * (READ_MAX - len(some))))
        found |= {one.task: one for one in await _booked(books, rows, purposes)}
    return found


async def by_provider_ids(books: Asked, provider: str, ids: Sequence[str]) -> dict[str, Sequence[Booked]]:
    """The tasks that go by these ids, no two the same, at *provider*, in the order of ours.

    Mostly it is one for each, and then a tuple, as in `Assigned.groups`.
    """
    found: dict[str, Sequence[Booked]] = {}
    purposes: Purposes = {}
    for start in range(0, len(ids), READ_MAX):
        wanted = msgspec.json.encode(ids[start : start + READ_MAX]).decode()
        rows = await books.ask(BY_PROVIDER_ID, (wanted, provider))
        found |= _by_name([row[-1] for row in rows], await _booked(books, rows, purposes))
    return found


def _by_name(names: Sequence[str], tasks: Sequence[Booked]) -> dict[str, Sequence[Booked]]:
    found: dict[str, Sequence[Booked]] = dict(zip(names, zip(tasks, strict=True), strict=True))
    if len(found) == len(tasks):
        return found
    several: defaultdict[str, list[Booked]] = defaultdict(list)
    for name, task in zip(names, tasks, strict=True):
        several[name].append(task)
    return {name: sorted(own, key=lambda one: one.task) for name, own in several.items()}


async def by_end(books: Asked, provider: str, *, since_us: int, until_us: int) -> AsyncIterator[list[Booked]]:
    """The tasks of *provider* that ended from *since_us* on and before *until_us*, in order, page by page."""
    at, task = since_us - 1, b"\xff" * 17
    purposes: Purposes = {}
    while True:
        values = {"at": at, "task": task, "until": until_us, "provider": provider, "limit": PAGE_MAX}
        page = await _booked(books, await books.ask(BY_END, values), purposes)
        if not page:
            return
        yield page
        at, task = page[-1].finished_at_us or 0, page[-1].task


async def by_end_but(
    books: Asked, provider: str, known: Container[TaskId], *, since_us: int, until_us: int
) -> AsyncIterator[list[Booked]]:
    """As `by_end`, without those that are *known*: of these no more than their ids is read, a fifth of the work."""
    at, task = since_us - 1, b"\xff" * 17
    while True:
        values = {"at": at, "task": task, "until": until_us, "provider": provider, "limit": PAGE_MAX}
        page = await books.ask(IDS_BY_END, values)
        if not page:
            return
        rest = [TaskId(row[0]) for row in page if row[0] not in known]
        found = await by_ids(books, rest)
        yield [found[one] for one in rest]
        task, at = page[-1]


async def unsettled(books: Asked, *, held_before_us: int) -> AsyncIterator[list[Booked]]:
    """The tasks that break an invariant of money, or hold something since before *held_before_us*, page by page."""
    purposes: Purposes = {}
    for statement in (HELD, REFUNDED_TOO_MUCH):
        task = b""
        while True:
            values = {"task": task, "limit": READ_MAX}
            values |= {"held_before": held_before_us} if statement is HELD else {}
            page = await _booked(books, await books.ask(statement, values), purposes)
            if not page:
                break
            yield page
            task = page[-1].task


async def _booked(books: Asked, rows: Sequence[Sequence[Any]], purposes: Purposes) -> list[Booked]:
    """The tasks of these rows; what they are for is read once, and among *purposes* from then on.

    Alternative beaten: its five names beside each task, which took a third of the time of reading one.
    """
    unknown = {row[1] for row in rows}.difference(purposes)
    if unknown:
        told = await books.ask(PURPOSES_NUMBERED, (msgspec.json.encode(sorted(unknown)).decode(),))
        purposes.update((number, Purpose(*names)) for number, *names in told)
    tasks = []
    for row in rows:
        purpose, resolved = purposes[row[1]], row[2]
        model = purpose.model if resolved is None else resolved
        billed_micros = (row[BILLED] << LOW_BITS) + row[BILLED + 1]
        tasks.append(Booked(row[0], purpose, model, *row[3:BILLED], billed_micros))  # type: ignore[call-arg]  # the columns are its fields, in order
    return tasks

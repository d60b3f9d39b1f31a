"""The audit's second pass: every task's row against a fresh fold of its events, and its claims against theirs."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from ledger.engine import ERASES, Engine
from ledger.events import (
    Cancelled,
    Claimed,
    Completed,
    Created,
    Expired,
    Failed,
    MoneyEvent,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.ids import TaskId
from ledger.records import ClaimId, ClaimRow, Placed, Recorded, TaskFilter
from ledger.settlement import violations
from ledger.task import Task, fold
from ledger.views import row_of
from projections.audit.accounts import AccountBooks
from projections.audit.findings import Check, Findings, Meter, differences, name_of, sound
from projections.facts import brief

PAGE = 64


class TaskPass:
    """The tasks, newest first."""

    def __init__(self, engine: Engine, found: Findings, meter: Meter, books: AccountBooks) -> None:
        self.tasks = 0
        self.events = 0
        self.complete = True
        """Whether every row and its events were read."""
        self._engine, self._found, self._meter, self._books = engine, found, meter, books

    async def read(self) -> None:
        before: TaskId | None = None
        while page := await self._page(before):
            await self._check(page)
            last = page[-1].row.task_id
            if before is not None and last >= before:
                self._give_up(before, "the rows are out of order")
                return
            before = last

    async def _page(self, before: TaskId | None) -> list[Placed]:
        """The next rows; of a page that cannot be read, the first row if that can."""
        for limit in (PAGE, 1):
            try:
                return sound(await self._engine.page(TaskFilter(before=before, limit=limit)), list[Placed])
            except Exception as error:  # noqa: BLE001 - as `log_pages`
                problem = brief(error)
        self._give_up(before, problem)
        return []

    def _give_up(self, before: TaskId | None, problem: str) -> None:
        where = "of the newest task" if before is None else f"of the task before {name_of(before)}"
        self._found.add(Check.UNREADABLE, f"the row {where} cannot be read, nor those after it checked: {problem}")
        self.complete = False

    async def _check(self, page: Sequence[Placed]) -> None:
        histories = await self._histories([placed.row.task_id for placed in page])
        claimed: list[Taken] = []
        for placed in page:
            self.tasks += 1
            rows = histories.get(placed.row.task_id)
            if rows is None:
                continue
            self.events += len(rows)
            self._meter.add(len(rows))
            for row, event in zip(rows, self._task(placed, rows), strict=False):
                place = (row.stream, row.position, row.entry.recorded_at_us, row.version, rows[-1].version)
                claimed += [Taken(event, claim, *place) for claim in event.claims]
        if claimed:
            await self._claims(claimed)

    async def _histories(self, tasks: Sequence[TaskId]) -> dict[TaskId, list[Recorded]]:
        """The events of each of these tasks, but for those whose events cannot be read."""
        try:
            rows = sound(await self._engine.streams(tasks), list[Recorded])
        except Exception:  # noqa: BLE001 - as `log_pages`
            return {task: told for task in tasks if (told := await self._history(task)) is not None}
        streams = {stream: list(group) for stream, group in groupby(rows, key=lambda row: row.stream)}
        return {task: streams.get(task, []) for task in tasks}

    async def _history(self, task: TaskId) -> list[Recorded] | None:
        try:
            return sound(await self._engine.streams([task]), list[Recorded])
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            self._found.add(Check.UNREADABLE, f"the task's events cannot be read: {brief(error)}", task=task)
            self.complete = False
            return None

    def _task(self, placed: Placed, rows: Sequence[Recorded]) -> list[TaskEvent]:
        """Check one task; its events, or none when one of them cannot be told, which the first pass has named."""
        task = placed.row.task_id
        if not rows:
            self._found.add(Check.VERSIONS, "the task's row has no events", task=task)
            return []
        for check, position, detail in _order_violations(rows):
            self._found.add(check, detail, position=position, task=task)
        for check, position, detail in _seal_violations(placed, rows):
            self._found.add(check, detail, position=position, task=task)
        try:
            events: list[TaskEvent] = [row.event for row in rows]  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - whatever damage makes a decoder raise
            return []
        for check, position, detail in life_violations([row.position for row in rows], events):
            self._found.add(check, detail, position=position, task=task)
        try:
            fresh = fold(events, task)
        except Exception as error:  # noqa: BLE001 - whatever damage makes a fold raise
            detail = f"cannot be folded: {brief(error)}"
            self._found.add(Check.HISTORY, detail, position=rows[-1].position, task=task)
        else:
            self._row(placed, fresh, last=rows[-1].position)
            self._books.task(fresh, [row.position for row in rows], events)
            for row in rows:
                if row.account != fresh.account:
                    detail = f"account is {row.account!r}, the task's is {fresh.account!r}"
                    self._found.add(Check.HISTORY, detail, position=row.position, task=task)
        return events

    def _row(self, placed: Placed, fresh: Task, *, last: int) -> None:
        """Compare the row with the fold of the events, the last of which stands at *last*."""
        wanted = Placed(row=row_of(fresh), position=last)
        for detail in differences("row", placed.row, wanted.row):
            self._found.add(Check.ROW, detail, position=last, task=fresh.task_id)
        if placed.position != last:
            detail = f"row: position is {placed.position}, the events give {last}"
            self._found.add(Check.ROW, detail, position=last, task=fresh.task_id)
        for detail in violations(fresh):
            self._found.add(Check.MONEY, detail, position=last, task=fresh.task_id)

    async def _claims(self, claimed: Sequence["Taken"]) -> None:
        """Check that the idempotency keys that these events took are taken."""
        ids = [one.id for one in claimed]
        try:
            rows = sound(await self._engine.claims(ids), dict[ClaimId, ClaimRow])
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            self._found.add(Check.UNREADABLE, f"claims cannot be read: {brief(error)}", task=claimed[0].stream)
            return
        for claim_id, one in zip(ids, claimed, strict=True):
            problem = claim_problem(one, rows.get(claim_id))
            if problem is not None:
                claim = one.claim
                detail = f"claim {claim.operation} {claim.key!r} of account {claim.account!r} {problem}"
                self._found.add(Check.CLAIMS, detail, position=one.position, task=one.stream)


Violation = tuple[Check, int, str]
"""What is broken, the position where it shows, and in words."""


def _order_violations(rows: Sequence[Recorded]) -> Iterable[Violation]:
    """Where versions are not 1..n in the order of the log, or recorded time runs backwards."""
    version, position, recorded_at_us = 0, 0, 0
    for row in rows:
        if row.version != version + 1:
            yield Check.VERSIONS, row.position, f"version {row.version} follows {version}"
        if row.position <= position:
            yield Check.VERSIONS, row.position, f"version {row.version} stands before version {version} in the log"
        if row.entry.recorded_at_us < recorded_at_us:
            yield Check.HISTORY, row.position, "was recorded before the event before it"
        version, position, recorded_at_us = row.version, row.position, row.entry.recorded_at_us


def _seal_violations(placed: Placed, rows: Sequence[Recorded]) -> Iterable[Violation]:
    """Where a task's key is not there exactly as long as there is content that nobody has deleted."""
    last, is_sealed, is_erased = rows[-1].position, False, False
    for row in rows:
        if is_erased and row.entry.payload is not None:
            yield Check.SEALS, row.position, "has content after the deletion"
        is_sealed |= row.entry.payload is not None
        is_erased |= row.entry.type == ERASES
    if placed.seal_key is None:
        if is_sealed and not is_erased:
            yield Check.SEALS, last, "the key of its content is not there, and nobody deleted it"
    elif is_erased:
        yield Check.SEALS, last, "the key of its content is still there after the deletion"
    elif not is_sealed:
        yield Check.SEALS, last, "there is a key, and no content that it opens"


def life_violations(positions: Sequence[int], events: Sequence[TaskEvent]) -> Iterable[Violation]:
    """What cannot follow in a task's life on what went before."""
    is_over = False
    money_keys: set[str] = set()
    for number, event in enumerate(events):
        kind = type(event)
        if (kind is Created) is (number > 0):
            yield Check.HISTORY, positions[number], "a task begins with `created`, and once"
        if kind in _OUTCOMES:
            if is_over:
                yield Check.HISTORY, positions[number], "a second outcome of the same run"
            is_over = True
        elif kind is UpdateRequested:
            is_over = False
        elif isinstance(event, MoneyEvent):
            if event.key in money_keys:
                yield Check.MONEY, positions[number], f"money key {event.key!r} moves money a second time"
            money_keys.add(event.key)


_OUTCOMES = frozenset({Completed, Failed, Cancelled, Expired, UpdateReverted})


class Taken(NamedTuple):
    """A claim, the event that made it, where that stands, and how many events its task has."""

    event: TaskEvent
    claim: Claimed
    stream: bytes
    position: int
    recorded_at_us: int
    version: int
    versions: int

    @property
    def id(self) -> ClaimId:
        return self.claim.account, self.claim.operation, self.claim.key


def claim_problem(taken: Taken, stands: ClaimRow | None) -> str | None:
    """What is wrong with the row of a claim.

    Claims of creations hold for ever. Others lapse: the row may be that of a later request, of which there need not
    be an event.
    """
    if stands is None:
        return "is not there"
    if not isinstance(taken.event, Created) and stands.at_us > taken.recorded_at_us:
        return None
    if stands.task_id != taken.stream:
        return f"points at task {name_of(stands.task_id)}"
    if stands.fingerprint != taken.claim.fingerprint:
        return "has the fingerprint of another request"
    if not stands.appended or not taken.version <= stands.version <= taken.versions:
        return "does not point at what its request did"
    return None

"""A part of a replay: the tasks between two ids, folded from their events and held against their live rows.

What an account comes to is added up at one position for all parts, so that the parts can be read while others write.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ledger.credit import Credit, evolve_credit, moves
from ledger.engine import ERASES
from ledger.event_bytes import decode
from ledger.events import CreditGranted, CreditLimited, CreditRevoked, TaskEvent
from ledger.ids import TaskId
from ledger.records import SUM_MAX_MICROS, AccountRow
from ledger.seals import Opener
from ledger.sqlite_rows import task_values
from ledger.task import Task, fold
from ledger.views import row_of
from projections.facts import brief
from projections.replay.account_sums import Sums
from projections.replay.refold import refold, row_values
from projections.replay.replay_sql import CREDIT, HISTORY, KEY
from projections.replay.task_pages import Part, Row, Story, pages, reading


class FullRow(NamedTuple):
    """What is read of the events of one task when that is looked at by itself."""

    position: int
    version: int
    type: str
    facts: str
    payload: bytes | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose live row is not what its events give. None: there is no row, or there should be none."""

    task: bytes
    live: Row | None
    fresh: Row | None
    problem: str | None = None
    """Why the events give nothing that could be compared."""
    key: bytes | None = None
    """What its content opens with."""
    is_erased: bool = False
    """Its task has been deleted: whatever content its row has is not to be kept anywhere."""


class AccountDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose live row is not what the log gives. None: there is no row, or there should be none."""

    account: str
    live: AccountRow | None
    fresh: AccountRow | None


class Found(msgspec.Struct):
    """What a part came to."""

    tasks: int = 0
    events: int = 0
    """Of tasks."""
    differences: list[Difference] = []
    sums: dict[str, Sums] = {}

    def sums_of(self, account: str) -> Sums:
        found = self.sums.get(account)
        if found is None:
            found = self.sums[account] = Sums()
        return found


class Until(NamedTuple):
    """As of when accounts are added up: events up to *position* that had happened by *at_us*."""

    position: int
    at_us: int = SUM_MAX_MICROS


def replay_part(path: Path, part: Part, until: Until) -> Found:
    """Fold the part, compare its rows, and add up its accounts as of *until*."""
    found = Found()
    with reading(path) as db:
        for page in pages(db, part):
            for story in page.stories:
                _task(db, found, story, page.live.pop(story.stream, None), page.keys.get(story.stream), until)
            for stream in page.beside:
                put_terms(db, found, stream, until)
            found.differences += [
                Difference(task=task, live=row, fresh=None, key=page.keys.get(task)) for task, row in page.live.items()
            ]
    return found


def _task(  # noqa: PLR0913, PLR0917 - what is known of it, and as of when
    db: sqlite3.Connection, found: Found, story: Story, live: Row | None, key: bytes | None, until: Until
) -> None:
    found.tasks += 1
    found.events += len(story.positions)
    task = agreeing(story, live, key)
    if task is None:
        history = history_of(db, story.stream)
        difference = compare(story.stream, history, live, key)
        if difference is not None:
            found.differences.append(difference)
            if difference.problem is not None:
                return
        story = story._replace(events=events_of(history))
    count(found, story, task, until)


def count(found: Found, story: Story, task: Task | None, until: Until) -> None:
    """Add the task to its account, as of *until*; None: it is to be folded for this."""
    positions, events = story.positions, story.events
    assert events is not None, "read by now"
    if task is None or positions[-1] > until.position or until.at_us != SUM_MAX_MICROS:
        counted = [
            (position, event)
            for position, event in zip(positions, events, strict=True)
            if position <= until.position and event.at_us <= until.at_us
        ]
        if not counted:
            return
        positions, events = [position for position, _ in counted], [event for _, event in counted]
        task = fold(events, TaskId(story.stream))
    moved_at = moved_last(positions, events)
    if moved_at:
        sums = found.sums_of(task.account)
        sums.add(task)
        sums.move_on(moved_at)


def agreeing(story: Story, live: Row | None, key: bytes | None) -> Task | None:
    """The task, if its row is right; None: the fold that decides is to say so, or what is wrong."""
    if story.events is None:
        return None
    try:
        task = refold(story.stream, story.events, story.sealed, key)
        return task if row_values(task, story.positions[-1]) == live else None
    except Exception:  # noqa: BLE001 - whatever it is, the fold that decides will name it
        return None


def moved_last(positions: Sequence[int], events: Sequence[TaskEvent]) -> int:
    """Where in the log the task last moved its account; 0: never."""
    for number in range(len(events) - 1, -1, -1):
        if moves(events[number]):
            return positions[number]
    return 0


# One task by itself, and by the fold that decides


def key_of(db: sqlite3.Connection, task: bytes) -> bytes | None:
    found = db.execute(KEY, (task,)).fetchone()
    return None if found is None else found[0]


def history_of(db: sqlite3.Connection, task: bytes) -> list[FullRow]:
    return [FullRow(*row) for row in db.execute(HISTORY, (task,))]


def compare(stream: bytes, history: Sequence[FullRow], live: Row | None, key: bytes | None) -> Difference | None:
    """How the row differs from what `ledger.task.fold` makes of the events."""
    problem, fresh = None, None
    try:
        if history:
            fresh = task_values(row_of(folded(stream, history, key)), history[-1].position)
    except Exception as error:  # noqa: BLE001 - whatever damage makes a decoder or a fold raise
        problem = brief(error)
    if problem is None and fresh == live:
        return None
    is_erased = any(row.type == ERASES for row in history)
    return Difference(task=stream, live=live, fresh=fresh, problem=problem, key=key, is_erased=is_erased)


def folded(stream: bytes, history: Sequence[FullRow], key: bytes | None) -> Task:
    """The task of these events by the fold that decides."""
    opener = None if key is None else Opener(key, stream)
    events: list[TaskEvent] = []
    for row in history:
        payload = None if row.payload is None or opener is None else opener.opened(row.payload, row.version)
        events.append(decode(row.facts.encode(), payload))  # type: ignore[arg-type]  # its stream holds no others
    return fold(events, TaskId(stream))


def events_of(history: Sequence[FullRow]) -> list[TaskEvent]:
    """The same without their content."""
    return [decode(row.facts.encode(), None) for row in history]  # type: ignore[misc]  # its stream holds no others


def put_terms(db: sqlite3.Connection, found: Found, stream: bytes, until: Until) -> None:
    """Set what an account was given by its own stream."""
    credit, position, name = Credit(), 0, None
    for account, version, at, facts in db.execute(CREDIT, (stream, *until)):
        event = decode(facts.encode(), None)
        assert isinstance(event, CreditLimited | CreditGranted | CreditRevoked), "asked for by their types"
        evolve_credit(credit, event)
        credit.version, position, name = version, at, account
    if name is not None:
        sums = found.sums_of(name)
        sums.set_terms(credit)
        sums.move_on(position)

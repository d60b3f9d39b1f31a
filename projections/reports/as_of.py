"""Tasks as they stood: at a position of the log, at a time as it was known then, or at a time as it had happened.

By recorded time a moment is a position: what had been written down by then. By effective time it is what had happened
at its source by then, as far as the log knows today; a late report that came after others may lie before them. What
was deleted since is shown without its content, for that is gone from the past as well.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from msgspec.structs import replace

from ledger.engine import Engine
from ledger.ids import ENTROPY_BYTES, TaskId, task_id
from ledger.ledger import fold_rows
from ledger.records import Recorded, TaskFilter
from ledger.task import Task
from ledger.times import parse_rfc3339
from projections.books.books import FOREVER_US, Clock
from projections.places import NoSuchPlaceError, Place, place_of
from projections.reports.parameters import clock_of, place_in

LOOKED_AT_MAX = 500
"""Tasks looked at for one page of a list; their events are what is read."""
CHUNK = 50
BYTES_MAX = 8 * 2**20
"""Of views whose tasks are looked at at once."""


class Moment(NamedTuple):
    """What counts: events up to *place*, that had happened by *until_us*."""

    place: Place
    until_us: int = FOREVER_US

    def shown(self, rows: Sequence[Recorded]) -> list[Recorded]:
        """Those of a task's events, oldest first, that count: none without its creation.

        A report after the outcome keeps the time that its source gives, and that may lie before the task.
        """
        shown = [row for row in rows if self._shows(row)]
        return shown if rows and self._shows(rows[0]) else []

    def _shows(self, row: Recorded) -> bool:
        return row.position <= self.place.position and row.entry.effective_at_us <= self.until_us


class Stood(NamedTuple):
    """A task at a moment, and the position of the last event that counts."""

    task: Task
    position: int


async def moment_of(engine: Engine, words: Mapping[str, str], *, clock: Clock = Clock.RECORDED) -> Moment | None:
    """The moment that ``at`` and ``clock`` name; None: now.

    Raises:
        WrongWordError: there is no such clock.
        NoSuchPlaceError: `at` names no place of this log, or, by effective time, no time.
    """
    by, at = clock_of(words, default=clock), place_in(words)
    if at is None:
        return None
    if by is Clock.RECORDED:
        return Moment(await place_of(engine, at))
    until_us = parse_rfc3339(at)
    if until_us is None:
        raise NoSuchPlaceError(f"by effective time, {at!r} is no time such as 2026-01-02T03:04:05Z")
    return Moment(await place_of(engine, None), until_us)


def stood(task: TaskId, rows: Sequence[Recorded], moment: Moment) -> Stood | None:
    """The task of these events, oldest first, as it stood; None: it had not been created."""
    counted = moment.shown(rows)
    if not counted:
        return None
    return Stood(fold_rows(task, counted), counted[-1].position)


async def task_as_of(engine: Engine, task: TaskId, moment: Moment) -> Stood | None:
    """One task as it stood."""
    return stood(task, await engine.streams([task]), moment)


async def tasks_as_of(engine: Engine, wanted: TaskFilter, moment: Moment) -> tuple[list[Stood], TaskId | None]:
    """Tasks as they stood, in the order that is *wanted*, and from where the list goes on; None: at its end.

    A page is short, with more to come, when few of many tasks fit: none looks at more than `LOOKED_AT_MAX`.
    """
    found: list[Stood] = []
    not_yet = _earlier(wanted.before, await _not_yet(engine, moment))
    where = replace(wanted, status=None, before=not_yet, limit=CHUNK, bytes_max=BYTES_MAX)
    looked_at, last = 0, None
    while looked_at < LOOKED_AT_MAX:
        page = await engine.page(where)
        ids = [placed.row.task_id for placed in page]
        lives = {stream: [*rows] for stream, rows in groupby(await engine.streams(ids), key=_stream)}
        for task in ids:
            if len(found) == wanted.limit:
                return found, last
            one = stood(task, lives.get(task, []), moment)
            if one is not None and wanted.status in (None, one.task.status):
                found.append(one)
            last = task
        if not page:
            return found, None
        looked_at += len(page)
        where = replace(where, after=last) if wanted.oldest_first else replace(where, before=last)
    return found, last


def _stream(row: Recorded) -> bytes:
    return row.stream


def _earlier(one: TaskId | None, other: TaskId | None) -> TaskId | None:
    return min((task for task in (one, other) if task is not None), default=None)


async def _not_yet(engine: Engine, moment: Moment) -> TaskId | None:
    """An id after those of all tasks that had been created: ids tell when that was."""
    if moment.place.position == 0:
        return TaskId(bytes(16))
    (row,) = await engine.after(moment.place.position - 1, 1)
    by_us = min(row.entry.recorded_at_us, moment.until_us)
    return task_id(at_us=by_us + 1000, lane=0, entropy=bytes(ENTROPY_BYTES))

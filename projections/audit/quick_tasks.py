"""A part of the tasks, quickly: whether the audit would find each row, event, history, seal and claim as it should be.

Whether, and not what: see `projections.audit.quick_check`. The rows are compared by the fold of a replay.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ledger.events import Deleted
from ledger.settlement import violations
from ledger.sqlite_rows import read_claim
from ledger.sqlite_sql import CLAIMS_BY_ID, READ_MAX
from ledger.task import Task
from projections.audit.quick_log import CheckedLog, Span, check_log, is_chained, is_said
from projections.audit.tasks import Taken, claim_problem, life_violations
from projections.replay.account_sums import Sums
from projections.replay.ranges import Found, Until, agreeing, compare, count, events_of, folded, history_of
from projections.replay.replay_sql import AUDITED
from projections.replay.task_pages import Page, Part, Row, Story, pages, reading

_POSITION, _RECORDED = map(AUDITED.columns.index, ("position", "recorded_at"))


class CheckedTasks(NamedTuple):
    """What a part without faults comes to, as of where it was asked."""

    tasks: int
    events: int
    recorded_at_us: int
    """When the last was recorded."""
    sums: Mapping[str, Sums]


Work: TypeAlias = Span | Part


def check_work(path: Path, until: int, work: Work) -> CheckedLog | CheckedTasks | None:
    """Look through it; None: something may be wrong with it. Here, where a process that does so imports the least."""
    return check_log(path, work) if isinstance(work, Span) else check_tasks(path, work, Until(until))


def check_tasks(path: Path, part: Part, until: Until) -> CheckedTasks | None:
    """Look through the part; None: something may be wrong with it."""
    found, recorded_at_us, taken = Found(), 0, list[Taken]()
    try:
        with reading(path) as db:
            for page in pages(db, part, AUDITED):
                told = _told(db, page, until, found)
                if told is None:
                    return None
                recorded_at_us = max(recorded_at_us, _recorded_last(page.rows, until))
                taken += told
                while len(taken) >= READ_MAX:
                    if not _do_stand(db, taken[:READ_MAX]):
                        return None
                    del taken[:READ_MAX]
            if not _do_stand(db, taken):
                return None
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None
    return CheckedTasks(found.tasks, found.events, recorded_at_us, found.sums)


def _recorded_last(rows: Sequence[Row], until: Until) -> int:
    return max((row[_RECORDED] for row in rows if row[_POSITION] <= until.position), default=0)


def _told(db: sqlite3.Connection, page: Page, until: Until, found: Found) -> list[Taken] | None:
    """The claims that the events of this page took; None: something may be wrong with it."""
    if not is_chained(db, page.rows):
        return None
    taken: list[Taken] = []
    for story in page.stories:
        key, live = page.keys.get(story.stream), page.live.pop(story.stream, None)
        read = _read(db, story, live, key)
        if read is None or not _is_sound(*read, has_key=key is not None):
            return None
        told, task = read
        taken += _taken(told)
        found.tasks += told.positions[0] <= until.position
        found.events += bisect_right(told.positions, until.position)
        count(found, told, task, until)
    return None if page.live else taken


def _read(db: sqlite3.Connection, story: Story, live: Row | None, key: bytes | None) -> tuple[Story, Task] | None:
    """The story with its events, and the task that they give; None: its row is another, or not there."""
    task = agreeing(story, live, key)
    if task is not None:
        return story, task
    history = history_of(db, story.stream)
    if live is None or compare(story.stream, history, live, key) is not None:
        return None
    return story._replace(events=events_of(history)), folded(story.stream, history, key)


def _is_sound(story: Story, task: Task, *, has_key: bool) -> bool:
    """Whether versions, places, times, accounts and seals of the events are in order, and the life is one."""
    _, positions, sealed, events, (versions, recorded, accounts, *said, _, _, _, _) = story
    assert events is not None, "read by now"
    contents = len(sealed) - sealed.count(None)
    if task.deleted:
        erased_at = next(at for at, event in enumerate(events) if isinstance(event, Deleted))
        is_sealed = not has_key and not any(payload is not None for payload in sealed[erased_at + 1 :])
    else:
        is_sealed = has_key is (contents > 0)
    return (
        is_sealed
        and is_said(events, *said)
        and [*versions] == [*range(1, len(versions) + 1)]
        and [*positions] == sorted(positions)
        and [0, *recorded] == sorted([0, *recorded])
        and {*accounts} == {task.account}
        and next(iter(life_violations(positions, events)), None) is None
        and not violations(task)
    )


def _taken(story: Story) -> Iterator[Taken]:
    """The claims that its events took."""
    assert story.events is not None, "read by now"
    versions, recorded, *_ = story.others
    for at, event in enumerate(story.events):
        for claim in event.claims:
            place = (story.stream, story.positions[at], recorded[at], versions[at], versions[-1])
            yield Taken(event, claim, *place)


def _do_stand(db: sqlite3.Connection, taken: Sequence[Taken]) -> bool:
    """Whether these claims, `READ_MAX` at most, are as the events say; one that was taken anew since may be."""
    some = [value for one in taken for value in one.id]
    rows = db.execute(CLAIMS_BY_ID[READ_MAX], [*some, *[None] * (3 * READ_MAX - len(some))])
    stand = {row.id: row for row in map(read_claim, rows)}
    return all(claim_problem(one, stand.get(one.id)) is None for one in taken)

"""A part of the tasks, quickly: whether the audit would find each row, history, seal and claim as they should be.

Whether, and not what: see `projections.audit.sieve`. The rows are compared by the fold of a replay.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ledger.events import Deleted
from ledger.records import ClaimId, ClaimRow
from ledger.settlement import violations
from ledger.sqlite_rows import read_claim
from ledger.sqlite_sql import CLAIMS_BY_ID, READ_MAX
from ledger.task import Task
from projections.audit.findings import is_task_stream
from projections.audit.tasks import Taken, claim_problem, life_breaks
from projections.replay.account_sums import Sums
from projections.replay.ranges import Found, Until, agreeing, compare, count, events_of, folded, history_of
from projections.replay.replay_sql import AUDITED
from projections.replay.task_pages import Page, Part, Row, Story, pages, reading


class SiftedTasks(NamedTuple):
    """What a part without faults comes to, as of where it was asked."""

    tasks: int
    events: int
    sums: Mapping[str, Sums]


def sift_tasks(path: Path, part: Part, until: Until) -> SiftedTasks | None:
    """Look through the part; None: something may be wrong with it."""
    found = Found()
    try:
        with reading(path) as db:
            for page in pages(db, part, histories=AUDITED):
                if not _is_right(db, page, until, found):
                    return None
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None
    return SiftedTasks(found.tasks, found.events, found.sums)


def _is_right(db: sqlite3.Connection, page: Page, until: Until, found: Found) -> bool:
    taken: list[Taken] = []
    for story in page.stories:
        if not is_task_stream(story.stream):
            continue
        key, live = page.keys.get(story.stream), page.live.pop(story.stream, None)
        read = _read(db, story, live, key)
        if read is None or not _is_sound(*read, has_key=key is not None):
            return False
        told, task = read
        taken += _taken(told)
        found.tasks += told.positions[0] <= until.position
        found.events += bisect_right(told.positions, until.position)
        count(found, told, task, until)
    stand = _standing(db, [one.id for one in taken])
    return not page.live and all(claim_problem(one, stand.get(one.id)) is None for one in taken)


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
    _, positions, sealed, events, (versions, recorded, accounts) = story
    assert events is not None, "read by now"
    contents = len(sealed) - sealed.count(None)
    if task.deleted:
        erased_at = next(at for at, event in enumerate(events) if isinstance(event, Deleted))
        is_sealed = not has_key and not any(payload is not None for payload in sealed[erased_at + 1 :])
    else:
        is_sealed = has_key is (contents > 0)
    return (
        is_sealed
        and [*versions] == [*range(1, len(versions) + 1)]
        and [*positions] == sorted(positions)
        and [*recorded] == sorted(recorded)
        and {*accounts} == {task.account}
        and next(iter(life_breaks(positions, events)), None) is None
        and not violations(task)
    )


def _taken(story: Story) -> Iterator[Taken]:
    """The claims that its events took."""
    assert story.events is not None, "read by now"
    versions, recorded, _ = story.others
    for at, event in enumerate(story.events):
        for claim in event.claims:
            place = (story.stream, story.positions[at], recorded[at], versions[at], versions[-1])
            yield Taken(event, claim, *place)


def _standing(db: sqlite3.Connection, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
    """Those of the claims that stand."""
    found: dict[ClaimId, ClaimRow] = {}
    for start in range(0, len(ids), READ_MAX):
        some = [value for one in ids[start : start + READ_MAX] for value in one]
        rows = db.execute(CLAIMS_BY_ID[READ_MAX], [*some, *[None] * (3 * READ_MAX - len(some))])
        found |= {(row.account, row.operation, row.key): row for row in map(read_claim, rows)}
    return found

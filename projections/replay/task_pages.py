"""The tasks between two ids, page by page: their rows, their keys, and their events, which are decoded a page at once.

Read with Python's own driver, each page in a snapshot of its own: so a row and the events that it follows from are of
one moment, no reader holds an old state for long, and memory is a page. Tasks are read in the order of their ids, which
is that of their creation, and nearly that in which their events lie: so a task's history is all at hand, where in the
order of positions each task that is under way would have to be kept.

Alternative beaten: ``apsw``, which hands rows over sooner (an event, as a replay reads it, in 0.58 us for 0.73, all of
it in 0.86 for 1.58, a task's row in half the time). It would save a twelfth of a replay, and brings an SQLite of its
own: two of them in one process lose each other's locks on a file, so no thread could work beside the processes.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ledger.event_bytes import decode_plain
from ledger.events import TaskEvent
from ledger.streams import is_task_stream
from projections.replay.replay_sql import FOLDED, KEYS, OTHERS, PAGE_TASKS, ROWS, Histories

Row: TypeAlias = tuple[Any, ...]
"""A row, in the order of the columns that it was read by: of a task all, in the order of the table."""
FIRST, LAST = b"", b"\xff" * 16
"""Before every task's id, and after."""


class Part(NamedTuple):
    """The tasks after one id and up to another."""

    after: bytes
    upto: bytes


class Story(NamedTuple):
    """The events of one stream, column by column."""

    stream: bytes
    positions: Sequence[int]
    sealed: Sequence[bytes | None]
    events: Sequence[TaskEvent] | None
    """Without their content; None: each is to be decoded by itself."""
    others: Sequence[Sequence[Any]]
    """What else was asked for of each, column by column."""


class Page(NamedTuple):
    """Some tasks, all that was read of them in one snapshot, which lasts while the page is looked at."""

    rows: list[Row]
    """Of the log, as they were read."""
    stories: list[Story]
    """The same by task."""
    live: dict[bytes, Row]
    keys: dict[bytes, bytes]
    beside: list[bytes]
    """Streams that are no task's, whose names lie among those of the tasks."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
        yield db


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def pages(db: sqlite3.Connection, part: Part, histories: Histories = FOLDED) -> Iterator[Page]:
    """All tasks of the part."""
    after: bytes | None = part.after
    while after is not None:
        with snapshot(db):
            live = db.execute(ROWS, (after, part.upto)).fetchall()
            is_last = len(live) < PAGE_TASKS
            last = live[-1][0] if live else after
            rows = db.execute(histories.told, (after, last)).fetchall()
            if is_last:
                rows += db.execute(histories.strays, (last, part.upto))
            told = [*_stories(rows)]
            stories = [one for one in told if is_task_stream(one.stream)]
            beside = [one.stream for one in told if not is_task_stream(one.stream)] if len(told) > len(stories) else []
            if is_last:
                beside += [stream for (stream,) in db.execute(OTHERS, (last, part.upto))]
            keys = dict(db.execute(KEYS, (after, part.upto if is_last else last)))
            yield Page(rows, stories, {row[0]: row for row in live}, keys, beside)
        after = None if is_last else last


def _stories(rows: Sequence[Row]) -> Iterator[Story]:
    """These rows, which are in order, by their streams."""
    if not rows:
        return
    streams, *columns = zip(*rows, strict=True)
    events, at = decode_plain(columns[1]), 0
    for stream, count in Counter(streams).items():
        positions, facts, sealed, *others = [column[at : at + count] for column in columns]
        own = decode_plain(facts) if events is None else events[at : at + count]
        at += count
        yield Story(stream, positions, sealed, own, others)  # type: ignore[arg-type]  # a task's stream holds no others

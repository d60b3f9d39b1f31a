"""The tasks between two ids, page by page: their rows, their keys, and their events, which are decoded a page at once.

Read with Python's own driver, in a process of its own where there are several, each page in a snapshot of its own: so a
row and the events that it follows from are of one moment, no reader holds an old state for long, and memory is a page.
Tasks are read in the order of their ids, which is that of their creation, and nearly that in which their events lie: so
a task's history is all at hand, where in the order of positions each task that is under way would have to be kept.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ledger.event_bytes import decode_plain
from ledger.events import TaskEvent
from projections.replay.replay_sql import HISTORIES, KEYS, PAGE_TASKS, ROWS

Row: TypeAlias = tuple[Any, ...]
"""A task's row, in the order of the table's columns."""
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
    """What else was asked for of each."""


class Page(NamedTuple):
    """Some tasks, all that was read of them in one snapshot."""

    stories: list[Story]
    """Of other streams too, whose names lie among those of the tasks."""
    live: dict[bytes, Row]
    keys: dict[bytes, bytes]


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


def pages(db: sqlite3.Connection, part: Part, *, histories: str = HISTORIES) -> Iterator[Page]:
    """All tasks of the part; *histories* is `HISTORIES`, or like it with more columns behind."""
    after: bytes | None = part.after
    while after is not None:
        with snapshot(db):
            rows = db.execute(ROWS, (after, part.upto)).fetchall()
            is_last = len(rows) < PAGE_TASKS
            last = part.upto if is_last else rows[-1][0]
            bounds = (after, last)
            stories = [*_stories(db.execute(histories, bounds).fetchall())]
            yield Page(stories, {row[0]: row for row in rows}, dict(db.execute(KEYS, bounds)))
        after = None if is_last else last


def _stories(rows: Sequence[Sequence[Any]]) -> Iterator[Story]:
    """These rows, which are in order, by their streams."""
    events, at = decode_plain([row[2] for row in rows]), 0
    for stream, group in groupby(rows, key=itemgetter(0)):
        _, positions, facts, sealed, *others = zip(*group, strict=True)
        own = decode_plain(facts) if events is None else events[at : at + len(positions)]
        at += len(positions)
        yield Story(stream, positions, sealed, own, others)  # type: ignore[arg-type]  # a task's stream holds no others

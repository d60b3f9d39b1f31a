"""Replay: what is folded from the log, folded anew beside the live rows, compared, and put in their place.

One pass over the tasks gives both projections that lie in the ledger's file: the tasks' rows and the accounts'. The log
is cut into parts by tasks, which are folded on as many cores as there are, at the lowest priority, so that a server
beside it is served first. What was recorded meanwhile is caught up with, until little is left; the switch does
the rest in one transaction of its own, in which it compares once more every task and account that has moved.

Measured in time of the processor, on the log of the benchmark (seven events a task, two of them sealed): 3.9 us an
event where a bare six-column scan takes 0.85. So a process has a fifth of the scan's rate, and two cores of their own
would have two fifths. Of the 3.9, reading takes 1.3, opening what is sealed 0.4, decoding 0.35 and encoding 0.15: were
all Python between them free, two cores would come to three quarters of the scan. Histories joined to one row a task in
SQL (``group_concat``) were read no faster. A replay took 51 MB for 17,000 events in one process, and 47 MB a process
for 118,000 in two.

So a replay never asks a writer to wait for more than that transaction, and a reader never sees anything half built:
what is built is a list of what differs, and it lies elsewhere.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ledger.breaks import switch_stream
from ledger.records import AccountRow
from ledger.sqlite_rows import read_account
from ledger.streams import is_task_stream
from projections.follow import Progress, nobody
from projections.replay.account_sums import Sums
from projections.replay.file import Place, ReplayFile
from projections.replay.ranges import (
    AccountDifference,
    Difference,
    Found,
    Until,
    compare,
    events_of,
    folded,
    history_of,
    key_of,
    moved_last,
    put_terms,
    replay_part,
)
from projections.replay.replay_sql import (
    ACCOUNT,
    ACCOUNTS,
    BORN_AT,
    HASH_AT,
    HEAD,
    IN_STREAM_SINCE,
    LOG_ID,
    ROW,
    TOUCHED,
)
from projections.replay.task_pages import FIRST, LAST, Part, snapshot
from projections.replay.workers import spread, workers_for

PART_EVENTS = 20_000
"""In a part, about: a tenth of a second, and what a replay that is killed has to do again."""
FEW_EVENTS = 64
"""So many left to catch up with are left to the switch."""
ROUNDS_MAX = 50


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay came to, as of *position*."""

    position: int
    head: str
    tasks: int
    events: int
    differing_tasks: int
    unreadable_tasks: int
    """Of these: whose events give no task. Accounts are not compared while there are any."""
    accounts: tuple[AccountDifference, ...]


def replay_tasks(
    db: sqlite3.Connection, ledger: Path, file: ReplayFile, *, workers: int, progress: Progress = nobody
) -> None:
    """Fold all parts that are to be done, begun now or by a replay that was killed, and catch up with the log."""
    place = file.place()
    if place is None or not _continues(db, place):
        head = db.execute(HEAD).fetchone()
        file.begin(Place(log_id_of(db), *head), parts_of(db, head[0]))
        place = file.place()
        assert place is not None, "just begun"
    _fold_parts(ledger, file, place.until, workers=workers, progress=progress)
    for _ in range(ROUNDS_MAX):
        with snapshot(db):
            caught_up = catch_up(db, file)
        if caught_up.events <= FEW_EVENTS:
            return


def parts_of(db: sqlite3.Connection, head: int, *, events: int | None = None) -> list[Part]:
    """All tasks, in parts of about `PART_EVENTS`, or of *events*: each ends at a task that was born that far on."""
    step = events or PART_EVENTS
    born = (db.execute(BORN_AT, (position,)).fetchone() for position in range(step, head, step))
    ends = [*sorted({found[0] for found in born if found is not None}), LAST]
    return [Part(after, upto) for after, upto in zip([FIRST, *ends], ends, strict=False)]


class CaughtUp(NamedTuple):
    """How many events had been recorded since, and the tasks and accounts that they were about."""

    events: int
    tasks: Sequence[bytes]
    accounts: Sequence[str]
    unreadable: int
    """Of these tasks: whose events give none."""


def catch_up(db: sqlite3.Connection, file: ReplayFile) -> CaughtUp:
    """Take in what has been recorded since. The caller holds a snapshot, or the lock."""
    place = file.place()
    assert place is not None, "a replay is under way"
    head, head_hash = db.execute(HEAD).fetchone()
    touched = db.execute(TOUCHED, (place.until, head)).fetchall()
    accounts = sorted({account for _, account in touched})
    compared: dict[bytes, Difference | None] = {}
    found = Found(sums=file.sums(accounts))
    for stream in dict.fromkeys(stream for stream, _ in touched):
        if is_task_stream(stream):
            compared[stream] = _touched(db, found, stream, place.until)
        else:
            put_terms(db, found, stream, Until(head))
    file.move_on(Place(place.log_id, head, head_hash), found.sums, compared)
    unreadable = sum(one is not None and one.problem is not None for one in compared.values())
    return CaughtUp(int(head) - place.until, [*compared], accounts, unreadable)


def compared(db: sqlite3.Connection, file: ReplayFile) -> Compared:
    """What the replay has come to; the caller holds what `catch_up` was held in, or accounts have moved."""
    place = file.place()
    assert place is not None, "a replay is under way"
    tasks, events = file.counted()
    unreadable = file.count_unreadable()
    return Compared(
        position=place.until,
        head=place.hash.hex(),
        tasks=tasks,
        events=events,
        differing_tasks=file.count_differing(),
        unreadable_tasks=unreadable,
        accounts=() if unreadable else tuple(_accounts(db, file.all_sums())),
    )


def compared_account(db: sqlite3.Connection, file: ReplayFile, account: str) -> AccountDifference | None:
    """How the account differs from what `catch_up` has come to; None: not at all."""
    row, sums = db.execute(ACCOUNT, (account,)).fetchone(), file.sums([account])
    live = None if row is None else read_account(row)
    return _account_difference(account, live, sums.get(account))


def _continues(db: sqlite3.Connection, place: Place) -> bool:
    """Whether a replay that was begun is one of this log, and of this history of it, and nothing was switched since.

    What it has found to differ may be what was switched to: it died before it could note that.
    """
    if place.log_id != log_id_of(db) or db.execute(IN_STREAM_SINCE, (switch_stream(), place.until)).fetchone():
        return False
    found = db.execute(HASH_AT, (place.until,)).fetchone()
    return place.until == 0 or (found is not None and found[0] == place.hash)


def log_id_of(db: sqlite3.Connection) -> str:
    """The name of the log in the file."""
    (log_id,) = db.execute(LOG_ID).fetchone()
    return bytes(log_id).decode()


# Parts


def _fold_parts(ledger: Path, file: ReplayFile, until: int, *, workers: int, progress: Progress) -> None:
    to_do = file.to_do()
    _, done = file.counted()
    for number, found in _folded(ledger, to_do, Until(until), workers=workers):
        file.save_part(number, found)
        done += found.events
        progress(done, max(until, done))


def sums_then(db: sqlite3.Connection, ledger: Path, until: Until, *, workers: int) -> dict[str, AccountRow]:
    """The accounts as they stood."""
    whole = Found()
    for _, found in _folded(ledger, [*enumerate(parts_of(db, until.position))], until, workers=workers):
        for account, sums in found.sums.items():
            whole.sums_of(account).merge(sums)
    return {account: one.row(account) for account, one in sorted(whole.sums.items()) if one.position}


def _folded(
    ledger: Path, to_do: Sequence[tuple[int, Part]], until: Until, *, workers: int
) -> Iterator[tuple[int, Found]]:
    """What each part comes to, as they come."""
    with workers_for(until.position, workers) as crew:
        yield from spread(crew, replay_part, [(number, (ledger, part, until)) for number, part in to_do])


# Catching up


def _touched(db: sqlite3.Connection, found: Found, stream: bytes, until: int) -> Difference | None:
    """Compare a task that has moved on, and move its account along."""
    history, key = history_of(db, stream), key_of(db, stream)
    difference = compare(stream, history, db.execute(ROW, (stream,)).fetchone(), key)
    if difference is not None and difference.problem is not None:
        return difference
    before, after = [row for row in history if row.position <= until], folded(stream, history, key)
    sums = found.sums_of(after.account)
    if before:
        sums.add(folded(stream, before, key), sign=-1)
    sums.add(after)
    sums.move_on(moved_last([row.position for row in history], events_of(history)))
    return difference


def _accounts(db: sqlite3.Connection, sums: dict[str, Sums]) -> Iterator[AccountDifference]:
    live = {row.account: row for row in map(read_account, db.execute(ACCOUNTS))}
    for account in sorted(live.keys() | sums.keys()):
        one = _account_difference(account, live.get(account), sums.get(account))
        if one is not None:
            yield one


def _account_difference(account: str, live: AccountRow | None, sums: Sums | None) -> AccountDifference | None:
    fresh = sums.row(account) if sums is not None and sums.position else None
    return None if live == fresh else AccountDifference(account=account, live=live, fresh=fresh)

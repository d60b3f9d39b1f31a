"""The audit: a ledger that only this program wrote is clean, and nothing done to one from outside goes unnoticed."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from ledger.chain import GENESIS, Place, link
from ledger.credit import move_of
from ledger.engine import Engine
from ledger.errors import CannotOpenError, StorageError
from ledger.event_bytes import decode
from ledger.events import (
    AccountEvent,
    Cancelled,
    Charged,
    Claimed,
    Completed,
    CreditGranted,
    CreditLimited,
    CreditRevoked,
    Deleted,
    KeyIssued,
    KeyRevoked,
    Payload,
    Progressed,
    Refunded,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.ids import Spelling
from ledger.keys import Role, account_stream
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.records import (
    AccountRow,
    Append,
    ClaimId,
    ClaimRow,
    CreditTerms,
    Entry,
    Head,
    KeyRow,
    Placed,
    Recorded,
    TaskFilter,
)
from ledger.sqlite_rows import read_event
from ledger.sqlite_sql import EVENTS
from ledger.task import NO_TASK, evolve, fold
from ledger.views import row_of
from projections.audit import findings as audit_findings
from projections.audit.audit import audit
from projections.audit.findings import FINDINGS_MAX, UNREADABLE_MAX, Check, Finding, Report
from tests import stored
from tests.builders import (
    ACCOUNT,
    CREATED_US,
    SEAL_KEY,
    STRANGER,
    Watched,
    append,
    cancel,
    claim,
    complete,
    create,
    delete,
    entries,
    ident,
    key_row,
    sealed,
    start,
)
from tests.rules_dsl import ON_SUCCESS, at, given
from tests.rules_dsl import create as create_of_the_rules

SEEDS_PER_TAMPERING = 4
FLIPPED_FILES = 100


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


async def audited(path: Path) -> Report:
    async with stored.reading(path) as engine:
        return await audit(engine)


# What only this program wrote


async def test_a_ledger_with_something_of_everything_is_clean(engine: Engine) -> None:
    await stored.fill(engine)
    head = await engine.head()
    report = await audit(engine)
    assert report == Report(
        position=head.position,
        head=head.hash.hex(),
        events=head.position,
        tasks=3 * stored.SEEDS_PER_SCHOOL,
        found=0,
        first_bad_position=None,
        findings=(),
    )


async def test_an_empty_ledger_is_clean(engine: Engine) -> None:
    report = await audit(engine)
    assert (report.position, report.head, report.events, report.found) == (0, GENESIS.hex(), 0, 0)


async def test_progress_is_told_page_by_page_and_ends_at_the_whole(engine: Engine) -> None:
    await stored.fill(engine)
    told: list[tuple[int, int]] = []
    report = await audit(engine, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert {total for _, total in told} == {2 * report.events}
    assert told[-1][0] == 2 * report.events - stored.KEY_EVENTS - stored.TERMS_EVENTS  # which are read once


async def test_more_events_and_tasks_than_a_page_holds_are_all_checked(ledger: Ledger) -> None:
    count = 2 * audit_findings.PAGE // 5
    for number in range(count):
        await ledger.handle(create(ident(number)))
        await ledger.handle(start(ident(number)))
        await ledger.handle(complete(ident(number)))
    report = await audit(ledger.engine)
    assert (report.tasks, report.events, report.found) == (count, 5 * count, 0)


async def test_it_sees_one_moment_while_the_ledger_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with stored.serving(path) as ledger, stored.reading(path) as engine:
        await stored.fill(ledger.engine)
        before = (await engine.head()).position

        async def append_meanwhile() -> None:
            for number in range(900, 910):
                await ledger.handle(create(ident(number)))

        report, _ = await asyncio.gather(audit(engine), append_meanwhile())
        assert report.found == 0
        assert before <= report.position < (await ledger.engine.head()).position


async def test_a_claim_that_lapsed_and_was_taken_again_is_clean(ledger: Ledger) -> None:
    hour = at(3600) - at(0)
    one, other = ident(1), ident(2)
    await ledger.handle(create(one))
    await ledger.handle(create(other))
    first = claim("again", operation="cancel", window_us=hour)
    await ledger.handle(cancel(one, first))
    later = {"at_us": CREATED_US + 2 * hour}
    await ledger.handle(cancel(other, replace(first, fingerprint="another"), **later))
    report = await audit(ledger.engine)
    assert report.findings == ()


# What somebody else wrote


class Tampering(NamedTuple):
    """What was done, and what of it the audit must tell: the first bad position, the checks that may say so."""

    position: int | None
    checks: set[Check]
    task: bytes | None = None
    said: str = ""


Tamper = Callable[[sqlite3.Connection, Random], Tampering]


def any_event(db: sqlite3.Connection, random: Random, where: str = "TRUE") -> int:
    """The position of one of the events that meet *where*."""
    positions = [row[0] for row in db.execute(f"SELECT position FROM events WHERE {where}")]  # noqa: S608
    return int(random.choice(positions))


def any_task(db: sqlite3.Connection, random: Random) -> tuple[bytes, int]:
    """A task, and the position of its last event."""
    row = random.choice(db.execute("SELECT task, position FROM tasks").fetchall())
    return bytes(row[0]), int(row[1])


def flip(raw: bytes, random: Random) -> bytes:
    """*raw* with one bit of it turned over."""
    changed = bytearray(raw)
    changed[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_event(db: sqlite3.Connection, position: int, column: str, value: object) -> None:
    mark = "CAST(? AS TEXT)" if isinstance(value, bytes) and column not in {"payload", "hash", "task"} else "?"
    db.execute(f"UPDATE events SET {column} = {mark} WHERE position = ?", (value, position))  # noqa: S608


def flipped(column: str) -> Tamper:
    """One bit of a column of bytes or text is turned over, in one event."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        position = any_event(db, random, f"length({column}) > 0")
        (raw,) = db.execute(f"SELECT CAST({column} AS BLOB) FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608
        set_event(db, position, column, flip(raw, random))
        return Tampering(position, {Check.CHAIN, Check.UNREADABLE})

    return tamper


def shifted(column: str) -> Tamper:
    """One bit of a whole number is turned over, in one event."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        position = any_event(db, random, f"{column} IS NOT NULL")
        (number,) = db.execute(f"SELECT {column} FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608
        set_event(db, position, column, number ^ (1 << random.randrange(62)))
        return Tampering(position, {Check.CHAIN})

    return tamper


def set_to(column: str, where: str, values: list[object]) -> Tamper:
    """A column gets a value that would be right elsewhere."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        position = any_event(db, random, where)
        set_event(db, position, column, random.choice(values))
        return Tampering(position, {Check.CHAIN})

    return tamper


def moved_to_another_task(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random, "type IN (SELECT type FROM events WHERE version > 2)")
    tasks = [row[0] for row in db.execute("SELECT task FROM tasks")]
    while True:
        try:
            db.execute(
                "UPDATE events SET task = ?1 WHERE position = ?2 AND task != ?1", (random.choice(tasks), position)
            )
        except sqlite3.IntegrityError:
            position = any_event(db, random)
        else:
            if db.total_changes:
                return Tampering(position, {Check.CHAIN})


def amount_and_event_changed_together(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random, "amount_micros IS NOT NULL AND type NOT LIKE 'credit-%'")
    db.execute(
        """UPDATE events SET amount_micros = amount_micros + 1,
           data = json_set(data, '$.amount_micros', amount_micros + 1) WHERE position = ?""",
        (position,),
    )
    return Tampering(position, {Check.CHAIN})


def forge(db: sqlite3.Connection) -> None:
    """Make the chain and the head fit to whatever the rows are now."""
    previous = GENESIS
    for values in db.execute(f"{EVENTS} ORDER BY position").fetchall():
        row = read_event(values)
        place = Place(row.lane, row.position, row.stream, row.version, row.account)
        previous = link(previous, place, row.entry)
        set_event(db, row.position, "hash", previous)
    db.execute("UPDATE lanes SET hash = ?", (previous,))


def forged(tamper: Tamper) -> Tamper:
    """As *tamper*, and the chain from there on and the head are made to fit: what is folded from the log tells."""

    def tamper_and_forge(db: sqlite3.Connection, random: Random) -> Tampering:
        position = tamper(db, random).position
        forge(db)
        (task,) = db.execute("SELECT task FROM events WHERE position = ?", (position,)).fetchone()
        (last,) = db.execute("SELECT max(position) FROM events WHERE task = ?", (task,)).fetchone()
        return Tampering(last, {Check.ROW}, task)

    return tamper_and_forge


# Sealed content: of what lives there is a key, and of what was deleted there is none

SEALED = "payload IS NOT NULL AND task IN (SELECT task FROM seals)"


def payload_flipped_and_forged(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random, SEALED)
    (payload,) = db.execute("SELECT payload FROM events WHERE position = ?", (position,)).fetchone()
    set_event(db, position, "payload", flip(payload, random))
    forge(db)
    return Tampering(position, {Check.EVENT}, said="does not open")


def payloads_swapped_and_forged(db: sqlite3.Connection, random: Random) -> Tampering:
    first, second = sorted(
        random.choice(
            db.execute(
                """SELECT one.position, other.position FROM events AS one JOIN events AS other USING (task)
                    WHERE one.version < other.version AND one.payload IS NOT NULL AND other.payload IS NOT NULL
                    AND task IN (SELECT task FROM seals)"""
            ).fetchall()
        )
    )
    found = dict(db.execute("SELECT position, payload FROM events").fetchall())
    set_event(db, first, "payload", found[second])
    set_event(db, second, "payload", found[first])
    forge(db)
    return Tampering(first, {Check.EVENT}, said="does not open")


def any_seal(db: sqlite3.Connection, random: Random) -> tuple[bytes, int]:
    """A task that has a key, and the position of its last event."""
    sql = "SELECT task, tasks.position FROM seals JOIN tasks USING (task)"
    task, last = random.choice(db.execute(sql).fetchall())
    return bytes(task), int(last)


def seal_key_flipped(db: sqlite3.Connection, random: Random) -> Tampering:
    task, _ = any_seal(db, random)
    (key,) = db.execute("SELECT key FROM seals WHERE task = ?", (task,)).fetchone()
    db.execute("UPDATE seals SET key = ? WHERE task = ?", (flip(key, random), task))
    return Tampering(first_content(db, task), {Check.EVENT}, task, "does not open")


def first_content(db: sqlite3.Connection, task: bytes) -> int:
    """The position of the first event of *task* that has content."""
    sql = "SELECT min(position) FROM events WHERE task = ? AND payload IS NOT NULL"
    return int(db.execute(sql, (task,)).fetchone()[0])


def seal_key_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    task, last = any_seal(db, random)
    db.execute("DELETE FROM seals WHERE task = ?", (task,))
    return Tampering(last, {Check.SEALS}, task, "not there, and nobody deleted it")


def seal_key_moved(db: sqlite3.Connection, random: Random) -> Tampering:
    task, last = any_seal(db, random)
    db.execute("UPDATE seals SET task = ? WHERE task = ?", (flip(task, random), task))
    return Tampering(last, {Check.SEALS}, task, "not there, and nobody deleted it")


def seal_key_invented(db: sqlite3.Connection, random: Random) -> Tampering:
    sql = "SELECT task FROM tasks WHERE task NOT IN (SELECT task FROM seals)"
    (task,) = random.choice(db.execute(sql).fetchall())
    db.execute("INSERT INTO seals VALUES (?, ?)", (task, random.randbytes(32)))
    return Tampering(first_content(db, task), {Check.EVENT}, task, "does not open")


def row_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random, "position < (SELECT max(position) FROM events)")
    db.execute("DELETE FROM events WHERE position = ?", (position,))
    return Tampering(position, {Check.POSITIONS})


def end_cut_off(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random)
    db.execute("DELETE FROM events WHERE position >= ?", (position,))
    return Tampering(position, {Check.HEAD})


def rows_swapped(db: sqlite3.Connection, random: Random) -> Tampering:
    first = any_event(db, random, "position < (SELECT max(position) FROM events)")
    second = any_event(db, random, f"position > {first}")
    for here, there in ((first, -1), (second, first), (-1, second)):
        db.execute("UPDATE events SET position = ? WHERE position = ?", (there, here))
    return Tampering(first, {Check.CHAIN})


COPIED = """lane, {task}, {version}, type, recorded_at, effective_at, account, amount_micros, actor, request_id,
    data, payload, hash"""


def copy_event(db: sqlite3.Connection, source: int, *, to: int, stray: bool = False) -> None:
    """Insert the event at *source* again at *to*, as the next one of its task or as one of no task at all."""
    columns = COPIED.format(task="task", version="version")
    version = "1" if stray else "(SELECT max(version) + 1 FROM events AS e WHERE e.task = events.task)"
    values = COPIED.format(task="randomblob(16)" if stray else "task", version=version)
    db.execute(
        f"INSERT INTO events (position, {columns}) SELECT ?, {values} FROM events WHERE position = ?",  # noqa: S608
        (to, source),
    )


def row_inserted_at_the_end(db: sqlite3.Connection, random: Random) -> Tampering:
    (end,) = db.execute("SELECT max(position) FROM events").fetchone()
    copy_event(db, any_event(db, random), to=end + 1)
    return Tampering(end + 1, {Check.HEAD})


def row_inserted_before_the_first(db: sqlite3.Connection, random: Random) -> Tampering:
    position = -random.randrange(5)
    copy_event(db, any_event(db, random), to=position, stray=True)
    return Tampering(position, {Check.POSITIONS})


def row_inserted_in_between(db: sqlite3.Connection, random: Random) -> Tampering:
    position = any_event(db, random)
    db.execute("UPDATE events SET position = -position - 1 WHERE position >= ?", (position,))
    db.execute("UPDATE events SET position = -position WHERE position < 0")
    copy_event(db, any_event(db, random, f"position != {position}"), to=position, stray=random.random() < 0.5)
    return Tampering(position, {Check.CHAIN})


def row_inserted_and_the_head_with_it(db: sqlite3.Connection, random: Random) -> Tampering:
    (end,) = db.execute("SELECT max(position) FROM events").fetchone()
    copy_event(db, any_event(db, random), to=end + 1, stray=True)
    db.execute(
        "UPDATE lanes SET (position, hash, recorded_at) ="
        " (SELECT position, hash, recorded_at FROM events WHERE position = ?)",
        (end + 1,),
    )
    return Tampering(end + 1, {Check.CHAIN})


def task_number(column: str) -> Tamper:
    """A number in a task's row is changed."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        task, last = any_task(db, random)
        db.execute(f"UPDATE tasks SET {column} = {column} + ? WHERE task = ?", (random.choice([-1, 1, 10**6]), task))  # noqa: S608
        return Tampering(last, {Check.ROW}, task, column)

    return tamper


def task_text(column: str, value: str) -> Tamper:
    """A word in a task's row is changed."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        (task, last), words = any_task(db, random), [value, "", "x" * 200]
        db.execute(f"UPDATE tasks SET {column} = ?1 WHERE task = ?2", (random.choice(words), task))  # noqa: S608
        return Tampering(last, {Check.ROW}, task, column)

    return tamper


def task_view(db: sqlite3.Connection, random: Random) -> Tampering:
    task, last = any_task(db, random)
    (view,) = db.execute("SELECT view FROM tasks WHERE task = ?", (task,)).fetchone()
    db.execute("UPDATE tasks SET view = ? WHERE task = ?", (flip(view, random), task))
    return Tampering(last, {Check.ROW}, task, "view")


def task_row_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    task, _ = any_task(db, random)
    db.execute("DELETE FROM tasks WHERE task = ?", (task,))
    (first,) = db.execute("SELECT min(position) FROM events WHERE task = ?", (task,)).fetchone()
    return Tampering(first, {Check.ROW}, task, "no row")


def task_row_inserted(db: sqlite3.Connection, random: Random) -> Tampering:
    task, _ = any_task(db, random)
    invented = flip(task, Random(random.random()))
    columns = ", ".join(row[1] for row in db.execute("PRAGMA table_info(tasks)") if row[1] != "task")
    db.execute(
        f"INSERT INTO tasks (task, {columns}) SELECT ?, {columns} FROM tasks WHERE task = ?",  # noqa: S608
        (invented, task),
    )
    return Tampering(None, {Check.VERSIONS}, invented, "no events")


def task_row_renamed(db: sqlite3.Connection, random: Random) -> Tampering:
    task, _ = any_task(db, random)
    invented = flip(task, random)
    db.execute("UPDATE tasks SET task = ? WHERE task = ?", (invented, task))
    (first,) = db.execute("SELECT min(position) FROM events WHERE task = ?", (task,)).fetchone()
    return Tampering(first, {Check.ROW}, task, "no row")


def claim_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    task, key, position = any_claim(db, random)
    db.execute("DELETE FROM claims WHERE task = ? AND key = ?", (task, key))
    return Tampering(position, {Check.CLAIMS}, task, "is not there")


def claim_moved(db: sqlite3.Connection, random: Random) -> Tampering:
    task, key, position = any_claim(db, random)
    others = [row[0] for row in db.execute("SELECT task FROM tasks WHERE task != ?", (task,))]
    db.execute("UPDATE claims SET task = ? WHERE key = ?", (random.choice(others), key))
    return Tampering(position, {Check.CLAIMS}, task, "points at task")


def claim_of_a_creation_taken_again(db: sqlite3.Connection, random: Random) -> Tampering:
    task, key, position = random.choice(
        db.execute(
            """SELECT task, json_extract(data, '$.claims[0].key'), position FROM events WHERE type = 'created'"""
        ).fetchall()
    )
    others = [row[0] for row in db.execute("SELECT task FROM tasks WHERE task != ?", (task,))]
    db.execute("UPDATE claims SET task = ?, at = at + (1 << 50) WHERE key = ?", (random.choice(others), key))
    return Tampering(position, {Check.CLAIMS}, task, "points at task")


def claim_of_another_request(db: sqlite3.Connection, random: Random) -> Tampering:
    task, key, position = any_claim(db, random)
    db.execute("UPDATE claims SET fingerprint = fingerprint || '0' WHERE key = ?", (key,))
    return Tampering(position, {Check.CLAIMS}, task, "fingerprint")


def claim_of_nothing(db: sqlite3.Connection, random: Random) -> Tampering:
    task, key, position = any_claim(db, random)
    change = random.choice(["appended = 0", "version = 0"])
    db.execute(f"UPDATE claims SET {change} WHERE key = ?", (key,))  # noqa: S608
    return Tampering(position, {Check.CLAIMS}, task, "does not point at")


def any_claim(db: sqlite3.Connection, random: Random) -> tuple[bytes, str, int]:
    """A claim that an event tells of: its task, its key, and the position of the event."""
    rows = db.execute(
        """SELECT task, json_extract(data, '$.claims[0].key'), position FROM events
           WHERE json_extract(data, '$.claims[0].key') IS NOT NULL"""
    ).fetchall()
    return random.choice(rows)  # type: ignore[no-any-return]


def key_changed(column: str, values: list[object]) -> Tamper:
    """A column of an API key's row is changed."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        key_id, position = any_key(db, random)
        value = random.choice(values)
        db.execute(f"UPDATE keys SET {column} = ?1 WHERE key_id = ?2 AND {column} IS NOT ?1", (value, key_id))  # noqa: S608
        if not db.execute("SELECT changes()").fetchone()[0]:
            return tamper(db, random)
        return Tampering(position, {Check.KEYS}, said=key_id)

    return tamper


def key_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    key_id, position = any_key(db, random)
    db.execute("DELETE FROM keys WHERE key_id = ?", (key_id,))
    return Tampering(position, {Check.KEYS}, said=key_id)


def key_inserted(db: sqlite3.Connection, random: Random) -> Tampering:
    invented = f"{random.randrange(10**12):012}"
    db.execute("INSERT INTO keys VALUES (?, 'acme', 'ledger', 'operator', 'd', 1, NULL)", (invented,))
    return Tampering(None, {Check.KEYS}, said=invented)


def key_put_back_to_life(db: sqlite3.Connection, random: Random) -> Tampering:
    (key_id,) = random.choice(db.execute("SELECT key_id FROM keys WHERE revoked_at IS NOT NULL").fetchall())
    db.execute("UPDATE keys SET revoked_at = NULL WHERE key_id = ?", (key_id,))
    return Tampering(last_of_key(db, key_id), {Check.KEYS}, said=key_id)


def any_key(db: sqlite3.Connection, random: Random) -> tuple[str, int]:
    """A key, and the position of the last event about it."""
    (key_id,) = random.choice(db.execute("SELECT key_id FROM keys").fetchall())
    return key_id, last_of_key(db, key_id)


def last_of_key(db: sqlite3.Connection, key_id: str) -> int:
    sql = "SELECT max(position) FROM events WHERE json_extract(data, '$.key_id') = ?"
    return int(db.execute(sql, (key_id,)).fetchone()[0])


def account_number(column: str) -> Tamper:
    """A number in an account's row is changed, or is not there any more, or is there."""

    def tamper(db: sqlite3.Connection, random: Random) -> Tampering:
        account, position = any_account(db, random)
        by = random.choice([-1, 1, 10**6])
        db.execute(f"UPDATE accounts SET {column} = coalesce({column} + ?, 0) WHERE account = ?", (by, account))  # noqa: S608
        return Tampering(position, {Check.ACCOUNTS}, said=column)

    return tamper


def account_deleted(db: sqlite3.Connection, random: Random) -> Tampering:
    account, position = any_account(db, random)
    db.execute("DELETE FROM accounts WHERE account = ?", (account,))
    return Tampering(position, {Check.ACCOUNTS}, said=f"{account!r} is not there")


def account_inserted(db: sqlite3.Connection, _random: Random) -> Tampering:
    db.execute("INSERT INTO accounts VALUES ('mallory', 1, 0, NULL, NULL, 0, 0, 0, 0, 0)")
    return Tampering(None, {Check.ACCOUNTS}, said="'mallory'")


def account_unlimited(db: sqlite3.Connection, _random: Random) -> Tampering:
    db.execute("UPDATE accounts SET granted_micros = NULL WHERE account = ?", (ACCOUNT,))
    (position,) = db.execute("SELECT position FROM accounts WHERE account = ?", (ACCOUNT,)).fetchone()
    return Tampering(position, {Check.ACCOUNTS}, said="granted_micros is None")


def any_account(db: sqlite3.Connection, random: Random) -> tuple[str, int]:
    """An account, and the position of what last changed its row."""
    return random.choice(db.execute("SELECT account, position FROM accounts ORDER BY account").fetchall())  # type: ignore[no-any-return]


def head_moved(db: sqlite3.Connection, random: Random) -> Tampering:
    (end,) = db.execute("SELECT max(position) FROM events").fetchone()
    by = random.choice([-2, -1, 1, 7])
    db.execute("UPDATE lanes SET position = position + ?", (by,))
    return Tampering(end + 1 + min(by, 0), {Check.HEAD})


def head_hash(db: sqlite3.Connection, random: Random) -> Tampering:
    (end,) = db.execute("SELECT max(position) FROM events").fetchone()
    (link,) = db.execute("SELECT hash FROM lanes").fetchone()
    db.execute("UPDATE lanes SET hash = ?", (flip(link, random),))
    return Tampering(end, {Check.HEAD}, said="hash")


def head_time(db: sqlite3.Connection, random: Random) -> Tampering:
    (end,) = db.execute("SELECT max(position) FROM events").fetchone()
    db.execute("UPDATE lanes SET recorded_at = recorded_at + ?", (random.choice([-1, 10**9]),))
    return Tampering(end, {Check.HEAD}, said="recorded_at")


def head_deleted(db: sqlite3.Connection, _random: Random) -> Tampering:
    db.execute("DELETE FROM lanes")
    return Tampering(None, {Check.HEAD})


TAMPERINGS: dict[str, Tamper] = {
    "a bit of an event's facts": flipped("data"),
    "a bit of a payload": flipped("payload"),
    "a bit of a payload, with the chain made to fit": payload_flipped_and_forged,
    "two payloads swapped, with the chain made to fit": payloads_swapped_and_forged,
    "a bit of a key": seal_key_flipped,
    "a key lost": seal_key_deleted,
    "a key under another task": seal_key_moved,
    "a key in the place of one that is gone": seal_key_invented,
    "a payload erased": set_to("payload", "payload IS NOT NULL", [None, b""]),
    "a payload invented": set_to("payload", "payload IS NULL", [b"{}", b"", b'{"message":"no"}']),
    "a bit of a hash": flipped("hash"),
    "a hash emptied": set_to("hash", "TRUE", [b"", bytes(32), GENESIS]),
    "a bit of a type": flipped("type"),
    "a type of another event": set_to("type", "type NOT IN ('stalled', 'deleted')", ["stalled", "deleted"]),
    "a bit of an account": flipped("account"),
    "another account": set_to("account", "TRUE", ["somebody else"]),
    "a bit of an actor": flipped("actor"),
    "another actor": set_to("actor", "actor != 'root'", ["root"]),
    "a request id": set_to("request_id", "request_id = ''", ["r"]),
    "a bit of the recorded time": shifted("recorded_at"),
    "a bit of the effective time": shifted("effective_at"),
    "a bit of an amount": shifted("amount_micros"),
    "an amount removed": set_to("amount_micros", "amount_micros IS NOT NULL", [None]),
    "an amount invented": set_to("amount_micros", "amount_micros IS NULL", [1, 0, 10**12]),
    "an amount in column and event alike": amount_and_event_changed_together,
    "an amount, with the chain made to fit": forged(amount_and_event_changed_together),
    "a version": set_to("version", "TRUE", [0, 1000, -1, 2**40]),
    "a lane": set_to("lane", "TRUE", [1, -1, 70_000]),
    "an event moved to another task": moved_to_another_task,
    "an event deleted": row_deleted,
    "the end cut off": end_cut_off,
    "two events swapped": rows_swapped,
    "an event added at the end": row_inserted_at_the_end,
    "an event added before the first": row_inserted_before_the_first,
    "an event put in between": row_inserted_in_between,
    "an event added, and the head moved": row_inserted_and_the_head_with_it,
    "a task's account": task_text("account", "somebody"),
    "a task's contract": task_text("contract", "ledger"),
    "a task's capability": task_text("capability", "text-to-audio"),
    "a task's model": task_text("model", "cheaper"),
    "a task's status": task_text("status", "paused"),
    "a task's version": task_number("version"),
    "a task's position": task_number("position"),
    "a task's creation": task_number("created_at"),
    "a task's authorised credits": task_number("authorised_micros"),
    "a task's held credits": task_number("held_micros"),
    "a task's released credits": task_number("released_micros"),
    "a task's charged credits": task_number("charged_micros"),
    "a task's refunded credits": task_number("refunded_micros"),
    "a bit of a view": task_view,
    "a task's row deleted": task_row_deleted,
    "a task's row invented": task_row_inserted,
    "a task's row under another id": task_row_renamed,
    "a claim deleted": claim_deleted,
    "a claim of another task": claim_moved,
    "a claim of a creation, taken again": claim_of_a_creation_taken_again,
    "a claim of another request": claim_of_another_request,
    "a claim of nothing": claim_of_nothing,
    "a key's account": key_changed("account", ["mallory"]),
    "a key's contract": key_changed("contract", ["beatra", "bytespike"]),
    "a key's role": key_changed("role", ["operator"]),
    "a key's digest": key_changed("digest", ["0" * 64]),
    "a key's issue": key_changed("issued_at", [0, 2**62]),
    "a key's end": key_changed("revoked_at", [1, 2**62]),
    "a key back to life": key_put_back_to_life,
    "a key deleted": key_deleted,
    "a key invented": key_inserted,
    "an account's place": account_number("position"),
    "an account's version": account_number("version"),
    "an account's limit": account_number("limit_micros"),
    "an account's grants": account_number("granted_micros"),
    "an account's held credits": account_number("held_micros"),
    "an account's charged credits": account_number("charged_micros"),
    "an account's refunded credits": account_number("refunded_micros"),
    "an account's expected credits": account_number("expected_micros"),
    "an account's tasks under way": account_number("live_tasks"),
    "an account deleted": account_deleted,
    "an account invented": account_inserted,
    "an account without its grants": account_unlimited,
    "the head's position": head_moved,
    "the head's hash": head_hash,
    "the head's time": head_time,
    "the head deleted": head_deleted,
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_and_named(name: str, original: Path, tmp_path: Path) -> None:
    for seed in range(SEEDS_PER_TAMPERING):
        copy = tmp_path / "ledger.db"
        with stored.broken(original, copy) as db:
            done = TAMPERINGS[name](db, Random(f"{name}/{seed}"))
        report = await audited(copy)
        assert report.first_bad_position == done.position, (seed, done, report.findings)
        assert any(tells(finding, done) for finding in report.findings), (seed, done, report.findings)


def tells(finding: Finding, done: Tampering) -> bool:
    """Whether the finding names what was done, and where."""
    return (
        finding.check in done.checks
        and finding.position == done.position
        and done.task in (None, bytes.fromhex((finding.task or "").replace("-", "")))
        and done.said in finding.detail
    )


def test_these_are_more_than_two_hundred_mutations() -> None:
    assert len(TAMPERINGS) * SEEDS_PER_TAMPERING > 200


async def test_whichever_bit_of_the_file_is_flipped_the_audit_finds_it_or_nothing_changed(
    original: Path, tmp_path: Path
) -> None:
    random, path, raw = Random("bits"), tmp_path / "ledger.db", original.read_bytes()  # noqa: ASYNC240
    log = await readable(original)
    clean = 0
    for _ in range(FLIPPED_FILES):
        changed = bytearray(raw)
        offset = random.randrange(len(raw))
        changed[offset] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        try:
            report = await audited(path)
        except (CannotOpenError, UnicodeDecodeError):
            continue
        if report.found == 0:
            clean += 1
            assert await readable(path) == log, offset
    assert clean < FLIPPED_FILES, "some bits matter"


async def readable(path: Path) -> tuple[list[Recorded], list[object], list[object]]:
    """All that a ledger tells of its past and its present."""
    async with stored.reading(path) as engine:
        rows, tasks = await engine.after(0, 10_000), await engine.page(TaskFilter(limit=10_000))
        return rows, [*tasks], [*await engine.keys(None)]


# What our own programs could get wrong: rows that are well chained and say what cannot be

(CREATED,) = given().when(create_of_the_rules(ON_SUCCESS)).events


async def written(*told: TaskEvent | Entry) -> list[tuple[Check, int | None, str]]:
    """What the audit finds in a log of one task: its creation, then what is *told*, whatever the rules say to it."""
    return said(await audit(await log_of(*told)))


async def log_of(*told: TaskEvent | Entry) -> MemoryEngine:
    engine = MemoryEngine()
    await write(engine, *told)
    return engine


async def write(engine: Engine, *told: TaskEvent | Entry) -> None:
    task = replace(NO_TASK, task_id=ident(1))
    rows = [row for one in (CREATED, *told) for row in ([one] if isinstance(one, Entry) else entries(one))]
    for row in rows:
        after = evolve(task, decode(row.facts, row.payload))  # type: ignore[arg-type]
        (told_sealed,) = sealed(1, [row], expected=task.version)
        first = SEAL_KEY if not task.version else None
        stands = {"task": row_of(after), "move": move_of(task, after), "seal_key": first}
        one = Append(stream=task.task_id, account=ACCOUNT, expected=task.version, entries=(told_sealed,), **stands)  # type: ignore[arg-type]
        await engine.commit([one])
        task = after


def said(report: Report) -> list[tuple[Check, int | None, str]]:
    return [(finding.check, finding.position, finding.detail) for finding in report.findings]


async def test_a_second_outcome_of_a_run_is_found() -> None:
    found = await written(Cancelled(at_us=CREATED_US), Completed(at_us=CREATED_US))
    assert found == [
        (Check.HISTORY, 3, "a second outcome of the same run"),
        (Check.ACCOUNTS, 3, "account 'acme': position is 2, the events give 3"),  # the run was expected no more
    ]


async def test_an_outcome_of_each_run_is_none_too_many() -> None:
    over = Completed(at_us=CREATED_US)
    assert await written(over, UpdateRequested(at_us=CREATED_US), UpdateReverted(at_us=CREATED_US, cause="c")) == []


async def test_a_task_that_does_not_begin_with_its_creation_is_found() -> None:
    engine = MemoryEngine()
    await engine.commit([append(1, events=2)])
    assert (Check.HISTORY, 1, "a task begins with `created`, and once") in said(await audit(engine))


async def test_a_task_that_is_created_twice_is_found() -> None:
    assert (Check.HISTORY, 2, "a task begins with `created`, and once") in await written(CREATED)


async def test_events_that_cannot_be_folded_are_found() -> None:
    (told,) = entries(UpdateReverted(at_us=CREATED_US, cause="failed"))
    engine, stream = MemoryEngine(), ident(1)
    rows = sealed(1, (*entries(CREATED), told))
    row = row_of(fold([CREATED], stream))
    await engine.commit([Append(stream=stream, account=ACCOUNT, expected=0, entries=rows, task=row, seal_key=SEAL_KEY)])
    ((check, position, detail),) = said(await audit(engine))
    assert (check, position) == (Check.HISTORY, 2)
    assert detail.startswith("cannot be folded: AssertionError")


async def test_money_that_breaks_the_invariants_is_found() -> None:
    charged = Charged(at_us=CREATED_US, amount_micros=5, key="c", cause="charged")
    refunded = Refunded(at_us=CREATED_US, amount_micros=11, key="r", cause="refunded")
    found = await written(charged, charged, refunded)
    assert found == [
        (Check.MONEY, 3, "money key 'c' moves money a second time"),
        (Check.MONEY, 4, "refunded is not between nothing and what was charged"),
    ]


async def test_an_event_that_this_version_does_not_know_is_named() -> None:
    engine = MemoryEngine()
    (told,) = entries(CREATED)
    unknown = replace(told, type="exploded", facts=told.facts.replace(b'"created"', b'"exploded"'))
    await engine.commit([replace(append(1), entries=sealed(1, [unknown]), seal_key=SEAL_KEY)])
    ((check, position, detail),) = said(await audit(engine))
    assert (check, position) == (Check.EVENT, 1)
    assert "exploded" in detail


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"type": "started"}, "type is 'started', the event says 'progressed'"),
        ({"amount_micros": 7}, "amount_micros is 7, the event says None"),
        ({"effective_at_us": 8}, f"effective_at is 8, the event says {CREATED_US}"),
    ],
)
async def test_a_column_that_contradicts_its_event_is_named(changes: dict[str, Any], detail: str) -> None:
    (told,) = entries(Progressed(at_us=CREATED_US, percent=1))
    assert await written(replace(told, **changes)) == [(Check.EVENT, 2, detail)]


async def test_an_account_that_is_not_the_task_s_is_named() -> None:
    engine, stream = MemoryEngine(), ident(1)
    row, told = row_of(fold([CREATED], stream)), sealed(1, entries(CREATED))
    await engine.commit(
        [Append(stream=stream, account=STRANGER, expected=0, entries=told, task=row, seal_key=SEAL_KEY)]
    )
    assert said(await audit(engine)) == [
        (Check.EVENT, 1, "account is 'umbrella', the event says 'acme'"),
        (Check.HISTORY, 1, "account is 'umbrella', the task's is 'acme'"),
        (Check.ACCOUNTS, 1, "account 'acme' is not there"),
    ]


async def test_time_that_runs_backwards_within_a_task_is_found() -> None:
    engine = await log_of(Progressed(at_us=CREATED_US, percent=1))
    first, last = engine._log  # an engine does not write what runs backwards, so it is done behind its back
    told = replace(last.entry, recorded_at_us=CREATED_US - 1)
    place = Place(last.lane, last.position, last.stream, last.version, last.account)
    engine._log[-1] = replace(last, entry=told, hash=link(first.hash, place, told))
    engine._head = replace(engine._head, hash=engine._log[-1].hash)
    assert said(await audit(engine)) == [(Check.HISTORY, 2, "was recorded before the event before it")]


async def test_a_claim_without_its_row_is_found() -> None:
    claimed = Claimed(account=ACCOUNT, operation="create", key="k", fingerprint="f")
    found = await written(Progressed(at_us=CREATED_US, percent=1, claims=(claimed,)))
    assert found == [(Check.CLAIMS, 2, "claim create 'k' of account 'acme' is not there")]


async def test_a_key_that_is_still_there_after_the_deletion_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with stored.serving(path) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("DROP TRIGGER events_erase")
        for command in (create(ident(1)), cancel(ident(1)), delete(ident(1))):
            await ledger.handle(command)
        assert said(await audit(ledger.engine)) == [
            (Check.STORE, None, "the schema lacks trigger events_erase"),
            (Check.SEALS, 6, "the key of its content is still there after the deletion"),
        ]


async def test_content_that_was_written_after_the_deletion_is_found() -> None:
    engine, stream = MemoryEngine(), ident(1)
    told = [CREATED, Deleted(at_us=CREATED_US), Progressed(at_us=CREATED_US, payload=Payload(message="late"))]
    row = row_of(fold([replace(event, payload=UNSET) for event in told], stream))
    rows = sealed(1, entries(*told))
    await engine.commit([Append(stream=stream, account=ACCOUNT, expected=0, entries=rows, task=row, seal_key=SEAL_KEY)])
    assert (Check.SEALS, 3, "has content after the deletion") in said(await audit(engine))


async def test_a_key_of_nothing_is_found() -> None:
    engine, stream = MemoryEngine(), ident(1)
    bare = replace(CREATED, payload=UNSET)
    row = row_of(fold([bare], stream))
    move = move_of(NO_TASK, fold([bare], stream))
    told = Append(stream=stream, account=ACCOUNT, expected=0, entries=entries(bare), task=row, move=move)
    await engine.commit([replace(told, seal_key=SEAL_KEY)])
    assert said(await audit(engine)) == [(Check.SEALS, 1, "there is a key, and no content that it opens")]


async def test_a_key_event_in_another_account_s_stream_is_named() -> None:
    engine = MemoryEngine()
    await Ledger(engine).keys.issue(account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="test", at_us=CREATED_US)
    (row,) = await engine.after(0, 1)
    other = MemoryEngine()
    keys = tuple(replace(key, account=STRANGER) for key in await engine.keys(None))
    moved = Append(stream=row.stream, account=STRANGER, expected=0, entries=(row.entry,), keys=keys)
    await other.commit([moved])
    assert said(await audit(other)) == [(Check.KEYS, 1, "not in the stream of account 'umbrella'")]


async def test_a_version_that_an_account_s_stream_leaves_out_is_named() -> None:
    engine, stream = MemoryEngine(), account_stream(ACCOUNT)
    engine._versions[stream] = 1
    told = entries(KeyIssued(at_us=CREATED_US, key_id="k9", role="client", contract="chunkr", digest="d" * 64))
    await engine.commit([Append(stream=stream, account=ACCOUNT, expected=1, entries=told, keys=(key_row("k9"),))])
    assert said(await audit(engine)) == [(Check.VERSIONS, 1, "version 2 of account 'acme' follows 0")]


async def test_a_key_that_is_revoked_without_having_been_issued_is_named() -> None:
    engine = MemoryEngine()
    told = entries(KeyRevoked(at_us=CREATED_US, key_id="k9", revoked_at_us=CREATED_US))
    await engine.commit([Append(stream=account_stream(ACCOUNT), account=ACCOUNT, expected=0, entries=told)])
    assert said(await audit(engine)) == [(Check.KEYS, 1, "key-revoked of key 'k9', which was never issued before")]


async def credited(*told: AccountEvent, **terms: int | None) -> list[tuple[Check, int | None, str]]:
    """What the audit says of an account with these events, and with the terms that they should come to."""
    engine = MemoryEngine()
    given = CreditTerms(**({"version": len(told), "limit_micros": None, "granted_micros": None} | terms))  # type: ignore[arg-type]
    append = Append(stream=account_stream(ACCOUNT), account=ACCOUNT, expected=0, entries=entries(*told), terms=given)
    await engine.commit([append])
    return said(await audit(engine))


GRANTED = CreditGranted(at_us=CREATED_US, amount_micros=5, key="g")
TAKEN = CreditRevoked(at_us=CREATED_US, amount_micros=5, key="r", grant="g")


async def test_credit_that_is_as_its_events_say_is_clean() -> None:
    limited = CreditLimited(at_us=CREATED_US, limit_micros=7)
    assert await credited(GRANTED, limited, TAKEN, limit_micros=7, granted_micros=0) == []


@pytest.mark.parametrize(
    ("told", "granted", "position", "detail"),
    [
        ((GRANTED, GRANTED), 5, 2, "key 'g' grants a second time"),
        ((GRANTED, TAKEN, TAKEN), 0, 3, "key 'r' takes back a second time"),
        ((GRANTED, replace(TAKEN, amount_micros=6)), -1, 2, "more is taken back of grant 'g' than was left of it"),
        ((GRANTED, replace(TAKEN, grant="h")), 0, 2, "more is taken back of grant 'h' than was left of it"),
    ],
)
async def test_credit_that_the_rules_would_not_have_given_is_found(
    told: tuple[AccountEvent, ...], granted: int, position: int, detail: str
) -> None:
    assert await credited(*told, granted_micros=granted) == [(Check.MONEY, position, detail)]


async def test_a_credit_event_in_another_account_s_stream_is_named() -> None:
    engine, terms = MemoryEngine(), CreditTerms(version=1, limit_micros=None, granted_micros=5)
    stream = account_stream(STRANGER)
    told = Append(stream=stream, account=ACCOUNT, expected=0, entries=entries(GRANTED), terms=terms)
    await engine.commit([told])
    assert said(await audit(engine)) == [(Check.ACCOUNTS, 1, "not in the stream of account 'acme'")]


async def test_accounts_that_cannot_be_read_are_found_as_that(original: Path) -> None:
    async with stored.reading(original) as engine:
        report = await audit(Blind(engine))
    assert said(report) == [(Check.UNREADABLE, None, "the accounts cannot be read: StorageError: no accounts")]


class Blind(Watched):
    """An engine whose accounts cannot be read."""

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        del names
        raise StorageError("no accounts")


# How much is told


async def test_findings_are_counted_beyond_the_first_hundred_and_the_first_bad_position_is_the_lowest() -> None:
    engine = MemoryEngine()
    await engine.commit([replace(append(number), task=None) for number in range(FINDINGS_MAX + 20)])
    report = await audit(engine)
    assert (len(report.findings), report.found) == (FINDINGS_MAX, FINDINGS_MAX + 20)
    assert report.first_bad_position == 1


# What cannot be read


async def test_an_engine_that_fails_does_not_end_the_audit_but_is_what_it_finds(original: Path) -> None:
    async with stored.reading(original) as engine:
        report = await audit(Broken(engine))
    assert {finding.check for finding in report.findings} == {Check.HEAD, Check.UNREADABLE}
    assert report.found == UNREADABLE_MAX + 4  # the head, the rest of the log, the keys, the tasks


async def test_of_what_cannot_be_read_the_event_and_its_task_are_named_and_all_else_is_checked(
    original: Path, tmp_path: Path
) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        position, elsewhere = 20, any_event(db, Random(1), "position > 100")
        (task,) = db.execute("SELECT task FROM events WHERE position = ?", (position,)).fetchone()
        set_event(db, position, "data", b"\xff")
        set_event(db, elsewhere, "actor", "somebody")
    report = await audited(tmp_path / "ledger.db")
    assert [(finding.check, finding.position, finding.task) for finding in report.findings] == [
        (Check.UNREADABLE, position, None),
        (Check.CHAIN, elsewhere, report.findings[1].task),
        (Check.UNREADABLE, None, Spelling.UUID.spell(task)),
    ]
    assert report.events == report.position - 1


@pytest.mark.parametrize(
    ("first", "last", "detail"),
    [(7, 7, "position 7 is missing"), (7, 9, "positions 7 to 9 are missing")],
)
async def test_a_hole_is_named_once_and_whole(
    original: Path, tmp_path: Path, first: int, last: int, detail: str
) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        db.execute("DELETE FROM events WHERE position BETWEEN ? AND ?", (first, last))
    found = said(await audited(tmp_path / "ledger.db"))
    assert [finding for finding in found if finding[0] in {Check.POSITIONS, Check.CHAIN}] == [
        (Check.POSITIONS, first, detail)
    ]


async def test_task_rows_that_cannot_be_read_are_found_as_that() -> None:
    engine = Watched(MemoryEngine())
    await engine.commit([replace(append(1), task=None)])
    engine.read_faults.append(StorageError("broken"))
    assert said(await audit(engine)) == [
        (Check.UNREADABLE, 1, "task rows cannot be read: StorageError: broken"),
    ]


async def test_claims_that_cannot_be_read_are_found_as_that(original: Path) -> None:
    class Claimless(Watched):
        async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
            raise StorageError(f"broken for {len(ids)}")

    async with stored.reading(original) as engine:
        ((check, _, detail),) = said(await audit(Claimless(engine)))
    assert check is Check.UNREADABLE
    assert detail.startswith("claims cannot be read: StorageError: broken for ")


async def test_a_list_of_tasks_that_has_no_end_is_given_up(original: Path) -> None:
    class Circular(Watched):
        async def page(self, wanted: TaskFilter) -> list[Placed]:
            return await super().page(replace(wanted, before=None, limit=1))

    async with stored.reading(original) as engine:
        ((check, _, detail),) = said(await audit(Circular(engine)))
    assert check is Check.UNREADABLE
    assert detail.endswith("the rows are out of order")


async def test_an_event_of_a_task_that_no_reader_of_the_log_meets_is_counted(original: Path, tmp_path: Path) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        copy_event(db, any_event(db, Random(1), "type = 'held'"), to=0)
    surplus = (Check.ROW, None, "the log holds -1 events against the histories of all tasks")
    assert surplus in said(await audited(tmp_path / "ledger.db"))


class Broken(Watched):
    """An engine of which nothing can be read."""

    async def head(self) -> Head:
        raise StorageError("broken")

    async def after(self, position: int, limit: int) -> list[Recorded]:
        raise StorageError(f"broken after {position}, {limit}")

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        raise StorageError(f"broken before {wanted.before!r}")

    async def keys(self, account: str | None) -> list[KeyRow]:
        raise StorageError(f"broken for {account}")


async def test_beside_a_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    program = f"""
import asyncio, os, signal
from pathlib import Path
from ledger.sqlite import open_to_serve
from tests import stored

async def main():
    await stored.fill(await open_to_serve(Path({str(path)!r})))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)  # noqa: ASYNC221 - nothing else is going on
    assert done.returncode == -signal.SIGKILL
    assert path.with_name("ledger.db-wal").stat().st_size > 0
    report = await audited(path)
    assert (report.found, report.tasks) == (0, 3 * stored.SEEDS_PER_SCHOOL)

"""A thousand random mutations of a ledger's file, each by its seed: the audit finds every one, and where it begins.

No less does the quick check before it: of none of them does it say that nothing is wrong.

`test_audit.py` tells what the audit says of this and that. Here nothing is chosen: table, kind, column, row and bit are
drawn by the seed, so ``mutated(path, seed)`` makes the same one again.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from ledger.credit import Grant
from ledger.errors import CannotOpenError
from ledger.keys import Role
from ledger.memory import MemoryEngine
from ledger.records import Entry, Recorded, TaskFilter
from ledger.sqlite_sql import (
    ACCOUNT_COLUMNS,
    CLAIM_COLUMNS,
    EVENT_COLUMNS,
    KEY_COLUMNS,
    TASK_COLUMNS,
)
from projections.audit.audit import audit
from projections.audit.findings import Report
from projections.audit.quick_check import Means, quick_check
from tests import simulated, stored
from tests.builders import ident
from tests.rules_dsl import ON_SUCCESS, create

MUTATIONS, BATCH = 1000, 50
TASKS, ACCOUNTS = 30, 5
"""Of a simulated life: enough for something of everything, and quick."""

LATER_US = 2_000_000_000_000_000

COLUMNS: dict[str, tuple[str, ...]] = {
    "events": EVENT_COLUMNS,
    "tasks": TASK_COLUMNS,
    "claims": CLAIM_COLUMNS,
    "keys": KEY_COLUMNS,
    "accounts": ACCOUNT_COLUMNS,
    "seals": ("task", "key"),
    "lanes": ("lane", "position", "hash", "recorded_at"),
    "meta": ("name", "value"),
}
ID = {"events": "position", "tasks": "task", "keys": "key_id", "accounts": "account", "seals": "task", "lanes": "lane"}
ID |= {"claims": "key", "meta": "name"}

UNSEEN = {
    ("claims", "at"): "when a key was taken that lapses: no event tells it",
    ("meta", "value"): "the log's name and pepper: another of the same form is as good",
}
"""Columns of which nothing in a file tells what stood in them. As little is to be told of claims that are added, as if
a request had changed nothing."""


class Mutation(NamedTuple):
    """What is done to the file, before it is known to which row."""

    table: str
    kind: str
    column: str


KINDS = ("flip", "swap", "delete", "insert")
EVERY = [
    Mutation(table, kind, column)
    for table, columns in COLUMNS.items()
    for kind in KINDS
    for column in (columns if kind in {"flip", "swap"} else ("",))
    if (table, column) not in UNSEEN
    and (table, kind) not in {("claims", "insert"), ("lanes", "swap"), ("meta", "swap")}  # one row, or see above
    and (kind, column) not in {("swap", "lane"), ("swap", "appended")}  # they are all alike
    and (table, kind, column) != ("claims", "swap", "version")  # more than a request did is not told from what it did
] + [Mutation("events", "raw", column) for column in ("hash", "payload", "data")]


def picked(seed: int) -> Mutation:
    """The kind of mutation that *seed* makes: half of them of the log itself, and each as often as the others."""
    some = [one for one in EVERY if (one.table == "events") is (seed % 2 == 0)]
    return some[seed // 2 % len(some)]


class Facts(NamedTuple):
    """Where the log says what, as it was before: what the audit must name is read off from here."""

    end: int
    first: Mapping[bytes, int]
    last: Mapping[bytes, int]
    content: Mapping[bytes, int]
    """Where the first sealed content of a task stands."""
    places: Mapping[str, Mapping[Any, int]]
    """By table, the row's id and the event at which it shows when it is wrong."""


def facts_of(db: sqlite3.Connection) -> Facts:
    def by(sql: str) -> dict[Any, int]:
        return dict(db.execute(sql).fetchall())

    first = by("SELECT task, min(position) FROM events GROUP BY task")
    last = by("SELECT task, max(position) FROM events GROUP BY task")
    content = by("SELECT task, min(position) FROM events WHERE payload IS NOT NULL GROUP BY task")
    claims = {}
    for position, task, recorded_at, data in db.execute("SELECT position, task, recorded_at, data FROM events"):
        for claim in json.loads(data).get("claims", ()):
            sql = "SELECT 1 FROM claims WHERE key = ? AND task = ? AND at <= ? AND appended = 1"
            if db.execute(sql, (claim["key"], task, recorded_at)).fetchone():
                claims[claim["key"]] = position
    places = {
        "events": by("SELECT position, position FROM events"),
        "tasks": by("SELECT task, position FROM tasks"),
        "claims": claims,
        "keys": by("SELECT data ->> '$.key_id' AS id, max(position) FROM events WHERE id IS NOT NULL GROUP BY id"),
        "accounts": by("SELECT account, position FROM accounts"),
        "seals": {task: content[task] for (task,) in db.execute("SELECT task FROM seals")},
        "lanes": {0: max(last.values())},
    }
    return Facts(max(last.values()), first, last, content, places)


# What is done


class Again(Exception):
    """This row cannot be mutated in this way."""


def flipped(value: int | str | bytes | None, random: Random) -> int | bytes:
    """*value* with one bit turned over, and something where there was nothing; of text, the bytes."""
    if value is None:
        return random.randrange(1, 1 << 40)
    if isinstance(value, int):
        return value ^ 1 << random.randrange(62)
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    if not raw:
        raise Again
    raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    return bytes(raw)


def put(db: sqlite3.Connection, table: str, row: int, column: str, value: object, *, was: object) -> None:
    mark = "CAST(? AS TEXT)" if isinstance(was, str) and isinstance(value, bytes) else "?"
    with_id = "position" if table == "events" else _ROWID.get(table, "rowid")
    try:
        db.execute(f"UPDATE {table} SET {column} = {mark} WHERE {with_id} = ?", (value, row))  # noqa: S608
    except sqlite3.IntegrityError:
        raise Again from None


_ROWID = {"claims": "key", "seals": "task", "meta": "name"}
"""Tables without a rowid, and what tells their rows apart in this ledger."""


def drawn(
    db: sqlite3.Connection, one: Mutation, facts: Facts, random: Random, *, but: object = None
) -> tuple[Any, Any, Any]:
    """A row that says something else in the column: how to reach it, its id, and what it says."""
    table, known = one.table, facts.places.get(one.table)
    reach = "position" if table == "events" else _ROWID.get(table, "rowid")
    sql = f"SELECT {reach}, {ID[table]}, {one.column or ID[table]} FROM {table} ORDER BY 1"  # noqa: S608
    rows = [row for row in db.execute(sql).fetchall() if row[2] != but and (known is None or row[1] in known)]
    assert rows, one
    return random.choice(rows)  # type: ignore[no-any-return]


def flip(db: sqlite3.Connection, one: Mutation, facts: Facts, random: Random) -> int | None:
    """The position that must be named."""
    row, name, was = drawn(db, one, facts, random)
    now = flipped(was, random)
    place = facts.places.get(one.table, {}).get(name)
    match one.table, one.column:
        case "events", "position":
            place = min(name, int(now))
        case "tasks", "task":
            place = facts.first[name]
        case "tasks", _ if _is_no_text(was, now):
            place = None  # which task it is cannot be read either, nor those after it
        case "keys" | "accounts", _ if _is_no_text(was, now):
            place = None
        case "claims", _ if _is_no_text(was, now) and one.column == "fingerprint":
            place = None
        case "claims", "version" if _is_of_its_task(db, facts, name, int(now)):
            raise Again  # a request may have done more than one event
        case "claims", "appended" if now != 0:
            raise Again  # as true as before
        case "seals", "task":
            place = facts.last[name]
        case "lanes", "position":
            place = min(facts.end, int(now)) + 1
        case "lanes", "lane":
            place = None
    put(db, one.table, row, one.column, now, was=was)
    return place


def _is_no_text(was: object, now: object) -> bool:
    """Whether text has become bytes that are none."""
    try:
        return isinstance(was, str) and isinstance(now, bytes) and not now.decode()
    except UnicodeDecodeError:
        return True


def _is_of_its_task(db: sqlite3.Connection, facts: Facts, key: str, version: int) -> bool:
    """Whether the task of the claim with this key has come to that version, by the event that took it or later."""
    sql = """SELECT claiming.version <= ?1 AND ?1 <= tasks.version FROM events AS claiming JOIN tasks USING (task)
             WHERE claiming.position = ?2"""
    return bool(db.execute(sql, (version, facts.places["claims"][key])).fetchone()[0])


def swap(db: sqlite3.Connection, one: Mutation, facts: Facts, random: Random) -> int | None:
    here, first, says = drawn(db, one, facts, random)
    there, second, other = drawn(db, one, facts, random, but=says)
    between = -1 if isinstance(says, int) else random.randbytes(16) if isinstance(says, bytes) else "between"
    rename = one.column == _ROWID.get(one.table, "position" if one.table == "events" else "")
    put(db, one.table, here, one.column, between, was=says)
    put(db, one.table, there, one.column, says, was=other)
    put(db, one.table, between if rename else here, one.column, other, was=says)  # type: ignore[arg-type]
    places = facts.places[one.table]
    return min(places[first], places[second])


def delete(db: sqlite3.Connection, one: Mutation, facts: Facts, random: Random) -> int | None:
    row, name, _ = drawn(db, one, facts, random)
    reach = "position" if one.table == "events" else _ROWID.get(one.table, "rowid")
    db.execute(f"DELETE FROM {one.table} WHERE {reach} = ?", (row,))  # noqa: S608
    by_table = {"tasks": facts.first, "seals": facts.last, "lanes": {}, "meta": {}}
    return by_table.get(one.table, facts.places.get(one.table, {})).get(name)


def insert(db: sqlite3.Connection, one: Mutation, facts: Facts, random: Random) -> int | None:
    """A row that is like another but for its id; of the log, also in between and before all others."""
    row, _, _ = drawn(db, one, facts, random)
    place: int | None = None
    name: object = random.randbytes(16) if ID[one.table] == "task" else f"invented {random.random()}"
    changed: dict[str, object] = {ID[one.table]: name}
    if one.table == "events":
        place = random.choice([facts.end + 1, random.randrange(1, facts.end + 1), -random.randrange(5)])
        db.execute("UPDATE events SET position = -position - 1000 WHERE position >= ?", (place,))
        db.execute("UPDATE events SET position = -position - 999 WHERE position < -900")
        changed = {"position": place, "task": random.randbytes(16), "version": 1}
        row = row if row < place or place < 1 else row + 1
        row = row + 1 if place < 1 else row
    elif one.table == "lanes":
        changed = {"lane": 1 + random.randrange(200)}
    columns = COLUMNS[one.table]
    reach = "position" if one.table == "events" else _ROWID.get(one.table, "rowid")
    values = [f":{column}" if column in changed else column for column in columns]
    sql = f"INSERT INTO {one.table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {one.table}"  # noqa: S608
    db.execute(f"{sql} WHERE {reach} = :row", changed | {"row": row})
    return place


def raw(path: Path, one: Mutation, facts: Facts, random: Random) -> int | None:
    """A bit of the file itself, in what it holds of one event."""
    with closing(sqlite3.connect(path)) as db:
        position, _, said = drawn(db, one, facts, random)
    piece = (said.encode() if isinstance(said, str) else said)[-24:]
    whole = bytearray(path.read_bytes())
    if whole.count(piece) != 1:  # on two pages, or said twice
        raise Again
    at = whole.index(piece) + random.randrange(len(piece))
    whole[at] ^= 1 << random.randrange(8)
    path.write_bytes(whole)
    return int(position)


DO: dict[str, Callable[[sqlite3.Connection, Mutation, Facts, Random], int | None]] = {
    "flip": flip,
    "swap": swap,
    "delete": delete,
    "insert": insert,
}


def mutated(original: Path, copy: Path, seed: int) -> int | None:
    """Make *copy* what *seed* makes of the ledger; the position that the audit must name first."""
    one = picked(seed)
    for attempt in range(200):
        random = Random(f"{seed}/{attempt}")
        with suppress(Again):
            if one.kind == "raw":
                copy.write_bytes(original.read_bytes())
                with closing(sqlite3.connect(copy)) as db:
                    facts = facts_of(db)
                return raw(copy, one, facts, random)
            with stored.broken(original, copy) as db:
                return DO[one.kind](db, one, facts_of(db), random)
    raise AssertionError(f"seed {seed}: no row can be mutated by {one}")


async def told(path: Path) -> Report | None:
    """What the audit says, and the quick check before it as well; None: the ledger is not even opened."""
    try:
        async with stored.reading(path) as engine:
            report = await audit(engine)
            assert await quick_check(engine, path, Means(workers=1)) == (None if report.found else report)
            return report
    except CannotOpenError:
        return None


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"

    async def make() -> None:
        async with stored.serving(path) as ledger:
            await simulated.world(ledger.engine, simulated.setting(tasks=TASKS, accounts=ACCOUNTS))
            await ledger.handle(replace(create(ON_SUCCESS), task_id=ident(1)))
            keys = [
                await ledger.keys.issue(account=f"a{n}", contract=contract, role=role, by="test", at_us=LATER_US + n)
                for n, (contract, role) in enumerate([("beatra", Role.CLIENT), ("ledger", Role.WORKER)] * 2)
            ]
            for n, key in enumerate(keys[:2]):
                await ledger.keys.revoke(key.key_id, by="test", at_us=LATER_US + 10 + n)
            for n in range(2):
                await ledger.accounts.set_limit(f"a{n}", 10**9 + n, by="test", at_us=LATER_US)
                grant = Grant(at_us=LATER_US, amount_micros=10**9 + n, key=f"g{n}")
                await ledger.accounts.grant(f"a{n}", grant, by="test")

    asyncio.run(make())
    return path


@pytest.mark.parametrize("first", range(0, MUTATIONS, BATCH))
def test_every_mutation_is_found_and_the_first_bad_position_named(original: Path, tmp_path: Path, first: int) -> None:
    async def all_of_them() -> None:
        for seed in range(first, first + BATCH):
            place = mutated(original, tmp_path / "ledger.db", seed)
            report = await told(tmp_path / "ledger.db")
            if report is None:
                assert picked(seed).table == "meta", (seed, picked(seed))
                continue
            assert report.found, (seed, picked(seed))
            assert report.first_bad_position == place, (seed, picked(seed), report.findings)

    asyncio.run(all_of_them())


FLIPPED = ("payload", "type", "amount_micros", "recorded_at_us", "effective_at_us", "position", "hash")


def flipped_row(row: Recorded, column: str, random: Random) -> Recorded:
    """The row with one bit of that column turned over; a position only upwards, for rows are read in their order."""
    owner: Recorded | Entry = row if column in {"position", "hash"} else row.entry
    was = getattr(owner, column)
    if was in {None, b""}:
        raise Again
    if column == "position":
        now: int | str | bytes = was | 1 << random.choice([bit for bit in range(62) if not was >> bit & 1])
    else:
        now = flipped(was, random)
    if isinstance(was, str) and isinstance(now, bytes):
        now = now.decode(errors="surrogateescape")
    changed = replace(owner, **{column: now})
    return changed if isinstance(changed, Recorded) else replace(row, entry=changed)


async def test_a_thousand_flipped_bits_in_what_a_row_says_are_found_and_each_position_named(original: Path) -> None:
    async with stored.reading(original) as reading:
        log, tasks = await reading.after(0, 10_000), await reading.page(TaskFilter(limit=10_000))
        engine = MemoryEngine()
        engine._head, engine._tasks = await reading.head(), {one.row.task_id: one for one in tasks}
        engine._keys = {key.key_id: key for key in await reading.keys(None)}
        engine._accounts = await reading.accounts(None)
        claimed = [claim for row in log for claim in row.event.claims]
        engine._claims = await reading.claims([(one.account, one.operation, one.key) for one in claimed])
    engine._seal_keys = {row.stream: row.seal_key for row in log if row.seal_key is not None}
    engine._log = log
    assert (await audit(engine)).findings == (), "the control: nothing is flipped"
    for seed in range(MUTATIONS):
        random, changed = Random(f"bit {seed}"), None
        while changed is None:
            at = random.randrange(len(log))
            with suppress(Again):
                changed = flipped_row(log[at], FLIPPED[seed % len(FLIPPED)], random)
        engine._log = [*log[:at], changed, *log[at + 1 :]]
        assert (await audit(engine)).first_bad_position == log[at].position, (seed, changed)


@pytest.mark.parametrize("first", [0, BATCH])
def test_a_mutation_that_is_none_is_not_found(original: Path, tmp_path: Path, first: int) -> None:
    """The control: the same rows are written, with what stands in them."""

    async def all_of_them() -> None:
        for seed in range(first, first + BATCH):
            one, random = picked(seed), Random(seed)
            with stored.broken(original, tmp_path / "ledger.db") as db:
                row, _, says = drawn(db, one, facts_of(db), random)
                put(db, one.table, row, one.column or ID[one.table], says, was=says)
            report = await told(tmp_path / "ledger.db")
            assert report is not None
            assert report.findings == (), (seed, one)

    asyncio.run(all_of_them())


def test_the_seeds_make_every_kind_of_mutation_in_every_column() -> None:
    assert {picked(seed) for seed in range(MUTATIONS)} == {*EVERY}


def test_every_column_of_every_table_is_mutated_or_said_not_to_be(original: Path) -> None:
    with closing(sqlite3.connect(original)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {(table, row[1]) for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    assert columns == {(one.table, one.column) for one in EVERY if one.kind == "flip"} | {*UNSEEN}


def test_a_seed_makes_the_same_mutation_again(original: Path, tmp_path: Path) -> None:
    for seed in range(20):
        places = [mutated(original, tmp_path / name, seed) for name in ("one.db", "other.db")]
        assert places[0] == places[1]
        assert dump(tmp_path / "one.db") == dump(tmp_path / "other.db"), seed


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        tables = [name.decode() for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [repr(row) for table in tables for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608

"""What is wrong with the file of the SQLite engine itself, where no row shows it: indexes, free pages, triggers, meta.

Three questions. SQLite's own, whether every page, index and constraint is sound: it takes about as long as reading the
file once. Ours, whether the schema is, to the letter, what this program makes: so a change of the schema's text, even
of a trigger's, is a schema version with an upgrade that leaves the same text behind. And whether there are rows that no
reader asks for.

Not seen: another log id or pepper of the right form, for nothing else in the file tells what they were.
"""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing

from ledger.sqlite_sql import SCHEMA, integrity_check
from ledger.sqlite_staged_sql import SCHEMA_WHEN
from ledger.sqlite_staging import State
from ledger.sqlite_wipe import Reading

DAMAGES_MAX = 100
"""Told of at most; SQLite's check ends there too."""

WHOLE = (f"PRAGMA integrity_check({DAMAGES_MAX})", integrity_check("sqlite_schema"))
"""The second for the list of free pages, which the first passes over (SQLite 3.40): a view has no root page, and where
one comes first the check takes itself for one of a part of the file."""
OBJECTS = """
SELECT type, name, tbl_name, sql FROM sqlite_schema
WHERE name NOT LIKE 'sqlite_stat%' AND name NOT IN ('_litestream_seq', '_litestream_lock')
ORDER BY type, name"""
"""All that the schema has, less what ANALYZE leaves, which only gives the planner advice, and what Litestream makes."""
META = "SELECT name, value FROM meta ORDER BY name"
STRAYS = {
    "seals: a key is no task's": "SELECT count(*) FROM seals WHERE task NOT IN (SELECT task FROM task_rows)",
    "claims: a row points at no task": "SELECT count(*) FROM claims WHERE task NOT IN (SELECT task FROM task_rows)",
    "lanes: there are more than the one": "SELECT max(0, count(*) - 1) FROM lanes",
}
"""Rows that nothing ever looks up; how many of each there are."""
META_FORMS = {"log_id": re.compile(rb"[0-9a-f]{16}"), "pepper": re.compile(rb".{32}", re.DOTALL)}
META_AT_TIMES = frozenset({"lineage"})
"""What a restored file has; one whose form is wrong is not opened."""

Objects = dict[tuple[str, str], tuple[str, str | None]]
"""By type and name: the table that it is of, and its text; SQLite's own indexes have none."""


async def damage(reading: Reading) -> list[str]:
    """What is wrong, in words; nothing if all is sound.

    Raises:
        sqlite3.Error, UnicodeDecodeError: the file cannot even be read so far.
    """
    told = [str(row[0]) for sql in WHOLE for row in await reading.rows(sql, ())]
    objects = _objects(await reading.rows(OBJECTS, ()))
    meta = {row[0]: row[1] for row in await reading.rows(META, ())}
    found = [one for one in told if one != "ok"]
    for what, sql in STRAYS.items():
        ((count,),) = await reading.rows(sql, ())
        found += [f"{what}: {count}"] if count else []
    return [*found, *_schema_breaks(objects), *_meta_breaks(meta)][:DAMAGES_MAX]


def made(state: State = State.AT_REST) -> Objects:
    """The schema of a store that this program has just made, or brought into that state of a switch."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        for statement in SCHEMA_WHEN[state]:
            fresh.execute(statement)
        return _objects(fresh.execute(OBJECTS).fetchall())


def _objects(rows: Iterable[sqlite3.Row]) -> Objects:
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def _schema_breaks(objects: Objects) -> Iterable[str]:
    wanted = made(_state(objects))
    for (kind, name), told in wanted.items():
        stands = objects.get((kind, name))
        if stands is None:
            yield f"the schema lacks {kind} {name}"
        elif stands != told:
            yield f"the schema has another {kind} {name} than this program makes"
    for kind, name in objects.keys() - wanted.keys():
        yield f"the schema has {kind} {name}, which this program does not make"


def _state(objects: Objects) -> State:
    """How far a switch has come that a process may have died in."""
    return State(sum(one in objects for one in (("table", "fresh_tasks"), ("trigger", "staged_merge"))))


def _meta_breaks(meta: dict[str, object]) -> Iterable[str]:
    for name, form in META_FORMS.items():
        value = meta.get(name)
        if not isinstance(value, bytes) or form.fullmatch(value) is None:
            yield f"meta: {name} has not the form that this program gives it"
    for name in meta.keys() - META_FORMS.keys() - META_AT_TIMES:
        yield f"meta: {name} is nothing that this program writes"

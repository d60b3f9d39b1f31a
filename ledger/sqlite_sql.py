"""The SQL of the SQLite engine: the schema, and every statement as one whole text.

The file guards itself: triggers refuse UPDATE and DELETE of the log, and an INSERT (``OR REPLACE`` too) that is not
the next position and the next version of its stream. So holes and rewrites are impossible through SQL, not only
through this program. In the same way a `deleted` event takes the key of its task with it, whoever writes it.

A batch goes in as one row of ``appends``, a view that is always empty: its trigger moves the head and writes the rows
of each table.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ledger.engine import ERASES

APPLICATION_ID = 0x544C4447  # "TLDG": how `file` and we tell a ledger from any other SQLite file
SCHEMA_VERSION = 5
"""1 had payloads that were not sealed. It is refused and not upgraded, for the chain covers them as they are; no
release wrote it. 2 had no accounts, 3 did not count their tasks under way, 4 was read without views; all three are
upgraded."""
LANE = 0

_encoder = msgspec.json.Encoder()


class Rows:
    """Rows of one table on their way into it, any number of them in two values.

    They come as one JSON array, and the values of *byte_columns*, which JSON cannot hold, as slices of one byte string.
    """

    def __init__(
        self, table: str, columns: tuple[str, ...], *, byte_columns: tuple[str, ...], otherwise: str = ""
    ) -> None:
        self._byte_places = [columns.index(name) for name in byte_columns]
        values = [f"json_extract(value, '$[{place}]')" for place in range(len(columns))]
        for offset, place in enumerate(self._byte_places):
            length = f"json_extract(value, '$[{len(columns) + offset}]')"
            values[place] = f"substr(NEW.{table}_bytes, {values[place]}, {length})"
        self.insert = f"""
    INSERT INTO {table} ({", ".join(columns)})
    SELECT {", ".join(values)} FROM json_each(NEW.{table}_rows) WHERE TRUE ORDER BY key {otherwise};"""

    def packed(self, rows: Sequence[Sequence[Any]]) -> tuple[str | None, bytes | None]:
        """The two values. In a row, a byte column holds an offset; the lengths stand at the row's end."""
        if not rows:
            return None, None
        packed, parts, at = [], [], 1
        for row in rows:
            cells = list(row)
            for place in self._byte_places:
                part = cells[place]
                if part is None:
                    cells.append(None)
                else:
                    cells[place] = at
                    cells.append(len(part))
                    parts.append(part)
                    at += len(part)
            packed.append(cells)
        return _encoder.encode(packed).decode(), b"".join(parts)


EVENT_COLUMNS = (
    "position",
    "lane",
    "task",
    "version",
    "type",
    "recorded_at",
    "effective_at",
    "account",
    "amount_micros",
    "actor",
    "request_id",
    "data",
    "payload",
    "hash",
)
TASK_COLUMNS = (
    "task",
    "account",
    "contract",
    "capability",
    "model",
    "status",
    "version",
    "position",
    "created_at",
    "authorised_micros",
    "held_micros",
    "released_micros",
    "charged_micros",
    "refunded_micros",
    "view",
)
CLAIM_COLUMNS = ("account", "operation", "key", "fingerprint", "task", "version", "appended", "at")
KEY_COLUMNS = ("key_id", "account", "contract", "role", "digest", "issued_at", "revoked_at")

ACCOUNT_COLUMNS = (
    "account",
    "position",
    "version",
    "limit_micros",
    "granted_micros",
    "held_micros",
    "charged_micros",
    "refunded_micros",
    "expected_micros",
    "live_tasks",
)

EVENT_ROWS = Rows("events", EVENT_COLUMNS, byte_columns=("task", "payload", "hash"))
TASK_ROWS = Rows(
    "tasks",
    TASK_COLUMNS,
    byte_columns=("task", "view"),
    otherwise="""
ON CONFLICT (task) DO UPDATE SET
    status = excluded.status, version = excluded.version, position = excluded.position,
    authorised_micros = excluded.authorised_micros, held_micros = excluded.held_micros,
    released_micros = excluded.released_micros, charged_micros = excluded.charged_micros,
    refunded_micros = excluded.refunded_micros, view = excluded.view""",
)
CLAIM_ROWS = Rows(
    "claims",
    CLAIM_COLUMNS,
    byte_columns=("task",),
    otherwise="""
ON CONFLICT (account, operation, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, task = excluded.task, version = excluded.version,
    appended = excluded.appended, at = excluded.at""",
)
SEAL_ROWS = Rows("seals", ("task", "key"), byte_columns=("task", "key"))
KEY_ROWS = Rows(
    "keys",
    KEY_COLUMNS,
    byte_columns=(),
    otherwise="ON CONFLICT (key_id) DO UPDATE SET revoked_at = excluded.revoked_at",
)

ACCOUNT_ROWS = Rows(
    "accounts",
    ACCOUNT_COLUMNS,
    byte_columns=(),
    # Sums are moved, not set. A cast keeps what is beyond 64 bits at `SUM_MAX_MICROS`, as every engine does. Terms are
    # set by those rows that bring a version.
    otherwise="""
ON CONFLICT (account) DO UPDATE SET
    position = excluded.position,
    version = iif(excluded.version, excluded.version, version),
    limit_micros = iif(excluded.version, excluded.limit_micros, limit_micros),
    granted_micros = iif(excluded.version, excluded.granted_micros, granted_micros),
    held_micros = CAST(held_micros + excluded.held_micros AS INTEGER),
    charged_micros = CAST(charged_micros + excluded.charged_micros AS INTEGER),
    refunded_micros = CAST(refunded_micros + excluded.refunded_micros AS INTEGER),
    expected_micros = CAST(expected_micros + excluded.expected_micros AS INTEGER),
    live_tasks = live_tasks + excluded.live_tasks""",
)

APPEND_COLUMNS = (
    "lane",
    "after_position",
    "after_hash",
    "position",
    "hash",
    "recorded_at",
    *(
        f"{table}_{part}"
        for table in ("seals", "events", "tasks", "claims", "keys", "accounts")
        for part in ("rows", "bytes")
    ),
)

TASKS_TABLE = """CREATE TABLE tasks (
    task BLOB NOT NULL,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    capability TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    authorised_micros INTEGER NOT NULL,
    held_micros INTEGER NOT NULL,
    released_micros INTEGER NOT NULL,
    charged_micros INTEGER NOT NULL,
    refunded_micros INTEGER NOT NULL,
    view BLOB NOT NULL,
    CHECK (held_micros >= 0 AND refunded_micros BETWEEN 0 AND charged_micros)
) STRICT;
CREATE UNIQUE INDEX tasks_by_id ON tasks (task);
CREATE INDEX tasks_by_account ON tasks (account, task);
CREATE INDEX tasks_by_status ON tasks (status, task);
"""
ACCOUNTS = """
CREATE TABLE accounts (
    account TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    limit_micros INTEGER,
    granted_micros INTEGER,
    held_micros INTEGER NOT NULL,
    charged_micros INTEGER NOT NULL,
    refunded_micros INTEGER NOT NULL,
    expected_micros INTEGER NOT NULL,
    live_tasks INTEGER NOT NULL
) STRICT;
"""
LIVE_ROWS = f"""
CREATE VIEW task_rows AS SELECT {", ".join(TASK_COLUMNS)} FROM tasks;
CREATE VIEW account_rows AS SELECT {", ".join(ACCOUNT_COLUMNS)} FROM accounts;
"""
"""What is read, while rows are replaced too (`ledger.sqlite_staged_sql`); otherwise the tables, and costs nothing."""
APPENDS = f"""
CREATE VIEW appends ({", ".join(APPEND_COLUMNS)}) AS SELECT {", ".join(["NULL"] * len(APPEND_COLUMNS))} WHERE FALSE;
CREATE TRIGGER append INSTEAD OF INSERT ON appends
BEGIN
    UPDATE lanes SET position = NEW.position, hash = NEW.hash, recorded_at = NEW.recorded_at
    WHERE lane = NEW.lane AND position = NEW.after_position AND hash = NEW.after_hash;
    SELECT RAISE(ABORT, 'the log has moved on') WHERE changes() = 0;
    SELECT RAISE(ABORT, 'an account''s terms have changed')
    FROM json_each(NEW.accounts_rows) AS change
    WHERE json_extract(change.value, '$[{len(ACCOUNT_COLUMNS)}]')
        <> (SELECT version FROM account_rows WHERE account = json_extract(change.value, '$[0]'));
    {SEAL_ROWS.insert}{EVENT_ROWS.insert}{TASK_ROWS.insert}{CLAIM_ROWS.insert}{KEY_ROWS.insert}{ACCOUNT_ROWS.insert}
END;
"""

SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY, position INTEGER NOT NULL, hash BLOB NOT NULL, recorded_at INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL CHECK (lane = {LANE}),
    task BLOB NOT NULL CHECK (length(task) = 16),
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    effective_at INTEGER NOT NULL,
    account TEXT NOT NULL,
    amount_micros INTEGER CHECK (amount_micros > 0),
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    data TEXT NOT NULL,
    payload BLOB,
    hash BLOB NOT NULL,
    UNIQUE (task, version)
) STRICT;
CREATE TRIGGER events_in_order BEFORE INSERT ON events
WHEN NEW.position IS NOT 1 + (SELECT coalesce(max(position), 0) FROM events)
    OR NEW.version IS NOT 1 + (SELECT coalesce(max(version), 0) FROM events WHERE task = NEW.task)
BEGIN SELECT RAISE(ABORT, 'the log is append-only: not the next position and version'); END;
CREATE TRIGGER events_unchanged BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the log is append-only: no update'); END;
CREATE TRIGGER events_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the log is append-only: no delete'); END;
CREATE TABLE seals (
    task BLOB PRIMARY KEY CHECK (length(task) = 16), key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER events_erase AFTER INSERT ON events WHEN NEW.type = '{ERASES}'
BEGIN DELETE FROM seals WHERE task = NEW.task; END;
{TASKS_TABLE}CREATE TABLE claims (
    account TEXT NOT NULL,
    operation TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    task BLOB NOT NULL,
    version INTEGER NOT NULL,
    appended INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (account, operation, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    role TEXT NOT NULL,
    digest TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
{ACCOUNTS}{LIVE_ROWS}{APPENDS}"""

APPEND = f"INSERT INTO appends VALUES ({', '.join(['?'] * len(APPEND_COLUMNS))})"
"""A whole batch in one statement: by itself, a transaction of its own."""

EVENTS = f"SELECT {', '.join(EVENT_COLUMNS)}, (SELECT key FROM seals WHERE seals.task = events.task) FROM events"
EVENTS_AFTER = f"{EVENTS} WHERE position > ? ORDER BY position LIMIT ?"
HEAD = f"SELECT lane, position, hash, recorded_at FROM lanes WHERE lane = {LANE}"
TASKS = f"SELECT {', '.join(TASK_COLUMNS)}, (SELECT key FROM seals WHERE seals.task = task_rows.task) FROM task_rows"
KEYS = f"SELECT {', '.join(KEY_COLUMNS)} FROM keys"
KEY = f"{KEYS} WHERE key_id = ?"
KEYS_OF = f"{KEYS} WHERE ?1 IS NULL OR account = ?1 ORDER BY issued_at, key_id"

ACCOUNTS_ALL = f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM account_rows ORDER BY account"

TABLES = ("meta", "lanes", "events", "seals", "tasks", "claims", "keys", "accounts")


CHECKED = ("sqlite_schema", *TABLES)
"""What `integrity_check` is asked of, one after the other: with the schema SQLite checks the list of free pages."""


def integrity_check(table: str) -> str:
    """The statement that looks at every page of one of `CHECKED`, and holds its indexes against its rows."""
    return f"PRAGMA integrity_check({table})"


READ_MAX = 64
"""Rows asked for by key in one statement. The statements below are whole texts, so that SQLite keeps them compiled."""


def tasks_page(where: Sequence[str], *, oldest_first: bool) -> str:
    """The statement for a page of the tasks that fit all of *where*; its last values are `limit` and `bytes_max`.

    How long a view is stands at the head of its row, so that of the rows that have no room only that is read.
    """
    order = "ASC" if oldest_first else "DESC"
    return f"""
WITH sizes AS (
    SELECT task, length(view) AS size FROM task_rows WHERE {" AND ".join(where) or "TRUE"} ORDER BY task {order} LIMIT ?
), fitting AS (
    SELECT task, sum(size) OVER (ORDER BY task {order} ROWS UNBOUNDED PRECEDING) - size AS before FROM sizes
)
{TASKS} WHERE task IN (SELECT task FROM fitting WHERE before < ?) ORDER BY task {order}"""


def _marks(count: int, mark: str) -> str:
    return ", ".join([mark] * count)


WIDTHS = (1, 8, READ_MAX)
TASKS_BY_ID = {n: f"{TASKS} WHERE task IN ({_marks(n, '?')})" for n in WIDTHS}
ACCOUNTS_BY_NAME = {
    n: f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM account_rows WHERE account IN ({_marks(n, '?')})" for n in WIDTHS
}
VERSIONS = f"SELECT task, max(version) FROM events WHERE task IN ({_marks(READ_MAX, '?')}) GROUP BY task"
CLAIMS_BY_ID = {
    # A join in this order seeks each wanted key; `(account, operation, key) IN (VALUES ...)` reads the whole table.
    n: f"""
WITH wanted (a, o, k) AS (VALUES {_marks(n, "(?, ?, ?)")})
SELECT {", ".join(CLAIM_COLUMNS)}
FROM wanted CROSS JOIN claims ON account = a AND operation = o AND key = k"""
    for n in WIDTHS
}
CLAIMS_AFTER = f"""
SELECT {", ".join(CLAIM_COLUMNS)} FROM claims WHERE (account, operation, key) > (?, ?, ?)
ORDER BY account, operation, key LIMIT ?"""
EVENTS_BY_STREAM = {n: f"{EVENTS} WHERE task IN ({_marks(n, '?')}) ORDER BY task, version" for n in WIDTHS}

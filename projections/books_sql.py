"""The SQL of the books: their schema, and each statement as one whole text."""

APPLICATION_ID = 0x544C424B  # "TLBK"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE checkpoint (log_id TEXT NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE purposes (
    purpose INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    school TEXT NOT NULL,
    UNIQUE (account, contract, model, provider, school)
) STRICT;
CREATE TABLE tasks (task BLOB PRIMARY KEY, purpose INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE movements (
    position INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    purpose INTEGER NOT NULL,
    kind TEXT NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros > 0),
    recorded_at INTEGER NOT NULL,
    effective_at INTEGER NOT NULL
) STRICT;
"""

FOUNDING = (
    *_SCHEMA.split(";\n")[:-1],
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
EMPTY = ("DELETE FROM checkpoint", "DELETE FROM purposes", "DELETE FROM tasks", "DELETE FROM movements")
BEGIN_AT = "INSERT INTO checkpoint VALUES (?, ?, ?)"

LOG_ID = "SELECT log_id FROM checkpoint"
CHECKPOINT = "SELECT position, hash FROM checkpoint"
MOVE_ON = "UPDATE checkpoint SET position = ?, hash = ? WHERE position = ?"
PURPOSES = "SELECT purpose, account, contract, model, provider, school FROM purposes"
ADD_PURPOSE = "INSERT INTO purposes (account, contract, model, provider, school) VALUES (?, ?, ?, ?, ?)"
ADD_TASK = "INSERT INTO tasks (task, purpose) VALUES (?, ?)"
PURPOSE_OF = "SELECT purpose FROM tasks WHERE task = ?"
ADD_MOVEMENT = "INSERT INTO movements VALUES (?, ?, ?, ?, ?, ?, ?)"

LOW_BITS = 24
"""Amounts are added up in two parts: whole, a few of the largest would be more than SQLite's integers hold."""

_SUMS = f"""
    kind, count(*), sum(amount_micros >> {LOW_BITS}), sum(amount_micros & {(1 << LOW_BITS) - 1})
FROM movements WHERE position <= :position"""

BY_PURPOSE = {
    clock: f"SELECT purpose, 0, {_SUMS} AND {clock}_at >= :since AND {clock}_at < :until GROUP BY purpose, kind"
    for clock in ("effective", "recorded")
}
"""By the clock that decides what lies between *since* and *until*."""
BY_DAY = {
    clock: statement.replace("purpose, 0,", f"purpose, {clock}_at / 86400000000,", 1) + ", 2"
    for clock, statement in BY_PURPOSE.items()
}
"""The same, and by day: whole days since the epoch, UTC."""

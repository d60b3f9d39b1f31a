"""The SQL of the books: their schema, and each statement as one whole text."""

from ledger.times import US_PER_DAY
from projections.side_file import Shape

SCHEMA_VERSION = 5

_SCHEMA = """
CREATE TABLE purposes (
    purpose INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    school TEXT NOT NULL,
    UNIQUE (account, contract, model, provider, school)
) STRICT;
CREATE TABLE tasks (
    task BLOB PRIMARY KEY,
    purpose INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    resolved_model TEXT,
    status TEXT NOT NULL DEFAULT 'queued',
    finished_at INTEGER,
    before_update TEXT,
    before_update_finished_at INTEGER,
    cancel_requested_at INTEGER,
    held_at INTEGER,
    expected_micros INTEGER NOT NULL,
    held_micros INTEGER NOT NULL DEFAULT 0,
    charged_micros INTEGER NOT NULL DEFAULT 0,
    refunded_micros INTEGER NOT NULL DEFAULT 0,
    billed_high INTEGER NOT NULL DEFAULT 0,
    billed_low INTEGER NOT NULL DEFAULT 0,
    billed_came INTEGER NOT NULL DEFAULT 0,
    identified INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_end ON tasks (finished_at, task, purpose) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_with_hold ON tasks (task) WHERE held_micros <> 0;
CREATE INDEX tasks_expecting ON tasks (purpose) WHERE expected_micros > 0 AND status IN ('queued', 'running');
CREATE TABLE provider_tasks (
    provider_task_id TEXT NOT NULL, task BLOB NOT NULL, PRIMARY KEY (provider_task_id, task)
) STRICT, WITHOUT ROWID;
CREATE TABLE breaks (
    break BLOB PRIMARY KEY,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    life TEXT NOT NULL,
    at_stake_micros INTEGER NOT NULL,
    row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX breaks_by_life ON breaks (life, break);
CREATE TABLE movements (
    position INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    purpose INTEGER NOT NULL,
    kind TEXT NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros > 0),
    recorded_at INTEGER NOT NULL,
    effective_at INTEGER NOT NULL
) STRICT;
CREATE INDEX costs_by_task ON movements (task, position) WHERE kind IN ('provider-billed', 'provider-credited');
CREATE TABLE billed_lines (
    provider TEXT NOT NULL,
    line TEXT NOT NULL,
    task TEXT,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    model TEXT NOT NULL,
    micros INTEGER NOT NULL,
    at INTEGER NOT NULL,
    statement TEXT NOT NULL,
    PRIMARY KEY (provider, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE billing_streams (provider TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE statements (
    provider TEXT NOT NULL,
    statement TEXT NOT NULL,
    came INTEGER NOT NULL,
    is_read INTEGER NOT NULL,
    PRIMARY KEY (provider, statement)
) STRICT, WITHOUT ROWID;
CREATE TABLE replaced_statements (
    provider TEXT NOT NULL, statement TEXT NOT NULL, replaced_by TEXT NOT NULL, PRIMARY KEY (provider, statement)
) STRICT, WITHOUT ROWID;
"""

SHAPE = Shape(
    "books",
    0x544C424B,  # "TLBK"
    SCHEMA_VERSION,
    _SCHEMA,
    (
        "purposes",
        "tasks",
        "provider_tasks",
        "breaks",
        "movements",
        "billed_lines",
        "billing_streams",
        "statements",
        "replaced_statements",
    ),
)

PURPOSES = "SELECT purpose, account, contract, model, provider, school FROM purposes"
PROVIDERS_OF_IDS = """
SELECT DISTINCT provider
FROM (SELECT value AS wanted FROM json_each(?))
CROSS JOIN provider_tasks ON provider_task_id = wanted JOIN tasks USING (task) JOIN purposes USING (purpose)"""
PROVIDERS = "SELECT DISTINCT provider FROM purposes"
ADD_PURPOSE = "INSERT INTO purposes (account, contract, model, provider, school) VALUES (?, ?, ?, ?, ?)"
ADD_TASK = "INSERT INTO tasks (task, purpose, created_at, resolved_model, expected_micros) VALUES (?, ?, ?, ?, ?)"
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
    clock: statement.replace("purpose, 0,", f"purpose, {clock}_at / {US_PER_DAY},", 1) + ", 2"
    for clock, statement in BY_PURPOSE.items()
}
"""The same, and by day: whole days since the epoch, UTC."""

BILL_TASK = """
UPDATE tasks SET
    billed_high = billed_high + ?, billed_low = billed_low + ?, billed_came = max(billed_came, ?) WHERE task = ?"""
"""In two parts, as all sums: a statement may say anything, and what it gives back must leave what was there before."""
PUT_LINE = "INSERT OR REPLACE INTO billed_lines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_STREAM = "INSERT OR REPLACE INTO billing_streams VALUES (?, ?)"
STREAM_VERSION = "SELECT version FROM billing_streams WHERE provider = ?"
LINES_KNOWN = """
SELECT line, task, account, contract, model, micros, at, came
FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN billed_lines ON line = wanted AND provider = ?
JOIN statements USING (provider, statement)"""
TURN = "SELECT came, is_read FROM statements WHERE provider = ? AND statement = ?"
PUT_TURN = "INSERT OR REPLACE INTO statements VALUES (?, ?, ?, ?)"
PUT_REPLACED = "INSERT OR REPLACE INTO replaced_statements VALUES (?, ?, ?)"
REPLACED_BY = """
WITH RECURSIVE older (statement) AS (
    SELECT statement FROM replaced_statements WHERE provider = ?1 AND replaced_by = ?2
    UNION
    SELECT one.statement FROM older JOIN replaced_statements AS one
    ON one.provider = ?1 AND one.replaced_by = older.statement
)
SELECT statement FROM older"""
LINES_OF = """
SELECT line, task, account, contract, model, micros, at, came
FROM billed_lines JOIN statements USING (provider, statement)
WHERE provider = :provider AND line > :line AND micros <> 0
    AND statement IN (SELECT value FROM json_each(:statements))
ORDER BY line LIMIT :limit"""
"""A look at each line of the provider: to replace a statement is rare, and an index would cost each line."""
COSTS_OF_TASK = """
SELECT position FROM movements
WHERE task = ? AND kind IN ('provider-billed', 'provider-credited') AND position <= ? ORDER BY position"""
EXPECTED = f"""
SELECT account, sum(expected_micros >> {LOW_BITS}), sum(expected_micros & {(1 << LOW_BITS) - 1})
FROM tasks JOIN purposes USING (purpose)
WHERE expected_micros > 0 AND status IN ('queued', 'running') GROUP BY account"""  # noqa: S608 - constants

BREAK = "SELECT row FROM breaks WHERE break = ?"
PUT_BREAK = "INSERT OR REPLACE INTO breaks VALUES (?, ?, ?, ?, ?, ?)"
BREAKS_LISTED = """
SELECT row FROM breaks
WHERE break > :after AND (:life IS NULL OR life = :life) AND (:kind IS NULL OR kind = :kind)
    AND (:provider IS NULL OR provider = :provider)
ORDER BY break LIMIT :limit"""
BREAKS_COUNTED = f"""
SELECT kind, count(*), sum(at_stake_micros >> {LOW_BITS}), sum(at_stake_micros & {(1 << LOW_BITS) - 1}) FROM breaks
WHERE life = :life AND (:provider IS NULL OR provider = :provider) GROUP BY kind ORDER BY kind"""  # noqa: S608 - constants

"""The SQL of a replay and of the sieve: what they read of the log and of the rows, each statement as one whole text."""

from ledger.sqlite_sql import ACCOUNT_COLUMNS, EVENT_COLUMNS, TASK_COLUMNS

PAGE_TASKS = 64
"""Read at once: what a processor keeps at hand. With 1000 it took a fifth longer."""

_ROW = ", ".join(TASK_COLUMNS)

HEAD = "SELECT position, hash FROM lanes"
HASH_AT = "SELECT hash FROM events WHERE position = ?"
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"
BORN_AT = "SELECT task FROM events WHERE position >= ? AND type = 'created' ORDER BY position LIMIT 1"
ROWS = f"""
SELECT {_ROW} FROM task_rows WHERE task > ? AND task <= ? ORDER BY task LIMIT {PAGE_TASKS}"""  # noqa: S608 - constants
ROW = f"SELECT {_ROW} FROM task_rows WHERE task = ?"  # noqa: S608 - the same
KEYS = "SELECT task, key FROM seals WHERE task > ? AND task <= ?"
KEY = "SELECT key FROM seals WHERE task = ?"
HISTORIES = "SELECT task, position, data, payload FROM events WHERE task > ? AND task <= ? ORDER BY task, version"
"""What the fold of a replay reads of them, and no more: a third of the time."""
AUDITED = HISTORIES.replace(" FROM", ", version, recorded_at, account FROM", 1)
"""The same, with what an audit looks at as well."""
STRAYS = "SELECT 1 FROM task_rows WHERE task <= ? OR task > ? LIMIT 1"
SPAN = f"""
SELECT {", ".join(EVENT_COLUMNS)} FROM events WHERE position >= ? AND position < ?
ORDER BY position"""  # noqa: S608 - the same
HASHES = "SELECT position, hash FROM events WHERE position BETWEEN 1 AND ? ORDER BY position"
HISTORY = "SELECT position, version, type, data, payload FROM events WHERE task = ? ORDER BY version"
CREDIT = """
SELECT account, version, position, data FROM events
WHERE task = ? AND type IN ('credit-limited', 'credit-granted', 'credit-revoked')
    AND position <= ? AND effective_at <= ?
ORDER BY version"""
TOUCHED = "SELECT DISTINCT task, account FROM events WHERE position > ? AND position <= ?"
IN_STREAM_SINCE = "SELECT 1 FROM events WHERE task = ? AND position > ? LIMIT 1"
ACCOUNTS = f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM account_rows ORDER BY account"  # noqa: S608 - the same
ACCOUNT = f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM account_rows WHERE account = ?"  # noqa: S608 - the same

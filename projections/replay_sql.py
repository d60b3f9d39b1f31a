"""The SQL of a replay: what it reads of the log and of the live rows, each statement as one whole text."""

from ledger.sqlite_sql import ACCOUNT_COLUMNS, TASK_COLUMNS

PAGE_TASKS = 1000

_HOT = "task, version, type, position, amount_micros, effective_at, data, payload"
"""In the order of `projections.refold.HotRow`."""
_ROW = ", ".join(TASK_COLUMNS)

HEAD = "SELECT position, hash FROM lanes"
HASH_AT = "SELECT hash FROM events WHERE position = ?"
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"
BORN_AT = "SELECT task FROM events WHERE position >= ? AND type = 'created' ORDER BY position LIMIT 1"
ROWS = f"""
SELECT {_ROW} FROM tasks WHERE task > ? AND task <= ? ORDER BY task LIMIT {PAGE_TASKS}"""  # noqa: S608 - constants
ROW = f"SELECT {_ROW} FROM tasks WHERE task = ?"  # noqa: S608 - the same
KEYS = "SELECT task, key FROM seals WHERE task > ? AND task <= ?"
KEY = "SELECT key FROM seals WHERE task = ?"
HISTORIES = f"SELECT {_HOT} FROM events WHERE task > ? AND task <= ? ORDER BY task, version"  # noqa: S608 - the same
HISTORY = f"SELECT {_HOT} FROM events WHERE task = ? ORDER BY version"  # noqa: S608 - the same
CREDIT = """
SELECT account, version, position, data FROM events
WHERE task = ? AND type IN ('credit-limited', 'credit-granted', 'credit-revoked')
    AND position <= ? AND effective_at <= ?
ORDER BY version"""
TOUCHED = "SELECT DISTINCT task FROM events WHERE position > ? AND position <= ?"
ACCOUNTS = f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM accounts ORDER BY account"  # noqa: S608 - the same
ACCOUNT = f"SELECT {', '.join(ACCOUNT_COLUMNS)} FROM accounts WHERE account = ?"  # noqa: S608 - the same

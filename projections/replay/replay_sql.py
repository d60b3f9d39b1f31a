"""The SQL by which a replay and the quick check read the log and the rows, each statement as one whole text."""

from typing import NamedTuple

from ledger.sqlite_sql import ACCOUNT_COLUMNS, TASK_COLUMNS

PAGE_TASKS = 24
"""Read at once: what a processor keeps at hand. With 64 a replay took up to a seventh longer, with 1000 far more."""

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
_OTHERS = "length(task) = 16 AND substr(task, 7, 1) >= x'80' AND substr(task, 7, 1) < x'90'"
"""Whether a stream is no task's, as `ledger.streams.is_task_stream` has it."""
OTHERS = f"SELECT DISTINCT task FROM events WHERE task > ? AND task <= ? AND {_OTHERS}"  # noqa: S608 - constants


class Histories(NamedTuple):
    """Histories between two ids, of the same columns."""

    columns: tuple[str, ...]
    told: str
    """Of all streams there."""
    strays: str
    """Of tasks alone. Where no task has a row there are none to wait for, and all that accounts and books have done."""


def _histories(*more: str) -> Histories:
    columns = ("task", "position", "data", "payload", *more)
    told = f"SELECT {', '.join(columns)} FROM events WHERE task > ? AND task <= ?"  # noqa: S608 - the same
    in_order = " ORDER BY task, version"
    return Histories(columns, told + in_order, f"{told} AND NOT ({_OTHERS}){in_order}")


FOLDED = _histories()
"""What the fold of a replay reads of them, and no more: a third of the time."""
AUDITED = _histories(
    *("version", "recorded_at", "account", "type", "effective_at", "amount_micros"),
    *("lane", "actor", "request_id", "hash"),
)
"""The whole rows, for an audit: what its fold reads, what it looks at as well, and what only the chain covers."""
STRAYS = "SELECT 1 FROM task_rows WHERE task <= ? OR task > ? LIMIT 1"
BESIDE = f"""
SELECT {", ".join(AUDITED.columns)} FROM events WHERE position >= ? AND position < ? AND {_OTHERS}
ORDER BY position"""  # noqa: S608 - the same
"""The rows that are no task's."""
LINKS = "SELECT position, hash FROM events WHERE position IN (SELECT value FROM json_each(?))"
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

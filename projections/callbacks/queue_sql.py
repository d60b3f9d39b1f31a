"""The SQL of the queue of callbacks: its schema, and each statement as one whole text."""

from projections.side_file import Shape

_SCHEMA = """
CREATE TABLE addresses (
    task TEXT PRIMARY KEY, contract TEXT NOT NULL, url TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE webhooks (
    account TEXT NOT NULL, webhook TEXT NOT NULL, row BLOB NOT NULL, PRIMARY KEY (account, webhook)
) STRICT, WITHOUT ROWID;
CREATE TABLE callbacks (
    task TEXT NOT NULL,
    webhook TEXT NOT NULL,
    about INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    contract TEXT NOT NULL,
    url TEXT NOT NULL,
    receiver TEXT NOT NULL,
    type TEXT NOT NULL,
    fact_at INTEGER NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    tried INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    attempted_at INTEGER,
    error TEXT,
    PRIMARY KEY (task, webhook, about)
) STRICT, WITHOUT ROWID;
CREATE INDEX callbacks_due ON callbacks (account, receiver, due_at) WHERE state = 'waiting';
CREATE INDEX callbacks_by_state ON callbacks (state, position, id);
CREATE INDEX callbacks_of_webhook ON callbacks (webhook, position, id) WHERE webhook <> '';
CREATE INDEX callbacks_done ON callbacks (attempted_at) WHERE state = 'delivered';
"""

SHAPE = Shape("callbacks", 0x544C4342, 1, _SCHEMA, ("addresses", "webhooks", "callbacks"))  # "TLCB"

ADD_ADDRESS = "INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)"
ADDRESSES = "SELECT task, contract, url FROM addresses WHERE task IN (SELECT value FROM json_each(?))"
WEBHOOKS = "SELECT account, webhook, row FROM webhooks WHERE account IN (SELECT value FROM json_each(?))"
PUT_WEBHOOK = "INSERT OR REPLACE INTO webhooks VALUES (?, ?, ?)"
DROP_WEBHOOK = "DELETE FROM webhooks WHERE account = ? AND webhook = ?"

ADD = """
INSERT OR IGNORE INTO callbacks
    (task, webhook, about, id, account, contract, url, receiver, type, fact_at, position, due_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELIVERED = """
UPDATE callbacks SET state = 'delivered', attempts = :attempts, tried = tried + 1, attempted_at = :at, error = NULL
WHERE id = :id"""
GIVEN_UP = """
UPDATE callbacks SET state = 'dead', attempts = :attempts, tried = tried + 1, attempted_at = :at, error = :error
WHERE id = :id"""
FAILED = """
UPDATE callbacks SET attempts = :attempts, tried = tried + 1, attempted_at = :at, error = :error, due_at = :due
WHERE id = :id"""
AGAIN = "UPDATE callbacks SET state = 'waiting', tried = 0, due_at = ? WHERE id = ?"
MOVED = "UPDATE callbacks SET url = ?, receiver = ? WHERE webhook = ? AND state <> 'delivered'"
DISABLED = "UPDATE callbacks SET state = 'dead', error = 'webhook disabled' WHERE webhook = ? AND state = 'waiting'"
WITHDRAWN = "DELETE FROM callbacks WHERE webhook = ?"
FORGET = "DELETE FROM callbacks WHERE state = 'delivered' AND attempted_at < ?"

_COLUMNS = """
id, task, about, webhook, account, contract, url, type, fact_at, position, state, attempts, tried, due_at,
attempted_at, error"""
BY_ID = f"SELECT {_COLUMNS} FROM callbacks WHERE id = ?"  # noqa: S608 - constants, here and below
LAST_OF_TASK = f"SELECT {_COLUMNS} FROM callbacks WHERE task = ? AND webhook = '' ORDER BY about DESC LIMIT 1"  # noqa: S608
_OF_LINE = """
FROM callbacks AS one WHERE state = 'waiting' AND account = ? AND receiver = ? AND NOT EXISTS (
    SELECT 1 FROM callbacks AS before WHERE before.task = one.task AND before.webhook = one.webhook
    AND before.about < one.about AND before.state = 'waiting')
ORDER BY due_at LIMIT ?"""
DUE = f"SELECT {_COLUMNS} {_OF_LINE}"
"""What waits in a line, the most urgent first, of each task and address only the eldest: they are told in order."""
LINES = """
SELECT account, receiver, min(iif(tried = 0, 0, due_at)) FROM callbacks
WHERE state = 'waiting' GROUP BY account, receiver"""
LISTED = f"""
SELECT {_COLUMNS} FROM callbacks
WHERE (:state IS NULL OR state = :state) AND (:account IS NULL OR account = :account)
    AND (:position IS NULL OR (position, id) < (:position, :id))
ORDER BY position DESC, id DESC LIMIT :limit"""  # noqa: S608
LISTED_IN_STATE = LISTED.replace("(:state IS NULL OR state = :state)", "state = :state", 1)
OF_WEBHOOK = f"""
SELECT {_COLUMNS} FROM callbacks WHERE webhook = ? AND account = ?
ORDER BY position DESC, id DESC LIMIT ? OFFSET ?"""  # noqa: S608
COUNT_OF_WEBHOOK = "SELECT count(*) FROM callbacks WHERE webhook = ? AND account = ?"

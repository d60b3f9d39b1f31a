"""The SQL of a replay's file: its schema, and each statement as one whole text."""

APPLICATION_ID = 0x544C5250  # "TLRP"
PAGE = 500

FOUNDING = f"""
BEGIN IMMEDIATE;
CREATE TABLE replay (log_id TEXT NOT NULL, until INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE parts (
    part INTEGER PRIMARY KEY, after BLOB NOT NULL, upto BLOB NOT NULL, tasks INTEGER, events INTEGER
) STRICT;
CREATE TABLE differences (
    task BLOB PRIMARY KEY, is_unreadable INTEGER NOT NULL, row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sums (account TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept (task BLOB PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept_accounts (account TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""
KEPT_OF = "CREATE TABLE IF NOT EXISTS kept_of (log_id TEXT NOT NULL) STRICT"
"""Of which log the rows are that were replaced: another one may have taken its path since."""

BEGIN = "INSERT INTO replay VALUES (?, ?, ?)"
PLACE = "SELECT log_id, until, hash FROM replay"
SET_PLACE = "UPDATE replay SET until = ?, hash = ?"
CLEAR = tuple(f"DELETE FROM {table}" for table in ("replay", "parts", "differences", "sums"))  # noqa: S608 - our own names

ADD_PART = "INSERT INTO parts (part, after, upto) VALUES (?, ?, ?)"
PARTS_TO_DO = "SELECT part, after, upto FROM parts WHERE tasks IS NULL ORDER BY part"
PART_DONE = "UPDATE parts SET tasks = ?, events = ? WHERE part = ?"
COUNTED = "SELECT coalesce(sum(tasks), 0), coalesce(sum(events), 0) FROM parts"

DIFFERENCE = "SELECT row FROM differences WHERE task = ?"
DIFFERENCES = f"SELECT task, row FROM differences WHERE task > ? ORDER BY task LIMIT {PAGE}"  # noqa: S608 - a number
DIFFERENCES_COUNT = "SELECT count(*) FROM differences"
UNREADABLE_COUNT = "SELECT count(*) FROM differences WHERE is_unreadable"
PUT_DIFFERENCE = "INSERT OR REPLACE INTO differences VALUES (?, ?, ?)"
DROP_DIFFERENCE = "DELETE FROM differences WHERE task = ?"

ALL_SUMS = "SELECT account, row FROM sums"
SUMS = "SELECT row FROM sums WHERE account = ?"
PUT_SUMS = "INSERT OR REPLACE INTO sums VALUES (?, ?)"

KEEP_OF = "INSERT INTO kept_of SELECT log_id FROM replay"
KEPT_IN = "SELECT log_id FROM kept_of"
KEEP_TASKS = "INSERT INTO kept SELECT task, row FROM differences"
KEEP_TASK = f"{KEEP_TASKS} WHERE task = ?"
KEEP_ACCOUNT = "INSERT INTO kept_accounts VALUES (?, ?)"
KEPT = f"SELECT task, row FROM kept WHERE task > ? ORDER BY task LIMIT {PAGE}"  # noqa: S608 - a number
KEPT_ACCOUNTS = "SELECT row FROM kept_accounts ORDER BY account"
KEPT_COUNT = "SELECT (SELECT count(*) FROM kept) + (SELECT count(*) FROM kept_accounts)"
FORGET_TASK = "DELETE FROM kept WHERE task = ?"
FORGET_ACCOUNT = "DELETE FROM kept_accounts WHERE account = ?"
FORGET = ("DELETE FROM kept", "DELETE FROM kept_accounts", "DELETE FROM kept_of")

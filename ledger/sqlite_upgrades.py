"""What makes a file of each older schema one of the next. A ledger is upgraded in place, when it is opened to write.

2 to 3: accounts have a row each, and it is moved by what is appended. The rows are summed up out of the log, as
`ledger.credit.move_of` moved them then.

3 to 4: the row counts the account's tasks under way. Every account that ever had a task has one from then on, and its
place is the last event that moved it in this way or that.

4 to 5: rows of tasks and accounts are read through views, so that a switch can replace them (`ledger.sqlite_switch`).

A step makes what its schema had: that is taken from the schema as it is now, for as long as it is the same, and then
written out. All steps that a file needs are one transaction, so the view `appends` is made once, at their end. From 5
on a switch may have died in the file: a step that changes one of the two tables has to bring it to rest first.
"""

from ledger.sqlite_sql import ACCOUNTS, APPENDS, LIVE_ROWS, SCHEMA_VERSION


def _sum(column: str) -> str:
    """The sum of a column, kept at `SUM_MAX_MICROS` as every engine does: SQLite's own fails beyond 64 bits.

    The upper and the lower half of each number are summed up apart; what they come to together is a cast.
    """
    return f"CAST(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295) AS INTEGER)"


UPGRADES = {
    2: f"""
CREATE TABLE accounts (
    account TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    limit_micros INTEGER,
    granted_micros INTEGER,
    held_micros INTEGER NOT NULL,
    charged_micros INTEGER NOT NULL,
    refunded_micros INTEGER NOT NULL,
    expected_micros INTEGER NOT NULL
) STRICT;
WITH moves AS (
    SELECT
        event.account,
        event.position,
        iif(event.type = 'held', event.amount_micros, 0)
            - iif(
                event.type = 'released'
                OR event.type = 'charged' AND json_extract(birth.data, '$.terms.school') = 'hold',
                event.amount_micros, 0
            ) AS held,
        iif(event.type = 'charged', event.amount_micros, 0) AS charged,
        iif(event.type = 'refunded', event.amount_micros, 0) AS refunded,
        iif(
            json_extract(birth.data, '$.terms.school') = 'on-success',
            json_extract(birth.data, '$.terms.estimated_micros')
                * CASE
                    WHEN event.type IN ('created', 'update-requested') THEN 1
                    WHEN event.type IN ('completed', 'failed', 'cancelled', 'expired', 'update-reverted') THEN -1
                    ELSE 0
                END,
            0
        ) AS expected
    FROM events AS event CROSS JOIN events AS birth ON birth.task = event.task AND birth.version = 1
    WHERE birth.type = 'created'
)
INSERT INTO accounts
SELECT account, max(position), 0, NULL, NULL, {", ".join(map(_sum, ("held", "charged", "refunded", "expected")))}
FROM moves WHERE held <> 0 OR charged <> 0 OR refunded <> 0 OR expected <> 0 GROUP BY account;
""",
    3: f"""
ALTER TABLE accounts RENAME TO accounts_before;
{ACCOUNTS}
WITH parts AS (
    SELECT *, 0 AS live_tasks FROM accounts_before
    UNION ALL
    SELECT account, max(position), 0, NULL, NULL, 0, 0, 0, 0, 0 FROM events
    WHERE type IN ('created', 'update-requested', 'completed', 'failed', 'cancelled', 'expired', 'update-reverted')
    GROUP BY account
    UNION ALL
    SELECT account, 0, 0, NULL, NULL, 0, 0, 0, 0, count(*) FROM tasks
    WHERE status IN ('queued', 'running')
    GROUP BY account
)
INSERT INTO accounts
SELECT
    account, max(position), sum(version), sum(limit_micros), sum(granted_micros),
    sum(held_micros), sum(charged_micros), sum(refunded_micros), sum(expected_micros), sum(live_tasks)
FROM parts GROUP BY account;
DROP TABLE accounts_before;
""",
    4: LIVE_ROWS,
}


def upgrade_from(version: int) -> str:
    """The script that makes a file of schema *version* one of this program's, whole or not at all."""
    steps = "".join(UPGRADES[step] for step in range(version, SCHEMA_VERSION))
    return f"""
BEGIN IMMEDIATE;
DROP VIEW appends;
{steps}{APPENDS}
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

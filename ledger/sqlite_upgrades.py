"""What makes a file of each older schema one of the next. A ledger is upgraded in place, when it is opened to write.

2 to 3: accounts have a row each, and it is moved by what is appended. The rows are summed up out of the log, as
`ledger.credit.move_of` has moved them since.
"""

from ledger.sqlite_sql import ACCOUNT_COLUMNS, ACCOUNTS, APPENDS


def _sum(column: str) -> str:
    """The sum of a column, kept at `SUM_MAX_MICROS` as every engine does: SQLite's own fails beyond 64 bits.

    The upper and the lower half of each number are summed up apart; what they come to together is a cast.
    """
    return f"CAST(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295) AS INTEGER)"


UPGRADES = {
    2: f"""
{ACCOUNTS}
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
INSERT INTO accounts ({", ".join(ACCOUNT_COLUMNS)})
SELECT account, max(position), 0, NULL, NULL, {", ".join(map(_sum, ("held", "charged", "refunded", "expected")))}
FROM moves WHERE held <> 0 OR charged <> 0 OR refunded <> 0 OR expected <> 0 GROUP BY account;
DROP VIEW appends;
{APPENDS}
""",
}

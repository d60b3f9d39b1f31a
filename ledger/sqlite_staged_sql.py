"""The SQL of a switch of rows: what is to be live lies beside what is, and a change of two views lets it be read.

The file is in one of three states, and says itself in which, for they differ in its schema:

- at rest: `task_rows` and `account_rows` are the tables;
- staged: rows to come lie in the ``fresh_`` tables, names of rows to go in the ``gone_`` ones. Nobody reads them.
  Whoever writes an event throws away what is staged of its task and of its account, for that was made without it;
- switched: the views show what is staged in the place of what lies in the tables. Whoever writes an event first moves
  what is staged of its task and its account into the tables, and so writes on top of it.
"""

from collections.abc import Sequence

from ledger.sqlite_sql import ACCOUNT_COLUMNS, ACCOUNTS, LIVE_ROWS, TASK_COLUMNS, TASKS_TABLE


def _statements(script: str) -> list[str]:
    return [one.strip() for one in script.split(";\n") if one.strip()]


def _taken(columns: Sequence[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in columns)


_TASK, _ACCOUNT = ", ".join(TASK_COLUMNS), ", ".join(ACCOUNT_COLUMNS)
STATE = "SELECT count(*) FROM sqlite_schema WHERE name IN ('fresh_tasks', 'staged_merge')"
"""How far from rest: 0, 1 staged, 2 switched."""


def forget_task(task: str) -> list[str]:
    """Statements that throw away what is staged of a task, which the expression names."""
    return [f"DELETE FROM {table} WHERE task = {task}" for table in ("fresh_tasks", "gone_tasks")]


def forget_account(account: str) -> list[str]:
    return [f"DELETE FROM {table} WHERE account = {account}" for table in ("fresh_accounts", "gone_accounts")]


def move_task(task: str) -> list[str]:
    """Statements that put what is staged of a task into its table."""
    return [
        f"DELETE FROM tasks WHERE task = {task} AND EXISTS (SELECT 1 FROM gone_tasks WHERE task = {task})",
        f"""INSERT INTO tasks ({_TASK}) SELECT {_TASK} FROM fresh_tasks WHERE task = {task}
    ON CONFLICT (task) DO UPDATE SET {_taken(TASK_COLUMNS[1:])}""",
        *forget_task(task),
    ]


def move_account(account: str) -> list[str]:
    return [
        f"""DELETE FROM accounts WHERE account = {account}
    AND EXISTS (SELECT 1 FROM gone_accounts WHERE account = {account})""",
        f"""INSERT INTO accounts ({_ACCOUNT}) SELECT {_ACCOUNT} FROM fresh_accounts WHERE account = {account}
    ON CONFLICT (account) DO UPDATE SET {_taken(ACCOUNT_COLUMNS[1:])}""",
        *forget_account(account),
    ]


def _at_each_event(name: str, statements: Sequence[str]) -> str:
    body = "".join(f"    {one};\n" for one in statements)
    return f"CREATE TRIGGER {name} AFTER INSERT ON events\nBEGIN\n{body}END"


STAGE = (
    *_statements(TASKS_TABLE.replace("tasks", "fresh_tasks")),  # its constraints: what cannot be live is not staged
    *_statements(ACCOUNTS.replace("TABLE accounts", "TABLE fresh_accounts")),
    "CREATE TABLE gone_tasks (task BLOB PRIMARY KEY) STRICT, WITHOUT ROWID",
    "CREATE TABLE gone_accounts (account TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    _at_each_event("staged_forget", [*forget_task("NEW.task"), *forget_account("NEW.account")]),
)
"""From rest to staged."""
_DROP_VIEWS = ("DROP VIEW task_rows", "DROP VIEW account_rows")
_DROP_TABLES = tuple(f"DROP TABLE {name}" for name in ("fresh_tasks", "fresh_accounts", "gone_tasks", "gone_accounts"))
SWITCH = (
    "DROP TRIGGER staged_forget",
    _at_each_event("staged_merge", [*move_task("NEW.task"), *move_account("NEW.account")]),
    *_DROP_VIEWS,
    f"""CREATE VIEW task_rows AS
SELECT {_TASK} FROM tasks
WHERE NOT EXISTS (SELECT 1 FROM fresh_tasks WHERE fresh_tasks.task = tasks.task)
    AND NOT EXISTS (SELECT 1 FROM gone_tasks WHERE gone_tasks.task = tasks.task)
UNION ALL SELECT {_TASK} FROM fresh_tasks""",
    f"""CREATE VIEW account_rows AS
SELECT {_ACCOUNT} FROM accounts
WHERE NOT EXISTS (SELECT 1 FROM fresh_accounts WHERE fresh_accounts.account = accounts.account)
    AND NOT EXISTS (SELECT 1 FROM gone_accounts WHERE gone_accounts.account = accounts.account)
UNION ALL SELECT {_ACCOUNT} FROM fresh_accounts""",
)
"""From staged to switched: whatever is staged is live from the commit of this on."""
SETTLE = ("DROP TRIGGER staged_merge", *_DROP_VIEWS, *_statements(LIVE_ROWS), *_DROP_TABLES)
"""From switched to rest, once all that was staged has been moved."""
UNSTAGE = ("DROP TRIGGER staged_forget", *_DROP_TABLES)
"""From staged to rest, once all that was staged has been thrown away."""
SCHEMA_WHEN = {0: (), 1: STAGE, 2: (*STAGE, *SWITCH)}
"""What the schema of the file at rest has gone through in each state."""

FORGET_TASK, FORGET_ACCOUNT = tuple(forget_task("?1")), tuple(forget_account("?1"))
MOVE_TASK, MOVE_ACCOUNT = tuple(move_task("?1")), tuple(move_account("?1"))
PUT_TASK = f"INSERT INTO fresh_tasks ({_TASK}) VALUES ({', '.join('?' * len(TASK_COLUMNS))})"
PUT_ACCOUNT = f"INSERT INTO fresh_accounts ({_ACCOUNT}) VALUES ({', '.join('?' * len(ACCOUNT_COLUMNS))})"
LET_TASK_GO = "INSERT INTO gone_tasks VALUES (?)"
LET_ACCOUNT_GO = "INSERT INTO gone_accounts VALUES (?)"
PAGE = 500
SOME_TASKS = f"SELECT task FROM fresh_tasks UNION ALL SELECT task FROM gone_tasks LIMIT {PAGE}"
SOME_ACCOUNTS = f"SELECT account FROM fresh_accounts UNION ALL SELECT account FROM gone_accounts LIMIT {PAGE}"
COUNT_TASKS = "SELECT (SELECT count(*) FROM fresh_tasks) + (SELECT count(*) FROM gone_tasks)"
COUNT_ACCOUNTS = "SELECT (SELECT count(*) FROM fresh_accounts) + (SELECT count(*) FROM gone_accounts)"
FORGET_ACCOUNTS = ("DELETE FROM fresh_accounts", "DELETE FROM gone_accounts")

"""The SQL by which two files of books are compared, and one takes over what differs from the other."""

from collections.abc import Sequence

TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # what identifies a row, and the rest of it
    "purposes": (("purpose",), ("account", "contract", "model", "provider", "school")),
    "tasks": (
        ("task",),
        (
            *("purpose", "created_at", "resolved_model", "status", "finished_at"),
            *("before_update", "before_update_finished_at", "cancel_requested_at"),
            *("held_at", "expected_micros", "held_micros", "charged_micros", "refunded_micros"),
            *("billed_high", "billed_low", "billed_came", "identified"),
        ),
    ),
    "movements": (("position",), ("task", "purpose", "kind", "amount_micros", "recorded_at", "effective_at")),
    "provider_tasks": (("provider_task_id", "task"), ()),
    "breaks": (("break",), ("provider", "kind", "life", "at_stake_micros", "row")),
    "billed_lines": (("provider", "line"), ("task", "account", "contract", "model", "micros", "at", "statement")),
    "billing_streams": (("provider",), ("version",)),
    "statements": (("provider", "statement"), ("came", "is_read")),
    "replaced_statements": (("provider", "statement"), ("replaced_by",)),
}
CHECKPOINT = "SELECT position, hash FROM main.checkpoint"
MOVE_ON = "UPDATE main.checkpoint SET (position, hash) = (SELECT position, hash FROM green.checkpoint)"
ATTACH = "ATTACH ? AS green"


def _of(table: str, columns: Sequence[str]) -> str:
    return ", ".join(f'{table}."{name}"' for name in columns)


def _same(columns: Sequence[str]) -> str:
    return f"({_of('one', columns)}) IS ({_of('other', columns)})"


def differing(table: str, *, first: str, second: str) -> str:
    """Rows of the table in *first*, each followed by that of *second*, where these differ or there is no second."""
    key, rest = TABLES[table]
    columns = (*key, *rest)
    changed = f" OR NOT {_same(rest)}" if rest else ""
    return f"""
SELECT {_of("one", columns)}, {_of("other", columns)} FROM {first}.{table} AS one LEFT JOIN {second}.{table} AS other
ON {_same(key)} WHERE other."{key[0]}" IS NULL{changed}"""  # noqa: S608 - names of our own


def drop_differing(table: str) -> str:
    """Delete the rows that the green file does not have, or has otherwise."""
    key, rest = TABLES[table]
    return f"""
DELETE FROM main.{table} AS one
WHERE NOT EXISTS (SELECT 1 FROM green.{table} AS other WHERE {_same((*key, *rest))})"""  # noqa: S608 - the same


def take_missing(table: str) -> str:
    """Insert the rows of the green file that are not there."""
    key, rest = TABLES[table]
    names = ", ".join(f'"{name}"' for name in (*key, *rest))
    return f"""
INSERT INTO main.{table} ({names}) SELECT {_of("one", (*key, *rest))} FROM green.{table} AS one
WHERE NOT EXISTS (SELECT 1 FROM main.{table} AS other WHERE {_same(key)})"""  # noqa: S608 - the same

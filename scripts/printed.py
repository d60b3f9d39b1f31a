"""What verbs print: JSON lines for programs, and rows of the log in the words that people read."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ledger.cursors import position_cursor
from ledger.errors import DamagedError
from ledger.ids import Spelling, TaskId
from ledger.keys import account_stream
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.times import rfc3339

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, one object a line.")]

PIPE_WIDTH = 200
"""Columns of a table that no terminal bounds."""
_TOLD_ELSEWHERE = frozenset({"type", "at_us", "amount_micros", "claims"})


def json_line(value: object) -> None:
    """Print *value* as one line of JSON."""
    print(msgspec.json.encode(value).decode())


def console() -> "Console":
    """Where tables go."""
    from rich.console import Console  # noqa: PLC0415 - a twentieth of a second that lines do not need

    terminal = Console(highlight=False, markup=False, emoji=False)
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)


def event_json(row: Recorded, log_id: str) -> dict[str, Any]:
    """A row of the log as an object.

    Raises:
        DamagedError: its event is no JSON.
    """
    entry = row.entry
    return {
        "cursor": position_cursor(log_id, row.position),
        "position": row.position,
        "task": task_of(row),
        "version": row.version,
        "type": entry.type,
        "recorded_at": rfc3339(entry.recorded_at_us),
        "effective_at": rfc3339(entry.effective_at_us),
        "account": row.account,
        "actor": entry.actor,
        "request_id": entry.request_id,
        "amount_credits": None if entry.amount_micros is None else credits_text(entry.amount_micros),
        "facts": _decoded(row, entry.facts),
        "payload": None if entry.payload is None else _decoded(row, entry.payload),
    }


def facts_text(row: Recorded) -> str:
    """What the event says beyond its type, time and amount, as ``name=value`` in one line.

    Raises:
        DamagedError: its event is no JSON.
    """
    facts = _decoded(row, row.entry.facts)
    terms = facts.pop("terms", {})
    told = {name: value for name, value in {**facts, **terms}.items() if name not in _TOLD_ELSEWHERE}
    return " ".join(_fact(name, value) for name, value in told.items())


def task_of(row: Recorded) -> str | None:
    """The task that the event is about, as the native API spells it; None when it is about an account."""
    return None if row.stream == account_stream(row.account) else Spelling.UUID.spell(TaskId(row.stream))


def plain(text: str) -> str:
    """*text* with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _fact(name: str, value: object) -> str:
    if name.endswith("_micros") and isinstance(value, int):
        return f"{name.removesuffix('_micros')}={credits_text(value)}"
    if name.endswith("_at_us") and isinstance(value, int):
        return f"{name.removesuffix('_us')}={rfc3339(value)}"
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"{name}={plain(shown)}"


def _decoded(row: Recorded, text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"the event at position {row.position} cannot be read: {error}") from error

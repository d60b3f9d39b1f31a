"""What verbs print: JSON lines for programs, and rows of the log in the words that people read."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal

import msgspec
import typer

from ledger.cursors import position_cursor
from ledger.errors import DamagedError
from ledger.ids import Spelling, TaskId
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.streams import is_task_stream
from ledger.times import rfc3339

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, one object a line.")]

WIDTH_MIN = 108
"""Narrower than this a table is only broken by the terminal."""
PIPE_WIDTH = 1000
_LEFT_OUT = frozenset({"type", "at_us", "amount_micros", "account", "claims", "digest", "sealed_secret"})


def json_line(value: object) -> None:
    """Print *value* as one line of JSON."""
    print(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int | None = None) -> None:
    """Print a table; the last column takes what room is left, and wraps. Columns are set right from *right_from* on."""
    from rich.console import Console  # noqa: PLC0415 - a twentieth of a second that lines do not need
    from rich.table import Table  # noqa: PLC0415

    grid = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        justify: Literal["left", "right"] = "right" if right_from is not None and number >= right_from else "left"
        is_last = number == len(columns) - 1
        grid.add_column(name, no_wrap=not is_last, overflow="fold" if is_last else "ellipsis", justify=justify)
    for row in rows:
        grid.add_row(*map(plain, row))
    out = Console(highlight=False, markup=False, emoji=False)
    out.width = max(out.width, WIDTH_MIN) if out.is_terminal else PIPE_WIDTH
    out.print(grid)


def event_json(row: Recorded, log_id: str) -> dict[str, Any]:
    """A row of the log as an object.

    Raises:
        DamagedError: its event is no JSON, or its payload is not what was sealed.
    """
    entry, payload = row.entry, row.payload
    return {
        "cursor": position_cursor(log_id, row.position),
        "position": row.position,
        "task": task_of(row),
        "version": row.version,
        "type": entry.type,
        "recorded_at": instant(entry.recorded_at_us),
        "effective_at": instant(entry.effective_at_us),
        "account": row.account,
        "actor": entry.actor,
        "request_id": entry.request_id,
        "amount_credits": None if entry.amount_micros is None else credits_text(entry.amount_micros),
        "facts": _decoded(row, entry.facts),
        "payload": None if payload is None else _decoded(row, payload),
        "erased": row.is_erased,
    }


def facts_text(row: Recorded, *, without: AbstractSet[str] = frozenset()) -> str:
    """What the event says beyond its type, time, amount and account, as ``name=value`` in one line.

    Raises:
        DamagedError: its event is no JSON.
    """
    facts = _decoded(row, row.entry.facts)
    terms = facts.pop("terms", None)
    if isinstance(terms, dict):
        facts |= terms
    return " ".join(_fact(name, value) for name, value in facts.items() if name not in _LEFT_OUT | without)


def task_of(row: Recorded) -> str | None:
    """The task that the event is about, as the native API spells it; None when it is about none."""
    return Spelling.UUID.spell(TaskId(row.stream)) if is_task_stream(row.stream) else None


def instant(at_us: int) -> str:
    """The time in RFC 3339; the bare number if damage has put it out of every calendar."""
    try:
        return rfc3339(at_us)
    except OverflowError:
        return f"{at_us}us"


def plain(text: str) -> str:
    """*text* with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _fact(name: str, value: object) -> str:
    if name.endswith("_micros") and value is None:
        return f"{name.removesuffix('_micros')}=none"
    if name.endswith("_micros") and isinstance(value, int):
        return f"{name.removesuffix('_micros')}={credits_text(value)}"
    if name.endswith(("_at_us", "_since_us")) and isinstance(value, int):
        return f"{name.removesuffix('_us')}={instant(value)}"
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"{name}={plain(shown)}"


def _decoded(row: Recorded, text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"the event at position {row.position} cannot be read: {error}") from error

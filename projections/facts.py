"""The facts of an event, read by whoever follows the log: what cannot be read is damage, and told with its position."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ledger.errors import DamagedError
from ledger.event_bytes import decode
from ledger.events import AnyEvent
from ledger.records import Recorded

T = TypeVar("T")


def event_of(row: Recorded) -> AnyEvent:
    """The event without its payload, which says nothing that is counted, and may be erased.

    Raises:
        DamagedError: it cannot be read.
    """
    return facts_of(row, _decode)


def facts_of(row: Recorded, decode: Callable[[bytes], T]) -> T:
    """What *decode* finds in the facts: of an event of which little is wanted, that is sooner than all of it.

    Raises:
        DamagedError: they cannot be read.
    """
    try:
        return decode(row.entry.facts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedError(f"the event at position {row.position} cannot be read: {error}") from error


def not_as_its_row_says(row: Recorded) -> DamagedError:
    """The event was read, and is of another type than its row has."""
    return DamagedError(f"the event at position {row.position} is not the {row.entry.type} that its row says")


def brief(error: Exception) -> str:
    """What cannot be read, in one line of bearable length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _decode(facts: bytes) -> AnyEvent:
    return decode(facts, None)

"""What can happen between the ledger and its providers: statements, what they bill, and what differs."""

from enum import StrEnum
from typing import TypeAlias

from ledger.event_base import Event


class BreakKind(StrEnum):
    """In what way the ledger and what it is held against differ."""

    MISSING_HERE = "missing-here"
    """The provider billed what no task here answers for."""
    MISSING_THERE = "missing-there"
    """A task was charged here, and the provider's statement has no line for it."""
    AMOUNT = "amount"
    """Both have it, at different amounts."""
    DUPLICATE = "duplicate"
    """The provider billed the same thing more than once."""
    LATE = "late"
    """Billed in a later period than the one in which the task ended."""
    CURRENCY = "currency"
    """Billed in another currency than was agreed, so that amounts cannot be compared."""
    STATUS_CONFLICT = "status-conflict"
    """One says that it completed and the other that it did not, or the provider's word is not known."""
    UNSETTLED = "unsettled"
    """Money is still held after the outcome or for too long, or the provider bills a task that has no outcome here."""
    AVOIDABLE_COST = "avoidable-cost"
    """The provider billed work that was done after a cancel had been asked for."""


class StatementRead(Event, frozen=True, kw_only=True, tag="statement-read"):
    """A provider's statement was compared with the books to the end. Amounts are micro-credits."""

    statement: str
    """SHA-256 of the file, in hex."""
    provider: str
    lines: int
    malformed: int
    billed_micros: int
    breaks: int
    """How many breaks it shows, those known before included."""
    position: int
    """Up to where in the log the books had been followed."""


class StatementReplaced(Event, frozen=True, kw_only=True, tag="statement-replaced"):
    """Another statement of the provider stands for this one: what it billed and the other does not is given back."""

    statement: str
    """SHA-256 of the file that is replaced, in hex."""
    provider: str
    by: str
    """SHA-256 of the file that stands for it, in hex."""


class CostMoved(Event, frozen=True, kw_only=True):
    """A provider bills another amount for a line than was known. It took effect when the work on it ended."""

    amount_micros: int  # > 0
    provider: str
    line: str
    """What the line is known by, the same in whatever statement it shows."""
    line_micros: int
    """What the line comes to after this; less than 0: it gives something back."""
    statement: str
    """SHA-256 of the file that says so, in hex."""
    task: str | None = None
    """The task that it is billed for, as the native API spells it; account and contract are its own. None: for none."""
    account: str = ""
    contract: str = ""
    model: str = ""
    credits_per_unit: str = "1"
    """The agreed rate by which the line's amount became credits."""
    rounded_from: str = ""
    """The line's amount in its own unit, where that rate makes no whole number of micro-credits of it; empty: it does.

    Empty as well in events from before it was told.
    """


class ProviderBilled(CostMoved, frozen=True, kw_only=True, tag="provider-billed"):
    pass


class ProviderCredited(CostMoved, frozen=True, kw_only=True, tag="provider-credited"):
    pass


class BreakOpened(Event, frozen=True, kw_only=True, tag="break-opened"):
    """The ledger and what it was held against differ. The id is a digest of provider, kind and what it is about."""

    break_id: str
    provider: str
    kind: BreakKind
    about: str
    at_stake_micros: int
    since_us: int
    """When what differs happened: from then on its age counts."""
    detail: str
    task: str | None = None
    """The task concerned, or the likeliest one, as the native API spells it."""
    lines: tuple[int, ...] = ()
    line_ids: tuple[str, ...] = ()
    statement: str | None = None
    owner: str | None = None


class BreakExplained(Event, frozen=True, kw_only=True, tag="break-explained"):
    """Somebody knows why, and nothing needs to be put right."""

    break_id: str
    reason: str
    owner: str | None = None


class BreakCorrected(Event, frozen=True, kw_only=True, tag="break-corrected"):
    """It has been put right, for good: *position* is where in the log, if it was put right there."""

    break_id: str
    reason: str
    position: int | None = None
    agrees: bool = False
    """Nobody said so, but a comparison found that it differs no more; should it differ again, that is another break."""


BreakEvent: TypeAlias = BreakOpened | BreakExplained | BreakCorrected
CostEvent: TypeAlias = ProviderBilled | ProviderCredited
BookEvent: TypeAlias = StatementRead | StatementReplaced | CostEvent | BreakEvent

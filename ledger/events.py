"""The events of the log, as a closed union of facts. All of them are imported from here.

The tag is the wire: classes may be renamed, tags may not. A new field has a default; a changed meaning is a new
event. An event is stored as two byte strings: the *facts*, JSON that any SQL shell reads, and apart from them the
`Payload`, which holds all that a customer may want erased. Alternative beaten: one document, which would have made
erasure a rewrite of the log.

``at_us`` is when it happened at its source; when we recorded it belongs to the row, not to the fact.
"""

from typing import TypeAlias, get_args

from ledger.account_events import (
    AccountEvent,
    CallbackEvent,
    CallbackResent,
    CallbackSecretRotated,
    CreditEvent,
    CreditGranted,
    CreditLimited,
    CreditMoved,
    CreditRevoked,
    KeyEvent,
    KeyIssued,
    KeyRevoked,
    WebhookAdded,
    WebhookChanged,
    WebhookEvent,
    WebhookRemoved,
)
from ledger.book_events import (
    BookEvent,
    BreakCorrected,
    BreakEvent,
    BreakExplained,
    BreakKind,
    BreakOpened,
    CostEvent,
    CostMoved,
    ProviderBilled,
    ProviderCredited,
    StatementRead,
    StatementReplaced,
)
from ledger.event_base import NO_PAYLOAD, Claimed, Event, Notice, Payload
from ledger.store_events import ProjectionSwitched
from ledger.task_events import (
    CallbackAttempted,
    Cancelled,
    CancelRequested,
    Charged,
    Completed,
    Created,
    Deleted,
    Expired,
    Failed,
    Held,
    LateReported,
    MoneyEvent,
    Progressed,
    Refunded,
    Released,
    School,
    Stalled,
    Started,
    TaskEvent,
    Terms,
    UpdateRequested,
    UpdateReverted,
)

__all__ = [
    "NO_PAYLOAD",
    "TYPES",
    "AccountEvent",
    "AnyEvent",
    "BookEvent",
    "BreakCorrected",
    "BreakEvent",
    "BreakExplained",
    "BreakKind",
    "BreakOpened",
    "CallbackAttempted",
    "CallbackEvent",
    "CallbackResent",
    "CallbackSecretRotated",
    "CancelRequested",
    "Cancelled",
    "Charged",
    "Claimed",
    "Completed",
    "CostEvent",
    "CostMoved",
    "Created",
    "CreditEvent",
    "CreditGranted",
    "CreditLimited",
    "CreditMoved",
    "CreditRevoked",
    "Deleted",
    "Event",
    "Expired",
    "Failed",
    "Held",
    "KeyEvent",
    "KeyIssued",
    "KeyRevoked",
    "LateReported",
    "MoneyEvent",
    "Notice",
    "Payload",
    "Progressed",
    "ProjectionSwitched",
    "ProviderBilled",
    "ProviderCredited",
    "Refunded",
    "Released",
    "School",
    "Stalled",
    "Started",
    "StatementRead",
    "StatementReplaced",
    "TaskEvent",
    "Terms",
    "UpdateRequested",
    "UpdateReverted",
    "WebhookAdded",
    "WebhookChanged",
    "WebhookEvent",
    "WebhookRemoved",
    "amount_of",
    "tag_of",
]

AnyEvent: TypeAlias = TaskEvent | AccountEvent | CallbackEvent | BookEvent | ProjectionSwitched
TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))
"""Every type that an event of the log may have."""

_MOVEMENTS = (MoneyEvent, CreditMoved, CostMoved)


def tag_of(event: AnyEvent) -> str:
    """The event's name on the wire and in the log's ``type`` column."""
    tag = event.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def amount_of(event: AnyEvent) -> int | None:
    """Micro-credits that the event moved; None when it moved no money."""
    return event.amount_micros if isinstance(event, _MOVEMENTS) else None

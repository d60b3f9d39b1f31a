"""The events of the log, as a closed union of facts, and how one is written. All of them are imported from here.

The tag is the wire: classes may be renamed, tags may not. A new field has a default; a changed meaning is a new
event. An event is stored as two byte strings: the *facts*, JSON that any SQL shell reads, and apart from them the
`Payload`, which holds all that a customer may want erased. Alternative beaten: one document, which would have made
erasure a rewrite of the log.

``at_us`` is when it happened at its source; when we recorded it belongs to the row, not to the fact.
"""

from typing import TypeAlias, get_args

import msgspec
from msgspec import UNSET

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
from ledger.upcasts import OLD_SHAPES, SHAPE, current, refuse_newer, unknown

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
    "TaskEvent",
    "Terms",
    "UpdateRequested",
    "UpdateReverted",
    "WebhookAdded",
    "WebhookChanged",
    "WebhookEvent",
    "WebhookRemoved",
    "amount_of",
    "decode",
    "encode",
    "tag_of",
]

AnyEvent: TypeAlias = TaskEvent | AccountEvent | CallbackEvent | BookEvent | ProjectionSwitched
TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))
"""Every type that an event of the log may have."""

_encoder = msgspec.json.Encoder()
_facts: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_payload: msgspec.json.Decoder[Payload] = msgspec.json.Decoder(Payload)
_MOVEMENTS = (MoneyEvent, CreditMoved, CostMoved)
_ONCE_OTHERWISE = tuple(kind for kind in get_args(AnyEvent) if kind.__struct_config__.tag in OLD_SHAPES)


def tag_of(event: AnyEvent) -> str:
    """The event's name on the wire and in the log's ``type`` column."""
    tag = event.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def amount_of(event: AnyEvent) -> int | None:
    """Micro-credits that the event moved; None when it moved no money."""
    return event.amount_micros if isinstance(event, _MOVEMENTS) else None


def encode(event: AnyEvent) -> tuple[bytes, bytes | None]:
    """The event as its two stored byte strings: facts, and payload if it has one."""
    if event.payload is UNSET:
        return _encoder.encode(event), None
    return _encoder.encode(msgspec.structs.replace(event, payload=UNSET)), _encoder.encode(event.payload)


def decode(facts: bytes, payload: bytes | None) -> AnyEvent:
    """The event that `encode` stored.

    Raises:
        UnknownShapeError: a newer version wrote it, and it cannot be read as what this one knows.
        msgspec.ValidationError: a field is not one that this version knows.
    """
    try:
        event = _facts.decode(facts)
    except msgspec.ValidationError as error:
        raise unknown(facts, TYPES) or error from None
    if event.shape != SHAPE:
        refuse_newer(tag_of(event), event.shape)
    if isinstance(event, _ONCE_OTHERWISE):
        told, payload = current(tag_of(event), facts, payload)
        event = event if told is facts else _facts.decode(told)
    if payload is None:
        return event
    return msgspec.structs.replace(event, payload=_payload.decode(payload))

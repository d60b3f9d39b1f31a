"""What can happen to a task, as a closed union of facts.

The tag is the wire: classes may be renamed, tags may not. A new field has a default; a changed meaning is a new
event. An event is stored as two byte strings: the *facts*, JSON that any SQL shell reads, and apart from them the
`Payload`, which holds all that a customer may want erased. Alternative beaten: one document, which would have made
erasure a rewrite of the log.

``at_us`` is when it happened at its source; when we recorded it belongs to the row, not to the fact.
"""

from enum import StrEnum
from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import UNSET, UnsetType


class School(StrEnum):
    """How a model is billed."""

    HOLD = "hold"
    """Hold the estimate at creation; on completion charge the actual cost out of it and release the rest."""
    PREPAID = "prepaid"
    """Charge at creation; give back what was not delivered."""
    ON_SUCCESS = "on-success"
    """Nothing until it completes."""


class Terms(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the task costs and what its cancel costs, pinned when it is created: later price lists change nothing."""

    school: School
    rate_version: str
    estimated_micros: int
    cancellable: bool = True
    """Whether the provider can cancel it at all; only a cancel whose policy needs support asks."""
    point_of_no_return_percent: int | None = None
    """From this progress on a cancel is charged by rendered seconds; None: a cancel is always free."""
    cancel_rate_micros_per_second: int = 0
    output_seconds: int = 0
    """Length of the whole output, which progress is a share of."""


class Claimed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An idempotency key taken by the request that caused this event."""

    account: str
    operation: str
    key: str
    fingerprint: str


class Notice(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A warning to the customer about a task that went on."""

    code: str
    message: str
    field: str | None = None


class Payload(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a customer may want erased: content and free text. JSON values only."""

    input: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    output: dict[str, Any] | None = None
    message: str | None = None
    warnings: tuple[Notice, ...] = ()


NO_PAYLOAD = Payload()


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", omit_defaults=True):
    """A fact about one task."""

    at_us: int
    payload: Payload | UnsetType = UNSET
    claims: tuple[Claimed, ...] = ()

    @property
    def content(self) -> Payload:
        """The payload, empty if there was none or it has been erased."""
        return NO_PAYLOAD if self.payload is UNSET else self.payload


class Created(Event, frozen=True, kw_only=True, tag="created"):
    account: str
    contract: str
    capability: str
    model: str
    provider: str
    terms: Terms
    resolved_model: str | None = None
    estimated_seconds: int | None = None
    out_task_id: str | None = None
    callback_url: str | None = None
    expires_at_us: int | None = None


class Started(Event, frozen=True, kw_only=True, tag="started"):
    worker: str | None = None
    provider_task_id: str | None = None
    implied: bool = False
    """Nobody reported it: a later report shows that it must have started by then."""


class Progressed(Event, frozen=True, kw_only=True, tag="progressed"):
    percent: int | None = None
    stage: str | None = None


class CancelRequested(Event, frozen=True, kw_only=True, tag="cancel-requested"):
    unsupported: bool = False
    """The provider cannot cancel: the wish is on record, nothing was promised, the task goes on."""


class Cancelled(Event, frozen=True, kw_only=True, tag="cancelled"):
    confirmed: bool = False
    """A worker confirmed it; else it took effect with the request."""


class Completed(Event, frozen=True, kw_only=True, tag="completed"):
    usage: dict[str, Any] | None = None


class Failed(Event, frozen=True, kw_only=True, tag="failed"):
    code: str
    retryable: bool = False


class Expired(Event, frozen=True, kw_only=True, tag="expired"):
    pass


class MoneyEvent(Event, frozen=True, kw_only=True):
    """Money moved. Under one key it moves once; ``cause`` is the tag of the event that moved it."""

    amount_micros: int  # > 0
    key: str
    cause: str


class Held(MoneyEvent, frozen=True, kw_only=True, tag="held"):
    pass


class Released(MoneyEvent, frozen=True, kw_only=True, tag="released"):
    pass


class Charged(MoneyEvent, frozen=True, kw_only=True, tag="charged"):
    pass


class Refunded(MoneyEvent, frozen=True, kw_only=True, tag="refunded"):
    pass


class UpdateRequested(Event, frozen=True, kw_only=True, tag="update-requested"):
    """The task is queued again under a changed configuration, which is the payload's input."""


class UpdateReverted(Event, frozen=True, kw_only=True, tag="update-reverted"):
    """The update ended without a result; the task stands as it did before it was asked for."""

    cause: str
    code: str | None = None


class Stalled(Event, frozen=True, kw_only=True, tag="stalled"):
    """Nothing was heard of a running task for too long. Silence is no verdict: the hold is kept."""

    silent_since_us: int


class LateReported(Event, frozen=True, kw_only=True, tag="late-reported"):
    """A report that came after the outcome: evidence, which changes neither the outcome nor the money."""

    reported: str
    code: str | None = None
    percent: int | None = None
    claimed_micros: int | None = None
    """What the report would have charged or given back."""
    usage: dict[str, Any] | None = None


class CallbackAttempted(Event, frozen=True, kw_only=True, tag="callback-attempted"):
    """The event with the version *about* was posted to the task's own address, or to a webhook of its account."""

    attempt: int
    delivered: bool
    error: str | None = None
    about: int = 0
    """0: an attempt from before it was told which event it was about."""
    gave_up: bool = False
    """It failed, and is not tried again by itself."""
    webhook: str | None = None
    """The webhook's id; None: the task's own address."""


class Deleted(Event, frozen=True, kw_only=True, tag="deleted"):
    """The customer deleted the task: its content is gone, its facts and its money stay in the books."""


TaskEvent: TypeAlias = (
    Created
    | Started
    | Progressed
    | CancelRequested
    | Cancelled
    | Completed
    | Failed
    | Expired
    | Held
    | Released
    | Charged
    | Refunded
    | UpdateRequested
    | UpdateReverted
    | Stalled
    | LateReported
    | CallbackAttempted
    | Deleted
)


class KeyIssued(Event, frozen=True, kw_only=True, tag="key-issued"):
    """An API key exists from now on. The log holds a keyed hash of its secret, never the secret."""

    key_id: str
    role: str
    contract: str
    digest: str
    replaces: str | None = None


class KeyRevoked(Event, frozen=True, kw_only=True, tag="key-revoked"):
    """The key is dead from *revoked_at_us* on, which for a rotated key lies ahead."""

    key_id: str
    revoked_at_us: int


class CreditLimited(Event, frozen=True, kw_only=True, tag="credit-limited"):
    """The account may owe this much from now on; None: its limit is taken away."""

    limit_micros: int | None


class CreditMoved(Event, frozen=True, kw_only=True):
    """The account's own credit changed. Under one key it changes once. The reason is the operator's, and stays."""

    amount_micros: int  # > 0
    key: str
    reason: str | None = None


class CreditGranted(CreditMoved, frozen=True, kw_only=True, tag="credit-granted"):
    pass


class CreditRevoked(CreditMoved, frozen=True, kw_only=True, tag="credit-revoked"):
    """A part of the grant *grant*, or all of it, is taken back: how a grant is corrected."""

    grant: str


class WebhookAdded(Event, frozen=True, kw_only=True, tag="webhook-added"):
    """From now on the account's tasks of *contract* are told of at this address, as the vendor words it."""

    webhook_id: str
    contract: str
    url: str
    tells: tuple[str, ...]
    """Tags of the events that are told."""
    sealed_secret: str
    """What is signed with, sealed under the pepper, in hex."""


class WebhookChanged(Event, frozen=True, kw_only=True, tag="webhook-changed"):
    """The webhook is as it says here from now on; without a secret, it keeps the one that it has."""

    webhook_id: str
    url: str
    tells: tuple[str, ...]
    enabled: bool
    sealed_secret: str | None = None


class WebhookRemoved(Event, frozen=True, kw_only=True, tag="webhook-removed"):
    webhook_id: str


class CallbackSecretRotated(Event, frozen=True, kw_only=True, tag="callback-secret-rotated"):
    """The account's callbacks are signed with its secret of this number, and until then with the one before as well."""

    generation: int
    old_until_us: int


class CallbackResent(Event, frozen=True, kw_only=True, tag="callback-resent"):
    """An operator wants it posted again, now, and as often as if it were new."""

    callback_id: str
    task: str
    """The task, as the native API spells it."""
    about: int
    webhook: str | None = None
    reason: str | None = None


KeyEvent: TypeAlias = KeyIssued | KeyRevoked
WebhookEvent: TypeAlias = WebhookAdded | WebhookChanged | WebhookRemoved
CallbackEvent: TypeAlias = WebhookEvent | CallbackSecretRotated | CallbackResent
CreditEvent: TypeAlias = CreditLimited | CreditGranted | CreditRevoked
AccountEvent: TypeAlias = KeyEvent | CreditEvent


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
BookEvent: TypeAlias = StatementRead | CostEvent | BreakEvent
AnyEvent: TypeAlias = TaskEvent | AccountEvent | CallbackEvent | BookEvent
TYPES: frozenset[str] = frozenset(
    str(kind.__struct_config__.tag)
    for union in (TaskEvent, AccountEvent, CallbackEvent, BookEvent)
    for kind in get_args(union)
)
"""Every type that an event of the log may have."""

_encoder = msgspec.json.Encoder()
_facts: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_payload: msgspec.json.Decoder[Payload] = msgspec.json.Decoder(Payload)
_MOVEMENTS = (MoneyEvent, CreditMoved, CostMoved)


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
        msgspec.ValidationError: the tag or a field is not one that this version knows.
    """
    event = _facts.decode(facts)
    if payload is None:
        return event
    return msgspec.structs.replace(event, payload=_payload.decode(payload))

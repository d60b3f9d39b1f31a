"""What can happen to one task, its money and its callbacks included."""

from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from ledger.event_base import Event


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
    follows: str | None = None
    """The earlier task of the account in whose place it was ordered, as the native API spells it: that one had ended.

    Its money is its own: what was void stays void, and what is authorised here is authorised anew.
    """


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

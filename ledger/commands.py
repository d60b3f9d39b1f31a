"""What may be asked of a task. A command is a request in the imperative; `decide` may refuse it.

Time, ids and the asker arrive inside the command, so that the rules need no clock. What must hold at the moment
of writing travels along as data: the contract's row of the cancel table, and the version the caller has read.
"""

from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from ledger.events import Notice, Terms
from ledger.ids import TaskId


class Claim(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An idempotency key: the first request that brings it is carried out, its twins get the first answer again.

    The same key with another *fingerprint* is refused. After *window_us* the key is free again; None: never.
    """

    account: str
    operation: str
    key: str
    fingerprint: str
    window_us: int | None = None


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Something asked of the task *task_id* at *at_us* by *actor*: a key id, or a named part of the system."""

    task_id: TaskId
    at_us: int
    actor: str
    request_id: str = ""
    claims: tuple[Claim, ...] = ()
    expected_version: int | None = None


class NewWork(Command, frozen=True, kw_only=True):
    """A command that puts a task to work: its account must have the credit for it, and room.

    *tasks_max*: how many tasks the account may have under way, this one included; None: any number.
    """

    tasks_max: int | None = None


class Create(NewWork, frozen=True, kw_only=True):
    """Bring a task into being for *account*, under *terms* that hold for its whole life."""

    account: str
    contract: str
    capability: str
    model: str
    provider: str
    terms: Terms | None
    """None: nobody knows what the model costs."""
    resolved_model: str | None = None
    input: dict[str, Any]
    metadata: dict[str, Any]
    estimated_seconds: int | None = None
    out_task_id: str | None = None
    callback_url: str | None = None
    expires_at_us: int | None = None
    follows: TaskId | None = None
    """A task of the account that has ended, and in whose place this one is ordered."""


class Report(Command, frozen=True, kw_only=True):
    """What a worker says happened; *effective_at_us* is when, by the source's clock."""

    effective_at_us: int | None = None


class Start(Report, frozen=True, kw_only=True):
    worker: str | None = None
    provider_task_id: str | None = None


class Progress(Report, frozen=True, kw_only=True):
    percent: int | None = None
    stage: str | None = None
    message: str | None = None


class Complete(Report, frozen=True, kw_only=True):
    """*actual_micros* None: the estimate was right."""

    output: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    warnings: tuple[Notice, ...] = ()
    actual_micros: int | None = None


class Fail(Report, frozen=True, kw_only=True):
    """*actual_micros* None: nothing beyond what a worker has already charged past the point of no return."""

    code: str
    message: str
    retryable: bool = False
    actual_micros: int | None = None


class ConfirmCancel(Report, frozen=True, kw_only=True):
    """The worker has stopped, as it was asked to. *actual_micros* as in `Fail`."""

    actual_micros: int | None = None


class Charge(Report, frozen=True, kw_only=True):
    """Take *amount_micros* > 0 out of what is held, once per *key*."""

    amount_micros: int
    key: str
    reason: str | None = None


class Refund(Report, frozen=True, kw_only=True):
    """Give back *amount_micros* > 0 of what was charged, once per *key*."""

    amount_micros: int
    key: str
    reason: str | None = None


class Effect(StrEnum):
    """What a contract does with a cancel, by the status that it finds."""

    CANCEL = "cancel"
    """Cancelled at once, and settled."""
    ASK = "ask"
    """The worker is asked to stop; it confirms."""
    RETURN = "return"
    """Nothing changes; the answer is the task as it stands."""
    REFUSE = "refuse"


class CancelPolicy(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A contract's row of the cancel table."""

    queued: Effect
    running: Effect
    terminal: Effect
    needs_support: bool = False
    """Whether only models cancel whose terms say that their provider can."""


class RequestCancel(Command, frozen=True, kw_only=True):
    """*account* asks to cancel its task; None stands for the operator, who may cancel any."""

    account: str | None
    policy: CancelPolicy
    reason: str | None = None


class RequestUpdate(NewWork, frozen=True, kw_only=True):
    """Run the finished task again under the configuration *input*, on the terms pinned at its creation."""

    account: str
    input: dict[str, Any]


class Delete(Command, frozen=True, kw_only=True):
    account: str


class Expire(Command, frozen=True, kw_only=True):
    """The sweep found the deadline passed."""


class MarkStalled(Command, frozen=True, kw_only=True):
    """The sweep heard nothing of a running task since *silent_since_us*."""

    silent_since_us: int


class RecordCallback(Command, frozen=True, kw_only=True):
    """The event with the version *about* was posted, to the task's own address or to a webhook."""

    attempt: int
    delivered: bool
    error: str | None = None
    about: int = 0
    gave_up: bool = False
    webhook: str | None = None


TaskCommand: TypeAlias = (
    Create
    | Start
    | Progress
    | Complete
    | Fail
    | ConfirmCancel
    | Charge
    | Refund
    | RequestCancel
    | RequestUpdate
    | Delete
    | Expire
    | MarkStalled
    | RecordCallback
)

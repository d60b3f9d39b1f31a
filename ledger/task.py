"""A task: the fold of its events. `evolve` records and never refuses; the rules are in `ledger.rules`.

One struct serves the rules and the readers, so there is one fold, and what a customer reads is what was decided on.
"""

from enum import StrEnum
from functools import reduce
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from ledger.events import (
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
    Notice,
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
from ledger.ids import TaskId


class Status(StrEnum):
    """Where a task is. That a cancel was asked for is a fact beside it, not a status."""

    ABSENT = "absent"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


LIVE = frozenset({Status.QUEUED, Status.RUNNING})
TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


class Problem(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why a task failed."""

    code: str
    message: str
    retryable: bool


class Callback(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Where the outcome is to be posted, and how that goes."""

    url: str
    attempts: int = 0
    """To post the event with the version *about*, the last one that was posted."""
    delivered_at_us: int | None = None
    last_error: str | None = None
    about: int = 0
    gave_up: bool = False


class Run(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One way through the queue. An update is a further run, and a reverted update puts the earlier one back."""

    number: int = 1
    queued_at_us: int = 0
    started_at_us: int | None = None
    finished_at_us: int | None = None
    cancel_requested_at_us: int | None = None
    stalled_since_us: int | None = None
    worker: str | None = None
    provider_task_id: str | None = None
    percent: int | None = None
    stage: str | None = None
    message: str | None = None
    input: dict[str, Any] = {}
    output: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    warnings: tuple[Notice, ...] = ()
    problem: Problem | None = None


class Standing(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How the task stood before an update that has not ended: what a cancel of the update puts back."""

    status: Status
    run: Run


class Task(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """All that is known of one task as of its event number *version*. Money is micro-credits, times are Unix µs."""

    task_id: TaskId = TaskId(bytes(16))
    version: int = 0
    status: Status = Status.ABSENT
    account: str = ""
    contract: str = ""
    capability: str = ""
    model: str = ""
    resolved_model: str | None = None
    provider: str = ""
    terms: Terms = Terms(school=School.ON_SUCCESS, rate_version="", estimated_micros=0)
    created_at_us: int = 0
    updated_at_us: int = 0
    expires_at_us: int | None = None
    estimated_seconds: int | None = None
    out_task_id: str | None = None
    follows: str | None = None
    """An earlier task, as the native API spells it."""
    metadata: dict[str, Any] = {}
    run: Run = Run()
    updating: Standing | None = None
    deleted: bool = False
    callback: Callback | None = None
    late_reports: int = 0
    cancel_wished: bool = False
    """A cancel was asked for that the provider cannot do: on record once, promises nothing."""

    authorised_micros: int = 0
    """All that was ever held."""
    held_micros: int = 0
    """What is held still."""
    released_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    money_keys: dict[str, int] = {}
    """Micro-credits moved under each money key; a key moves money once."""

    @property
    def net_micros(self) -> int:
        """What the customer has paid, all said and done."""
        return self.charged_micros - self.refunded_micros


NO_TASK = Task()


def fold(events: list[TaskEvent], task_id: TaskId) -> Task:
    """The task that these events, oldest first, leave behind."""
    return reduce(evolve, events, replace(NO_TASK, task_id=task_id))


def evolve(task: Task, event: TaskEvent) -> Task:
    """*task* after *event*: total, no clock, no refusal."""
    version, at_us = task.version + 1, max(task.updated_at_us, event.at_us)
    match event:
        case Created():
            return _created(task, event)
        case Held() | Released() | Charged() | Refunded():
            return _moved(replace(task, version=version, updated_at_us=at_us), event)
        case CancelRequested(unsupported=True):  # evidence, as a late report is: the task stands as it stood
            return replace(task, version=version, cancel_wished=True)
        case Started() | Progressed() | CancelRequested() | Stalled():
            return _went_on(replace(task, version=version, updated_at_us=at_us), event)
        case Cancelled() | Completed() | Failed() | Expired():
            return _ended(replace(task, version=version, updated_at_us=at_us), event)
        case UpdateRequested():
            return replace(
                task,
                version=version,
                updated_at_us=at_us,
                status=Status.QUEUED,
                updating=task.updating or Standing(status=task.status, run=task.run),
                run=Run(
                    number=task.run.number + 1,
                    queued_at_us=event.at_us,
                    input=event.content.input or {},
                    output=task.run.output,
                ),
            )
        case UpdateReverted():
            return _reverted(replace(task, version=version, updated_at_us=at_us))
        case LateReported():
            return replace(task, version=version, late_reports=task.late_reports + 1)
        case CallbackAttempted(webhook=None):
            return _called_back(replace(task, version=version), event)
        case CallbackAttempted():  # to a webhook of the account, which is no part of the task
            return replace(task, version=version)
        case Deleted():
            return _emptied(replace(task, version=version, updated_at_us=at_us, deleted=True))
        case _:
            assert_never(event)


def _created(task: Task, event: Created) -> Task:
    return Task(
        task_id=task.task_id,
        version=task.version + 1,
        status=Status.QUEUED,
        account=event.account,
        contract=event.contract,
        capability=event.capability,
        model=event.model,
        resolved_model=event.resolved_model,
        provider=event.provider,
        terms=event.terms,
        created_at_us=event.at_us,
        updated_at_us=event.at_us,
        expires_at_us=event.expires_at_us,
        estimated_seconds=event.estimated_seconds,
        out_task_id=event.out_task_id,
        follows=event.follows,
        metadata=event.content.metadata or {},
        run=Run(queued_at_us=event.at_us, input=event.content.input or {}),
        callback=None if event.callback_url is None else Callback(url=event.callback_url),
    )


def _moved(task: Task, event: Held | Released | Charged | Refunded) -> Task:
    amount = event.amount_micros
    keys = {**task.money_keys, event.key: amount}
    match event:
        case Held():
            return replace(
                task,
                authorised_micros=task.authorised_micros + amount,
                held_micros=task.held_micros + amount,
                money_keys=keys,
            )
        case Released():
            return replace(
                task,
                held_micros=task.held_micros - amount,
                released_micros=task.released_micros + amount,
                money_keys=keys,
            )
        case Charged():
            captured = amount if task.terms.school is School.HOLD else 0
            return replace(
                task,
                run=replace(task.run, stalled_since_us=None),  # while it runs, only its worker charges
                held_micros=task.held_micros - captured,
                charged_micros=task.charged_micros + amount,
                money_keys=keys,
            )
        case Refunded():
            return replace(task, refunded_micros=task.refunded_micros + amount, money_keys=keys)
        case _:
            assert_never(event)


def _went_on(task: Task, event: Started | Progressed | CancelRequested | Stalled) -> Task:
    run = task.run
    match event:
        case Started():
            run = replace(
                run,
                started_at_us=event.at_us if run.started_at_us is None else run.started_at_us,
                worker=event.worker,
                provider_task_id=event.provider_task_id,
                stalled_since_us=None,
            )
            return replace(task, status=Status.RUNNING, run=run)
        case Progressed():
            percent = run.percent if event.percent is None else max(run.percent or 0, event.percent)
            run = replace(
                run,
                percent=percent,
                stage=run.stage if event.stage is None else event.stage,
                message=run.message if event.content.message is None else event.content.message,
                stalled_since_us=None,
            )
            return replace(task, run=run)
        case CancelRequested():
            return replace(task, run=replace(run, cancel_requested_at_us=event.at_us))
        case Stalled():
            return replace(task, run=replace(run, stalled_since_us=event.silent_since_us))
        case _:
            assert_never(event)


def _ended(task: Task, event: Cancelled | Completed | Failed | Expired) -> Task:
    run = replace(task.run, finished_at_us=event.at_us, stalled_since_us=None)
    match event:
        case Cancelled():
            return replace(task, status=Status.CANCELLED, run=run)
        case Completed():
            content = event.content
            run = replace(run, percent=100, output=content.output, usage=event.usage, warnings=content.warnings)
            return replace(task, status=Status.COMPLETED, run=run, updating=None)
        case Failed():
            problem = Problem(code=event.code, message=event.content.message or "", retryable=event.retryable)
            return replace(task, status=Status.FAILED, run=replace(run, problem=problem))
        case Expired():
            return replace(task, status=Status.EXPIRED, run=run)
        case _:
            assert_never(event)


def _reverted(task: Task) -> Task:
    before = task.updating
    assert before is not None, "only a task that is being updated reverts"
    # The run's number is kept, so that the money keys of a later run are new ones.
    return replace(task, status=before.status, run=replace(before.run, number=task.run.number), updating=None)


def _called_back(task: Task, event: CallbackAttempted) -> Task:
    assert task.callback is not None, "only a task with a callback url is called back"
    callback = replace(
        task.callback,
        attempts=event.attempt,
        delivered_at_us=event.at_us if event.delivered else None,
        last_error=event.error,
        about=event.about,
        gave_up=event.gave_up,
    )
    return replace(task, callback=callback)


def _emptied(task: Task) -> Task:
    run = replace(task.run, input={}, output=None, message=None, warnings=())
    if run.problem is not None:
        run = replace(run, problem=replace(run.problem, message=""))
    return replace(task, metadata={}, run=run)

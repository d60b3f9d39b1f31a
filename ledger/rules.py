"""The rules: which events a command causes. Pure; there are no others anywhere.

The writer decides a command against the very state its events are appended to, so "only queued tasks cancel" cannot
be overtaken by a worker that starts the task between the check and the append.

Outcomes race and the first commit wins. A report that comes after the outcome changes nothing and is kept as
`LateReported`. An update that ends without a result puts the task back as it stood before.
"""

from functools import reduce
from typing import assert_never

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from ledger.commands import (
    CancelPolicy,
    Charge,
    Complete,
    ConfirmCancel,
    Create,
    Delete,
    Effect,
    Expire,
    Fail,
    MarkStalled,
    Progress,
    RecordCallback,
    Refund,
    Report,
    RequestCancel,
    RequestUpdate,
    Start,
    TaskCommand,
)
from ledger.errors import (
    AlreadyStarted,
    AmountExceeds,
    CancelNotRequested,
    CancelUnsupported,
    DeadlinePassed,
    KeyReused,
    NotCancellable,
    NotDeletable,
    NotUpdatable,
    TaskNotFound,
    UnknownModel,
    UpdateUnchanged,
    WrongVersion,
)
from ledger.events import (
    NO_PAYLOAD,
    CallbackAttempted,
    Cancelled,
    CancelRequested,
    Charged,
    Completed,
    Created,
    Deleted,
    Expired,
    Failed,
    LateReported,
    Payload,
    Progressed,
    Refunded,
    School,
    Stalled,
    Started,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.settlement import abandonment_due, authorise, cancel_due, completion_due, settle
from ledger.task import LIVE, TERMINAL, Status, Task, evolve

Events = list[TaskEvent]


def decide(task: Task, command: TaskCommand) -> Events:
    """The events that *command* causes, oldest first; an empty list means that nothing changes.

    Raises:
        TaskNotFound, WrongVersion, then the command's own refusals, in the order of its function below.
    """
    if isinstance(command, Create):
        return _create(task, command)
    if task.status is Status.ABSENT:
        raise TaskNotFound
    if command.expected_version not in (None, task.version):
        raise WrongVersion(expected=command.expected_version or 0, actual=task.version)
    match command:
        case Start() | Progress() | Complete() | Fail() | ConfirmCancel() | Charge() | Refund():
            return _report(task, command)
        case RequestCancel():
            return _request_cancel(task, command)
        case RequestUpdate():
            return _request_update(task, command)
        case Delete():
            return _delete(task, command)
        case Expire():
            return _expire(task, command)
        case MarkStalled():
            return _mark_stalled(task, command)
        case RecordCallback():
            return _record_callback(task, command)
        case _:
            assert_never(command)


# Creation


def _create(task: Task, command: Create) -> Events:
    assert task.status is Status.ABSENT, "ids are random: nobody creates a task twice"
    if command.expires_at_us is not None and command.expires_at_us <= command.at_us:
        raise DeadlinePassed
    if command.terms is None:
        raise UnknownModel(command.model)
    created = Created(
        at_us=command.at_us,
        payload=_unless_empty(Payload(input=command.input or None, metadata=command.metadata or None)),
        account=command.account,
        contract=command.contract,
        capability=command.capability,
        model=command.model,
        resolved_model=command.resolved_model,
        provider=command.provider,
        terms=command.terms,
        estimated_seconds=command.estimated_seconds,
        out_task_id=command.out_task_id,
        callback_url=command.callback_url,
        expires_at_us=command.expires_at_us,
    )
    return [created, *authorise(command.terms, at_us=command.at_us)]


# What workers report


def _report(task: Task, report: Start | Progress | Complete | Fail | ConfirmCancel | Charge | Refund) -> Events:
    at_us = _when(task, report)
    if isinstance(report, Refund):  # money given back is no outcome: it comes before or after one
        return _refund(task, report, at_us)
    if isinstance(report, Charge) and task.money_keys.get(f"charged:{report.key}") == report.amount_micros:
        return []  # sent again, perhaps after the outcome: it was in time when it moved the money
    if task.status in TERMINAL:
        late = _late(report)
        return [replace(late, payload=UNSET) if task.deleted else late]  # no content after its deletion
    match report:
        case Start():
            return _start(task, report, at_us)
        case Progress():
            return _progress(task, report, at_us)
        case Complete():
            return _complete(task, report, at_us)
        case Fail():
            return _fail(task, report, at_us)
        case ConfirmCancel():
            return _confirm_cancel(task, report, at_us)
        case Charge():
            return _charge(task, report, at_us)
        case _:
            assert_never(report)


def _start(task: Task, report: Start, at_us: int) -> Events:
    if task.status is Status.QUEUED:
        return [Started(at_us=at_us, worker=report.worker, provider_task_id=report.provider_task_id)]
    if task.run.worker is None and report.worker is not None:  # its progress came first, and implied the start
        return [Started(at_us=at_us, worker=report.worker, provider_task_id=report.provider_task_id)]
    if task.run.worker is not None and report.worker not in (None, task.run.worker):
        raise AlreadyStarted(task.run.worker)
    return []


def _progress(task: Task, report: Progress, at_us: int) -> Events:
    told = Progressed(at_us=at_us, payload=_text(report.message), percent=report.percent, stage=report.stage)
    events = [*_implied_start(task, at_us), told]
    before = _after(task, events[:-1])
    after = evolve(before, told)
    return events if after.run != before.run else events[:-1]


def _complete(task: Task, report: Complete, at_us: int) -> Events:
    due_micros = completion_due(task, report.actual_micros)
    return [
        *_implied_start(task, at_us),
        Completed(
            at_us=at_us,
            payload=_unless_empty(Payload(output=report.output, warnings=report.warnings)),
            usage=report.usage,
        ),
        *settle(task, due_micros=due_micros, cause="completed", at_us=at_us),
    ]


def _fail(task: Task, report: Fail, at_us: int) -> Events:
    money = settle(task, due_micros=abandonment_due(task, report.actual_micros), cause="failed", at_us=at_us)
    if task.updating is not None:
        reverted = UpdateReverted(at_us=at_us, payload=_text(report.message), cause="failed", code=report.code)
        return [reverted, *money]
    failed = Failed(at_us=at_us, payload=_text(report.message), code=report.code, retryable=report.retryable)
    return [*_implied_start(task, at_us), failed, *money]


def _confirm_cancel(task: Task, report: ConfirmCancel, at_us: int) -> Events:
    if task.run.cancel_requested_at_us is None:
        raise CancelNotRequested(task.status)
    due_micros = abandonment_due(task, report.actual_micros)
    return _cancel(task, due_micros=due_micros, confirmed=True, at_us=at_us)


def _charge(task: Task, report: Charge, at_us: int) -> Events:
    if _moved_before(task, "charged", report):
        return []
    if report.amount_micros > task.held_micros:
        raise _exceeds(task, report, left_micros=task.held_micros)
    return [
        *_implied_start(task, at_us),
        Charged(
            at_us=at_us,
            payload=_text(report.reason),
            amount_micros=report.amount_micros,
            key=f"charged:{report.key}",
            cause="charged",
        ),
    ]


def _refund(task: Task, report: Refund, at_us: int) -> Events:
    if _moved_before(task, "refunded", report):
        return []
    if report.amount_micros > task.net_micros:
        raise _exceeds(task, report, left_micros=task.net_micros)
    return [
        Refunded(
            at_us=at_us,
            payload=UNSET if task.deleted else _text(report.reason),  # no content after its deletion
            amount_micros=report.amount_micros,
            key=f"refunded:{report.key}",
            cause="refunded",
        )
    ]


def _moved_before(task: Task, verb: str, report: Charge | Refund) -> bool:
    """Whether the report's key has moved this very amount.

    Raises:
        KeyReused: it has moved another one.
    """
    moved = task.money_keys.get(f"{verb}:{report.key}")
    if moved is not None and moved != report.amount_micros:
        raise KeyReused(verb, report.key, amount_micros=moved, task=task.task_id)
    return moved is not None


def _exceeds(task: Task, report: Charge | Refund, *, left_micros: int) -> AmountExceeds:
    return AmountExceeds(
        "amount_credits",
        asked_micros=report.amount_micros,
        left_micros=left_micros,
        settled_by=tuple(task.money_keys),
    )


def _implied_start(task: Task, at_us: int) -> Events:
    return [Started(at_us=at_us, implied=True)] if task.status is Status.QUEUED else []


def _late(report: Report) -> LateReported:
    """The report as evidence, at the time that its source gives: an old notice stays recognisable as old."""
    effective_us = report.at_us if report.effective_at_us is None else report.effective_at_us
    at_us = min(effective_us, report.at_us)
    match report:
        case Start():
            return LateReported(at_us=at_us, reported="started")
        case Progress(percent=percent, message=message):
            return LateReported(at_us=at_us, payload=_text(message), reported="progressed", percent=percent)
        case Complete(output=output, usage=usage, actual_micros=actual):
            content = UNSET if output is None else Payload(output=output)
            return LateReported(at_us=at_us, payload=content, reported="completed", usage=usage, claimed_micros=actual)
        case Fail(code=code, message=message, actual_micros=actual):
            return LateReported(
                at_us=at_us, payload=_text(message), reported="failed", code=code, claimed_micros=actual
            )
        case ConfirmCancel(actual_micros=actual):
            return LateReported(at_us=at_us, reported="cancelled", claimed_micros=actual)
        case Charge(amount_micros=amount, reason=reason):
            return LateReported(at_us=at_us, payload=_text(reason), reported="charged", claimed_micros=amount)
        case _:
            raise AssertionError(report)


# Cancel


def _request_cancel(task: Task, command: RequestCancel) -> Events:
    _must_see(task, command.account)
    policy, at_us = command.policy, _now(task, command.at_us)
    if policy.needs_support and not task.terms.cancellable:
        wish = CancelRequested(at_us=at_us, payload=_text(command.reason), unsupported=True)
        known = task.cancel_wished or task.status in TERMINAL
        raise CancelUnsupported(task.model, () if known else (wish,))
    match _effect(policy, task.status):
        case Effect.REFUSE:
            raise NotCancellable(task.status)
        case Effect.RETURN:
            return []
        case Effect.ASK:
            return _asked(task, command, at_us)
        case Effect.CANCEL:
            asked = _asked(task, command, at_us)
            return [*asked, *_cancel(task, due_micros=cancel_due(task), confirmed=False, at_us=at_us)]


def _effect(policy: CancelPolicy, status: Status) -> Effect:
    if status is Status.QUEUED:
        return policy.queued
    return policy.running if status is Status.RUNNING else policy.terminal


def _asked(task: Task, command: RequestCancel, at_us: int) -> Events:
    """The wish, once: asking again changes nothing."""
    if task.run.cancel_requested_at_us is not None:
        return []
    return [CancelRequested(at_us=at_us, payload=_text(command.reason))]


def _cancel(task: Task, *, due_micros: int, confirmed: bool, at_us: int) -> Events:
    money = settle(task, due_micros=due_micros, cause="cancelled", at_us=at_us)
    if task.updating is not None:
        return [UpdateReverted(at_us=at_us, cause="cancelled"), *money]
    return [Cancelled(at_us=at_us, confirmed=confirmed), *money]


# Updates, deletion, and what the sweeps find


def _request_update(task: Task, command: RequestUpdate) -> Events:
    _must_see(task, command.account)
    if task.status not in {Status.COMPLETED, Status.FAILED} or task.terms.school is not School.ON_SUCCESS:
        raise NotUpdatable(task.status)  # a hold or a prepayment covers one run
    if command.input == task.run.input:
        raise UpdateUnchanged
    return [UpdateRequested(at_us=_now(task, command.at_us), payload=Payload(input=command.input))]


def _delete(task: Task, command: Delete) -> Events:
    _must_see(task, command.account)
    if task.status in LIVE:
        raise NotDeletable(task.status)
    return [Deleted(at_us=_now(task, command.at_us))]


def _expire(task: Task, command: Expire) -> Events:
    if task.status in TERMINAL or task.expires_at_us is None or command.at_us < task.expires_at_us:
        return []
    at_us = _now(task, command.at_us)
    money = settle(task, due_micros=abandonment_due(task, None), cause="expired", at_us=at_us)
    if task.updating is not None:
        return [UpdateReverted(at_us=at_us, cause="expired"), *money]
    return [Expired(at_us=at_us), *money]


def _mark_stalled(task: Task, command: MarkStalled) -> Events:
    if task.status is not Status.RUNNING or task.run.stalled_since_us is not None:
        return []
    return [Stalled(at_us=_now(task, command.at_us), silent_since_us=command.silent_since_us)]


# Shared


def _must_see(task: Task, account: str | None) -> None:
    """Refuse a client that the task does not belong to, and every client once it is deleted."""
    foreign = account is not None and task.account != account
    if foreign or task.deleted:
        raise TaskNotFound(foreign=foreign and not task.deleted)


def _now(task: Task, at_us: int) -> int:
    """Times of a task never run backwards, whatever the clock does."""
    return max(at_us, task.updated_at_us)


def _when(task: Task, report: Report) -> int:
    """When it happened, as its source says, but neither before the task's last fact nor in the future."""
    now_us = _now(task, report.at_us)
    if report.effective_at_us is None:
        return now_us
    return min(max(report.effective_at_us, task.updated_at_us), now_us)


def _after(task: Task, events: Events) -> Task:
    return reduce(evolve, events, task)


def _unless_empty(payload: Payload) -> Payload | UnsetType:
    return payload if payload != NO_PAYLOAD else UNSET


def _text(message: str | None) -> Payload | UnsetType:
    return _unless_empty(Payload(message=message or None))


# Callbacks


def _record_callback(task: Task, command: RecordCallback) -> Events:
    callback = task.callback
    if command.webhook is None:
        if callback is None:
            return []  # it has no address of its own
        if command.about == callback.about and command.attempt <= callback.attempts:
            return []  # on record already
    attempted = CallbackAttempted(
        at_us=_now(task, command.at_us),
        attempt=command.attempt,
        delivered=command.delivered,
        error=command.error,
        about=command.about,
        gave_up=command.gave_up,
        webhook=command.webhook,
    )
    return [attempted]

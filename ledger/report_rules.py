"""What a worker's report causes: progress, outcomes, and money that is moved apart from them. Pure."""

from functools import reduce
from typing import assert_never

from msgspec import UNSET
from msgspec.structs import replace

from ledger.commands import Charge, Complete, ConfirmCancel, Fail, Progress, Refund, Report, Start
from ledger.errors import AlreadyStarted, AmountExceeds, CancelNotRequested, KeyReused
from ledger.events import (
    Charged,
    Completed,
    Failed,
    LateReported,
    Payload,
    Progressed,
    Refunded,
    Started,
    UpdateReverted,
)
from ledger.rule_parts import Events, cancelled, no_earlier, text, unless_empty
from ledger.settlement import abandonment_due, completion_due, settle
from ledger.task import TERMINAL, Status, Task, evolve


def decide_report(task: Task, report: Start | Progress | Complete | Fail | ConfirmCancel | Charge | Refund) -> Events:
    """What *report* says has happened; after the outcome only a refund still counts, all else is kept as evidence.

    Raises:
        AlreadyStarted: a start, by another worker than the task has.
        CancelNotRequested: a confirmation that nobody waits for.
        KeyReused, AmountExceeds: a charge or a refund, in that order of precedence.
    """
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
    told = Progressed(at_us=at_us, payload=text(report.message), percent=report.percent, stage=report.stage)
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
            payload=unless_empty(Payload(output=report.output, warnings=report.warnings)),
            usage=report.usage,
        ),
        *settle(task, due_micros=due_micros, cause="completed", at_us=at_us),
    ]


def _fail(task: Task, report: Fail, at_us: int) -> Events:
    money = settle(task, due_micros=abandonment_due(task, report.actual_micros), cause="failed", at_us=at_us)
    if task.updating is not None:
        reverted = UpdateReverted(at_us=at_us, payload=text(report.message), cause="failed", code=report.code)
        return [reverted, *money]
    failed = Failed(at_us=at_us, payload=text(report.message), code=report.code, retryable=report.retryable)
    return [*_implied_start(task, at_us), failed, *money]


def _confirm_cancel(task: Task, report: ConfirmCancel, at_us: int) -> Events:
    if task.run.cancel_requested_at_us is None:
        raise CancelNotRequested(task.status)
    due_micros = abandonment_due(task, report.actual_micros)
    return cancelled(task, due_micros=due_micros, confirmed=True, at_us=at_us)


def _charge(task: Task, report: Charge, at_us: int) -> Events:
    if _moved_before(task, "charged", report):
        return []
    if report.amount_micros > task.held_micros:
        raise _exceeds(task, report, left_micros=task.held_micros)
    return [
        *_implied_start(task, at_us),
        Charged(
            at_us=at_us,
            payload=text(report.reason),
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
            payload=UNSET if task.deleted else text(report.reason),  # no content after its deletion
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
            return LateReported(at_us=at_us, payload=text(message), reported="progressed", percent=percent)
        case Complete(output=output, usage=usage, actual_micros=actual):
            content = UNSET if output is None else Payload(output=output)
            return LateReported(at_us=at_us, payload=content, reported="completed", usage=usage, claimed_micros=actual)
        case Fail(code=code, message=message, actual_micros=actual):
            return LateReported(at_us=at_us, payload=text(message), reported="failed", code=code, claimed_micros=actual)
        case ConfirmCancel(actual_micros=actual):
            return LateReported(at_us=at_us, reported="cancelled", claimed_micros=actual)
        case Charge(amount_micros=amount, reason=reason):
            return LateReported(at_us=at_us, payload=text(reason), reported="charged", claimed_micros=amount)
        case _:
            raise AssertionError(report)


def _when(task: Task, report: Report) -> int:
    """When it happened, as its source says, but neither before the task's last fact nor in the future."""
    now_us = no_earlier(task, report.at_us)
    if report.effective_at_us is None:
        return now_us
    return min(max(report.effective_at_us, task.updated_at_us), now_us)


def _after(task: Task, events: Events) -> Task:
    return reduce(evolve, events, task)

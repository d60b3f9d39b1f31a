"""What customers ask of a task that there is: to cancel it, to run it again otherwise, to delete it. Pure."""

from ledger.commands import CancelPolicy, Delete, Effect, RequestCancel, RequestUpdate
from ledger.errors import CancelUnsupported, NotCancellable, NotDeletable, NotUpdatable, TaskNotFound, UpdateUnchanged
from ledger.events import CancelRequested, Deleted, Payload, School, UpdateRequested
from ledger.rule_parts import Events, cancelled, no_earlier, text
from ledger.settlement import cancel_due
from ledger.task import LIVE, TERMINAL, Status, Task


def decide_cancel(task: Task, command: RequestCancel) -> Events:
    """What the contract's row of the cancel table says for the task's status.

    Raises:
        TaskNotFound, CancelUnsupported, NotCancellable: in that order of precedence.
    """
    _must_see(task, command.account)
    policy, at_us = command.policy, no_earlier(task, command.at_us)
    if policy.needs_support and not task.terms.cancellable:
        wish = CancelRequested(at_us=at_us, payload=text(command.reason), unsupported=True)
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
            return [*asked, *cancelled(task, due_micros=cancel_due(task), confirmed=False, at_us=at_us)]


def _effect(policy: CancelPolicy, status: Status) -> Effect:
    if status is Status.QUEUED:
        return policy.queued
    return policy.running if status is Status.RUNNING else policy.terminal


def _asked(task: Task, command: RequestCancel, at_us: int) -> Events:
    """The wish, once: asking again changes nothing."""
    if task.run.cancel_requested_at_us is not None:
        return []
    return [CancelRequested(at_us=at_us, payload=text(command.reason))]


def decide_update(task: Task, command: RequestUpdate) -> Events:
    """A further run of a task that has completed or failed.

    Raises:
        TaskNotFound, NotUpdatable, UpdateUnchanged: in that order of precedence.
    """
    _must_see(task, command.account)
    if task.status not in {Status.COMPLETED, Status.FAILED} or task.terms.school is not School.ON_SUCCESS:
        raise NotUpdatable(task.status)  # a hold or a prepayment covers one run
    if command.input == task.run.input:
        raise UpdateUnchanged
    return [UpdateRequested(at_us=no_earlier(task, command.at_us), payload=Payload(input=command.input))]


def decide_delete(task: Task, command: Delete) -> Events:
    """The end of a task that is over: nobody reads it any more, and its content is erased.

    Raises:
        TaskNotFound, NotDeletable: in that order of precedence.
    """
    _must_see(task, command.account)
    if task.status in LIVE:
        raise NotDeletable(task.status)
    return [Deleted(at_us=no_earlier(task, command.at_us))]


def _must_see(task: Task, account: str | None) -> None:
    """Refuse a client that the task does not belong to, and every client once it is deleted."""
    foreign = account is not None and task.account != account
    if foreign or task.deleted:
        raise TaskNotFound(foreign=foreign and not task.deleted)

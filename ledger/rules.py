"""The rules: which events a command causes. Pure; there are no others anywhere.

What workers report is in `ledger.report_rules`, what customers ask of a task in `ledger.request_rules`; here is what
makes a task, and what the service itself finds.

The writer decides a command against the very state its events are appended to, so "only queued tasks cancel" cannot
be overtaken by a worker that starts the task between the check and the append.

Outcomes race and the first commit wins. A report that comes after the outcome changes nothing and is kept as
`LateReported`. An update that ends without a result puts the task back as it stood before.
"""

from typing import assert_never

from ledger.commands import (
    Charge,
    Complete,
    ConfirmCancel,
    Create,
    Delete,
    Expire,
    Fail,
    MarkStalled,
    Progress,
    RecordCallback,
    Refund,
    RequestCancel,
    RequestUpdate,
    Start,
    TaskCommand,
)
from ledger.errors import DeadlinePassed, NotEnded, TaskNotFound, UnknownModel, WrongVersion
from ledger.events import CallbackAttempted, Created, Expired, Payload, Stalled, UpdateReverted
from ledger.ids import Spelling
from ledger.report_rules import decide_report
from ledger.request_rules import decide_cancel, decide_delete, decide_update
from ledger.rule_parts import Events, no_earlier, unless_empty
from ledger.settlement import abandonment_due, authorise, settle
from ledger.task import TERMINAL, Status, Task


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
            return decide_report(task, command)
        case RequestCancel():
            return decide_cancel(task, command)
        case RequestUpdate():
            return decide_update(task, command)
        case Delete():
            return decide_delete(task, command)
        case Expire():
            return _expire(task, command)
        case MarkStalled():
            return _mark_stalled(task, command)
        case RecordCallback():
            return _record_callback(task, command)
        case _:
            assert_never(command)


def may_follow(followed: Task, command: Create) -> None:
    """Check that *command* may order work in the place of *followed*, to which nothing happens by that.

    Raises:
        TaskNotFound: there is no such task, or it is another account's.
        NotEnded: what it was ordered for may come yet.
    """
    if followed.status is Status.ABSENT or followed.account != command.account:
        raise TaskNotFound
    if followed.status not in TERMINAL:
        raise NotEnded(followed.status)


def _create(task: Task, command: Create) -> Events:
    """Raises: DeadlinePassed, UnknownModel, in that order of precedence."""
    assert task.status is Status.ABSENT, "ids are random: nobody creates a task twice"
    if command.expires_at_us is not None and command.expires_at_us <= command.at_us:
        raise DeadlinePassed
    if command.terms is None:
        raise UnknownModel(command.model)
    created = Created(
        at_us=command.at_us,
        payload=unless_empty(Payload(input=command.input or None, metadata=command.metadata or None)),
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
        follows=None if command.follows is None else Spelling.UUID.spell(command.follows),
    )
    return [created, *authorise(command.terms, at_us=command.at_us)]


def _expire(task: Task, command: Expire) -> Events:
    if task.status in TERMINAL or task.expires_at_us is None or command.at_us < task.expires_at_us:
        return []
    at_us = no_earlier(task, command.at_us)
    money = settle(task, due_micros=abandonment_due(task, None), cause="expired", at_us=at_us)
    if task.updating is not None:
        return [UpdateReverted(at_us=at_us, cause="expired"), *money]
    return [Expired(at_us=at_us), *money]


def _mark_stalled(task: Task, command: MarkStalled) -> Events:
    if task.status is not Status.RUNNING or task.run.stalled_since_us is not None:
        return []
    return [Stalled(at_us=no_earlier(task, command.at_us), silent_since_us=command.silent_since_us)]


def _record_callback(task: Task, command: RecordCallback) -> Events:
    callback = task.callback
    if command.webhook is None:
        if callback is None:
            return []  # it has no address of its own
        if command.about == callback.about and command.attempt <= callback.attempts:
            return []  # on record already
    attempted = CallbackAttempted(
        at_us=no_earlier(task, command.at_us),
        attempt=command.attempt,
        delivered=command.delivered,
        error=command.error,
        about=command.about,
        gave_up=command.gave_up,
        webhook=command.webhook,
    )
    return [attempted]

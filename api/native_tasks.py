"""One task in the native API: read, reported on by its worker, cancelled by an operator, and its history.

A write answers with the task at or after its own change.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from api.bodies import read_json_or
from api.contracts import parse_any
from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.following import await_task
from api.native_bodies import ReasonBody
from api.native_queries import moment_in, wait_in
from api.native_reports import report_in
from api.native_shapes import event_view, task_view
from api.native_tags import REPEATED, etag, has_seen, if_match, news
from api.refusals import Invalid
from ledger.commands import CancelPolicy, Charge, Effect, Refund, RequestCancel
from ledger.errors import StorageError, TaskNotFound
from ledger.ids import TaskId
from ledger.ledger import Outcome
from ledger.task import Status, Task
from projections.reports.as_of import task_as_of

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN)
"""The operator's row of the cancel table."""


async def read(deps: Deps, asked: Asked) -> Answer:
    """The task as it stands, or 304; with ``wait`` once there is `news` of it, or when that time is over.

    With ``at`` it is the task as it stood.
    """
    task_id = _task_id(asked)
    seconds = wait_in(asked, most=deps.stays.limits.wait_max_seconds)
    moment = await moment_in(deps, asked, of_now="wait")
    if moment is not None:
        stood = await task_as_of(deps.ledger.engine, task_id, moment)
        if stood is None:
            raise TaskNotFound
        return _answer(asked, stood.task, position=stood.position)
    if seconds:
        await await_task(deps, asked, task_id, seconds=seconds, is_news=news(asked))
    seen = await deps.ledger.task(task_id, account=None)
    if has_seen(asked, seen.task):
        return Answer(304, b"", headers={"ETag": etag(seen.task)})
    return _answer(asked, seen.task, position=seen.position)


async def report(deps: Deps, asked: Asked) -> Answer:
    """Take what a worker reports. Its answer tells the worker whether a cancel has been asked for."""
    outcome, is_repeat = await take_report(deps, asked, _task_id(asked))
    return await outcome_answer(deps, asked, outcome, status=200, headers=REPEATED if is_repeat else None)


class Reported(NamedTuple):
    """What a report came to."""

    outcome: Outcome
    is_repeat: bool
    """It came before: by its event id, or by the key under which it moves money once."""


async def take_report(deps: Deps, asked: Asked, task_id: TaskId) -> Reported:
    """Take the report of a task in the request's body; one that cannot be read is noted for the sweep.

    Raises:
        Invalid: the body, then ``If-Match``, cannot be read. Whoever gets the header wrong is told, and nobody else is.
        DamagedError: of the task, so that its report was not looked at further.
        Refusal, StorageError: as `Ledger.handle`.
    """
    try:
        command = report_in(asked, task_id, keyed=deps.ledger.keys.keyed)
    except Invalid as wrong:
        await _note_unread(deps, task_id, wrong, at_us=asked.now_us)
        raise
    outcome = await deps.ledger.handle(replace(command, expected_version=if_match(asked)))
    has_moved_before = isinstance(command, Charge | Refund) and not outcome.appended
    return Reported(outcome, outcome.replayed or has_moved_before)


async def _note_unread(deps: Deps, task_id: TaskId, wrong: Invalid, *, at_us: int) -> None:
    """Note the report for the sweep, unless there is no such task: ids that are made up would push out the others."""
    with suppress(StorageError):  # nobody knows: the sweep looks again
        if await deps.ledger.views.get(task_id) is None:
            return
    deps.ledger.unread.note(task_id, wrong.reason, at_us=at_us)


async def history(deps: Deps, asked: Asked) -> Answer:
    """All events of the task, oldest first."""
    rows = await deps.ledger.history(_task_id(asked))
    return json_answer(200, {"events": [event_view(row, log_id=asked.log_id) for row in rows]})


async def cancel(deps: Deps, asked: Asked) -> Answer:
    """200 when it is over, 202 when the worker has been asked and must confirm."""
    body = read_json_or(asked.body, ReasonBody())
    command = RequestCancel(
        task_id=_task_id(asked),
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        expected_version=if_match(asked),
        account=None,
        policy=CANCEL,
        reason=body.reason,
    )
    outcome = await deps.ledger.handle(command)
    status = 202 if outcome.task.status is Status.RUNNING else 200
    return await outcome_answer(deps, asked, outcome, status=status)


async def outcome_answer(
    deps: Deps, asked: Asked, outcome: Outcome, *, status: int, headers: Mapping[str, str] | None = None
) -> Answer:
    """What a command came to; for a request that came before, the task as it stands by now, with 200."""
    if outcome.replayed:
        seen = await deps.ledger.task(outcome.task.task_id, account=None)
        return _answer(asked, seen.task, position=seen.position, headers=REPEATED)
    return _answer(asked, outcome.task, position=outcome.position, status=status, headers=headers, is_late=outcome.late)


def _answer(  # noqa: PLR0913 - what answers with a task differ in
    asked: Asked,
    task: Task,
    *,
    position: int,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    is_late: bool = False,
) -> Answer:
    view = task_view(task, position=position, log_id=asked.log_id) | ({"late": True} if is_late else {})
    return json_answer(status, view, {"ETag": etag(task), **(headers or {})})


def _task_id(asked: Asked) -> TaskId:
    """The id in the path, in the spelling of any contract.

    Raises:
        TaskNotFound: it is spelled in none of them.
    """
    task = parse_any(asked.params["id"])
    if task is None:
        raise TaskNotFound
    return task

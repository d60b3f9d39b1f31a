"""Many reports in one request, ``POST /ledger/v1/events``: a line each, and a line each for what came of it.

Each line is a report by itself: it is taken or refused whatever becomes of the others, and its answer is durable as any
2xx is. Lines of one task are taken in their order, those of different tasks together, so that they share commits. The
request as a whole is refused only when there was nothing in it that could be taken: what the store, or our own fault,
has kept from every line is said once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from api.bodies import read_json
from api.contracts import parse_any
from api.contracts.shape import Answer, Asked
from api.deps import Deps
from api.native_bodies import report_in
from api.refusals import Broken, Invalid, Unavailable
from ledger.cursors import position_cursor
from ledger.errors import Overloaded, Refusal, StorageError, TaskNotFound
from ledger.ids import Spelling, TaskId
from ledger.ledger import Outcome

BATCH_MAX_BYTES = 8 * 2**20
LINES_MAX = 1000
TASKS_AT_ONCE = 256
"""Tasks whose lines are under way together: as many as share a commit."""

_encoder = msgspec.json.Encoder()

Problem = Callable[[Refusal, str], dict[str, Any]]
"""A refusal as a problem, with the id of the request."""


class Line(NamedTuple):
    """A line that is no blank: its number, from 1 on, and the report of a task in it, or why there is none."""

    number: int
    named: str | None = None
    """The task, as the line spells it."""
    report: tuple[TaskId, bytes] | None = None
    wrong: Refusal | None = None


def lines_in(body: bytes) -> list[Line]:
    """The lines of *body*.

    Raises:
        Invalid: there are none, or more than `LINES_MAX`.
    """
    numbered = [(number, raw) for number, raw in enumerate(body.split(b"\n"), 1) if raw.strip()]
    if not 1 <= len(numbered) <= LINES_MAX:
        raise Invalid(f"the body is 1 to {LINES_MAX} lines of JSON")
    return [_line(number, raw) for number, raw in numbered]


def _line(number: int, raw: bytes) -> Line:
    try:
        fields = read_json(raw, dict[str, Any])
    except Invalid as wrong:
        return Line(number, wrong=wrong)
    named = fields.pop("task", None)
    if not isinstance(named, str):
        return Line(number, wrong=Invalid("task must be a task's id", param="task"))
    task = parse_any(named)
    if task is None:
        return Line(number, named, wrong=TaskNotFound())
    return Line(number, named, (task, _encoder.encode(fields)))


async def report_many(deps: Deps, asked: Asked, problem: Problem) -> Answer:
    """Take what is reported in each line; one line of answer for each, in their order."""
    lines = lines_in(asked.body)
    by_task: defaultdict[TaskId | None, list[Line]] = defaultdict(list)
    for line in lines:
        by_task[line.report and line.report[0]].append(line)
    room = asyncio.Semaphore(TASKS_AT_ONCE)

    async def take(some: Sequence[Line]) -> list[tuple[int, Outcome | Refusal]]:
        async with room:
            return [(line.number, await _taken(deps, asked, line)) for line in some]

    taken = await asyncio.gather(*(take(some) for some in by_task.values()))
    came_to = dict(one for some in taken for one in some)
    _refuse_whole([*came_to.values()])
    log_id = asked.log_id
    shown = [
        {"line": line.number, "task": line.named, **_view(came_to[line.number], problem, asked.request_id, log_id)}
        for line in lines
    ]
    return Answer(200, _encoder.encode_lines(shown), "application/x-ndjson")


async def _taken(deps: Deps, asked: Asked, line: Line) -> Outcome | Refusal:
    """What the line came to. What is not its own fault is told in words that say no more than that."""
    if line.report is None:
        assert line.wrong is not None
        return line.wrong
    task, report = line.report
    try:
        command = report_in(asked._replace(body=report, headers={}), task)
        if command.claims:
            command = replace(command, claims=deps.ledger.keys.keyed(command.claims))
        return await deps.ledger.handle(command)
    except Refusal as refusal:
        return refusal
    except StorageError as fault:
        deps.log.warning("store.failed", request_id=asked.request_id, fault=str(fault))
        return Unavailable()
    except Exception:
        deps.log.exception("http.broke", request_id=asked.request_id, route="/ledger/v1/events")
        return Broken()


def _refuse_whole(came_to: Sequence[Outcome | Refusal]) -> None:
    """Refuse the request when nothing in it was taken and none of its lines is to blame.

    Raises:
        Overloaded, Unavailable, Broken: so it is; the gravest that any line met.
    """
    for kind in (Broken, Unavailable, Overloaded):
        met = [one for one in came_to if isinstance(one, kind)]
        if met and all(isinstance(one, Broken | Unavailable | Overloaded) for one in came_to):
            raise met[0]


def _view(came_to: Outcome | Refusal, problem: Problem, request_id: str, log_id: str) -> dict[str, Any]:
    if isinstance(came_to, Refusal):
        return problem(came_to, request_id)
    task = came_to.task
    return {
        "status": 200,
        "id": Spelling.UUID.spell(task.task_id),
        "task_status": task.status,
        "version": task.version,
        "cursor": position_cursor(log_id, came_to.position),
        "cancel_requested": task.run.cancel_requested_at_us is not None,
        "late": came_to.late,
        "replayed": came_to.replayed,
    }

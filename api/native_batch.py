"""Many reports in one request, ``POST /ledger/v1/events``: a line each, and a line each for what came of it.

Each line is a report by itself: it is taken or refused whatever becomes of the others, and its answer is durable as any
2xx is. Lines of one task are taken in their order, those of different tasks together, so that they share commits. The
request as a whole is refused only when the store, a full queue or a fault of ours has kept every line of it: that is
said once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.bodies import read_json
from api.contracts import parse_any
from api.contracts.shape import Answer, Asked
from api.deps import Deps
from api.native_refusals import problem_of
from api.native_tasks import Reported, take_report
from api.refusals import Broken, Invalid, Unavailable
from ledger.cursors import position_cursor
from ledger.errors import Overloaded, Refusal, StorageError, TaskNotFound
from ledger.ids import Spelling, TaskId

BATCH_MAX_BYTES = 8 * 2**20
LINES_MAX = 1000
TURN_BYTES = 256 * 1024
"""Of lines that are read before others have their turn: some milliseconds."""
TASKS_AT_ONCE = 256
"""Tasks whose lines are under way together: as many as share a commit."""

_encoder = msgspec.json.Encoder()


class Line(NamedTuple):
    """A line that is no blank: its number, from 1 on, and the report of a task in it, or why there is none."""

    number: int
    named: str | None = None
    """The task, as the line spells it."""
    report: tuple[TaskId, bytes] | None = None
    wrong: Refusal | None = None


async def lines_in(body: bytes) -> list[Line]:
    """The lines of *body*, between which others have their turn.

    Raises:
        Invalid: there are none, or more than `LINES_MAX`, with the blank ones.
    """
    if not body.strip() or body.count(b"\n") > LINES_MAX:
        raise Invalid(f"the body is 1 to {LINES_MAX} lines of JSON")
    lines: list[Line] = []
    left_bytes = TURN_BYTES
    for number, raw in enumerate(body.split(b"\n"), 1):
        if not raw.strip():
            continue
        lines.append(_line(number, raw))
        left_bytes -= len(raw)
        if left_bytes < 0:
            left_bytes = TURN_BYTES
            await asyncio.sleep(0)
    return lines


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


async def report_many(deps: Deps, asked: Asked) -> Answer:
    """Take what is reported in each line; one line of answer for each, in their order."""
    lines = await lines_in(asked.body)
    by_task: defaultdict[TaskId | None, list[Line]] = defaultdict(list)
    for line in lines:
        by_task[line.report and line.report[0]].append(line)
    room = asyncio.Semaphore(TASKS_AT_ONCE)

    async def take(some: Sequence[Line]) -> list[tuple[int, Reported | Exception]]:
        async with room:
            return [(line.number, await _taken(deps, asked, line)) for line in some]

    taken = await asyncio.gather(*(take(some) for some in by_task.values()))
    came_to = dict(one for some in taken for one in some)
    _see_to_faults(deps, asked, [*came_to.values()])
    shown = [{"line": line.number, "task": line.named, **_view(asked, came_to[line.number])} for line in lines]
    return Answer(200, _encoder.encode_lines(shown), "application/x-ndjson")


async def _taken(deps: Deps, asked: Asked, line: Line) -> Reported | Exception:
    """What the line came to, whatever that is."""
    if line.report is None:
        assert line.wrong is not None
        return line.wrong
    task, report = line.report
    try:
        return await take_report(deps, asked._replace(body=report, headers={}), task)
    except Exception as error:  # noqa: BLE001 - told in the line, and seen to below
        return error


def _see_to_faults(deps: Deps, asked: Asked, came_to: Sequence[Reported | Exception]) -> None:
    """Log what was no line's own fault, once; raise it when nothing in the request was anything else."""
    faults = [one for one in came_to if isinstance(one, Exception) and _is_ours(one)]
    if not faults:
        return
    gravest = min(faults, key=lambda one: isinstance(one, Refusal) + isinstance(one, Refusal | StorageError))
    if len(faults) == len(came_to):
        raise gravest
    if isinstance(gravest, StorageError):
        deps.log.warning("store.failed", request_id=asked.request_id, fault=str(gravest))
    elif not isinstance(gravest, Refusal):
        deps.log.error("http.broke", request_id=asked.request_id, exc_info=gravest)


def _is_ours(error: Exception) -> bool:
    return isinstance(error, Overloaded) or not isinstance(error, Refusal)


def _view(asked: Asked, came_to: Reported | Exception) -> dict[str, Any]:
    if isinstance(came_to, Exception):
        return problem_of(_refusal(came_to), asked.request_id)
    outcome, is_repeat = came_to
    task = outcome.task
    return {
        "status": 200,
        "id": Spelling.UUID.spell(task.task_id),
        "task_status": task.status,
        "version": task.version,
        "cursor": position_cursor(asked.log_id, outcome.position),
        "cancel_requested": task.run.cancel_requested_at_us is not None,
        "late": outcome.late,
        "replayed": is_repeat,
    }


def _refusal(error: Exception) -> Refusal:
    """The words in which a line is told of *error*: of faults they say no more than that there was one."""
    if isinstance(error, Refusal):
        return error
    return Unavailable() if isinstance(error, StorageError) else Broken()

"""`task-ledger trace`: one task's life as a timeline."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import typer

from api.contracts import parse_any, spellings
from ledger.errors import DamagedError
from ledger.ids import TaskId
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.task import NO_TASK, Task, evolve
from ledger.times import US_PER_SECOND
from scripts import stores
from scripts.printed import JsonOption, event_json, facts_text, instant, json_line, plain, table

_IN_TITLE = frozenset({"contract", "capability", "model", "resolved_model", "provider"})


def trace(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task id in the spelling of any contract.")],
    *,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Tell a task's life, event by event."""
    task_id = parse_any(task)
    if task_id is None:
        raise typer.BadParameter(f"{task!r} is no task id in any spelling", param_hint="'TASK'")
    log_id, rows = asyncio.run(_history(store, task_id))
    steps = list(_steps(rows))
    if not steps:
        raise typer.BadParameter(f"there is no task {task}", param_hint="'TASK'")
    if as_json:
        for step in steps:
            elapsed = {"elapsed_seconds": step.elapsed_us / US_PER_SECOND, "status": step.after.status}
            json_line(event_json(step.row, log_id) | elapsed)
    else:
        _tell(steps)


class Step(NamedTuple):
    """An event, and the task after it."""

    row: Recorded
    elapsed_us: int
    after: Task


async def _history(store: str, task: TaskId) -> tuple[str, list[Recorded]]:
    async with stores.to_read(store) as engine:
        return engine.log_id, await engine.streams([task])


def _steps(rows: Sequence[Recorded]) -> Iterator[Step]:
    """The task's life, one fold at a time.

    Raises:
        DamagedError: an event cannot be decoded, or cannot follow on those before it.
    """
    task = NO_TASK
    for row in rows:
        try:
            task = evolve(task, row.event)  # type: ignore[arg-type]
        except Exception as error:
            raise DamagedError(f"the event at position {row.position} cannot be read: {error}") from error
        yield Step(row, row.entry.effective_at_us - rows[0].entry.effective_at_us, task)


def _tell(steps: Sequence[Step]) -> None:
    stream, task = TaskId(steps[0].row.stream), steps[-1].after
    print(*(spelling.spell(stream) for spelling in spellings()))
    model = f"{task.model} ({task.resolved_model or task.model}, {task.provider})"
    print(plain(f"{task.capability} by {model} for {task.account}, contract {task.contract}: {task.status}"))
    columns = ("time", "elapsed", "v", "type", "credits", "status", "facts")
    table(columns, map(_row, steps))
    print(f"credits: {_money(task)}")


def _row(step: Step) -> Sequence[str]:
    entry = step.row.entry
    when = (instant(entry.effective_at_us), f"+{step.elapsed_us / US_PER_SECOND:.3f}s")
    amount = "" if entry.amount_micros is None else credits_text(entry.amount_micros)
    return *when, str(step.row.version), entry.type, amount, step.after.status, facts_text(step.row, without=_IN_TITLE)


def _money(task: Task) -> str:
    sums = {
        "held": task.held_micros,
        "charged": task.charged_micros,
        "released": task.released_micros,
        "refunded": task.refunded_micros,
        "net": task.net_micros,
    }
    return ", ".join(f"{name} {credits_text(micros)}" for name, micros in sums.items())


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(trace)

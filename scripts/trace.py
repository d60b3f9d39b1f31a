"""`task-ledger trace`: one task's life as a timeline."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import typer

from ledger.errors import DamagedError
from ledger.ids import Spelling, TaskId, parse_any
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.task import NO_TASK, Task, evolve
from ledger.times import US_PER_SECOND, rfc3339
from scripts import stores
from scripts.printed import JsonOption, console, event_json, facts_text, json_line, plain


def trace(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task id in any of the four spellings.")],
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
    from rich.table import Table  # noqa: PLC0415 - a twentieth of a second that JSON does not need

    first, task = steps[0].row, steps[-1].after
    spelled = "  ".join(spelling.spell(TaskId(first.stream)) for spelling in Spelling)
    out = console()
    out.print(spelled, soft_wrap=True)
    out.print(plain(f"{task.model} for {task.account} ({task.contract}): {task.status}"), soft_wrap=True)
    table = Table("time", "elapsed", "v", "type", "facts", "credits", "status")
    for step in steps:
        entry = step.row.entry
        amount = "" if entry.amount_micros is None else credits_text(entry.amount_micros)
        when = (rfc3339(entry.effective_at_us), f"+{_seconds(step.elapsed_us)}", str(step.row.version))
        table.add_row(*when, plain(entry.type), facts_text(step.row), amount, step.after.status)
    out.print(table)
    out.print(f"credits: {_money(task)}", soft_wrap=True)


def _money(task: Task) -> str:
    sums = {
        "held": task.held_micros,
        "charged": task.charged_micros,
        "released": task.released_micros,
        "refunded": task.refunded_micros,
        "net": task.net_micros,
    }
    return ", ".join(f"{name} {credits_text(micros)}" for name, micros in sums.items())


def _seconds(elapsed_us: int) -> str:
    return f"{elapsed_us / US_PER_SECOND:.3f}s"


if __name__ == "__main__":
    from scripts.cli import main

    main("trace")

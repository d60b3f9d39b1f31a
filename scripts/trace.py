"""`task-ledger trace`: one task's life as a timeline."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from api.contracts import parse_any, spellings
from api.native_shapes import task_view
from ledger.ids import TaskId
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.task import Task
from ledger.times import US_PER_SECOND
from projections.books.books import Clock
from projections.explain.steps import Step, steps_of
from projections.reports.as_of import moment_of
from scripts import stores
from scripts.options import at_option
from scripts.printed import JsonOption, event_json, facts_text, instant, json_line, plain, table

_IN_TITLE = frozenset({"contract", "capability", "model", "resolved_model", "provider"})


def trace(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task id in the spelling of any contract.")],
    *,
    at: Annotated[
        str | None, typer.Option(metavar="POSITION|TIME", help="As it stood there; at the log's end if not told.")
    ] = None,
    clock: Annotated[Clock, typer.Option(help="By which time, if it is one.")] = Clock.RECORDED,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Tell a task's life, event by event, and how each left it."""
    task_id = parse_any(task)
    if task_id is None:
        raise typer.BadParameter(f"{task!r} is no task id in any spelling", param_hint="'TASK'")
    log_id, rows = asyncio.run(_history(store, task_id, {"clock": clock} | ({} if at is None else {"at": at})))
    steps = list(steps_of(task_id, rows))
    if not steps:
        raise typer.BadParameter(f"there is no task {task}{'' if at is None else f' at {at}'}", param_hint="'TASK'")
    if as_json:
        for step in steps:
            state = task_view(step.after, position=step.row.position, log_id=log_id)
            elapsed = {"elapsed_seconds": _elapsed_seconds(step), "status": step.after.status, "state": state}
            json_line(event_json(step.row, log_id) | elapsed)
    else:
        _tell(steps)


async def _history(store: str, task: TaskId, words: dict[str, str]) -> tuple[str, list[Recorded]]:
    async with stores.to_read(store) as engine:
        with at_option():
            moment = await moment_of(engine, words)
        rows = await engine.streams([task])
        return engine.log_id, rows if moment is None else moment.shown(rows)


def _elapsed_seconds(step: Step) -> float:
    """Since the task's creation."""
    return (step.row.entry.effective_at_us - step.after.created_at_us) / US_PER_SECOND


def _tell(steps: Sequence[Step]) -> None:
    stream, task = TaskId(steps[0].row.stream), steps[-1].after
    print(*(spelling.spell(stream) for spelling in spellings()))
    model = f"{task.model} ({task.resolved_model or task.model}, {task.provider})"
    print(plain(f"{task.capability} by {model} for {task.account}, contract {task.contract}: {task.status}"))
    columns = ("time", "elapsed", "v", "type", "credits", "status", "%", "held", "net", "facts")
    table(columns, map(_row, steps))
    print(f"credits: {_money(task)}")


def _row(step: Step) -> Sequence[str]:
    entry = step.row.entry
    when = (instant(entry.effective_at_us), f"+{_elapsed_seconds(step):.3f}s")
    amount = "" if entry.amount_micros is None else credits_text(entry.amount_micros)
    percent = "" if step.after.run.percent is None else str(step.after.run.percent)
    money = credits_text(step.after.held_micros), credits_text(step.after.net_micros)
    state = step.after.status, percent, *money
    return *when, str(step.row.version), entry.type, amount, *state, facts_text(step.row, without=_IN_TITLE)


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

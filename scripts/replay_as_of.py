"""`task-ledger replay --at`: a projection as it stood, folded from the log and kept nowhere."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from api.native_shapes import account_view, task_view
from ledger.engine import Engine
from ledger.ids import Spelling, TaskId
from ledger.money import credits_text
from ledger.records import TaskFilter
from ledger.task import Task
from projections.replay.lines import Projection
from projections.replay.ranges import Until
from projections.replay.replay import sums_then
from projections.replay.task_pages import reading
from projections.reports.as_of import Moment, Stood, moment_of, tasks_as_of
from projections.reports.parameters import wanted_of
from projections.reports.report import Report, draw
from scripts import stores
from scripts.options import at_option
from scripts.printed import json_line, plain, table

PAGE = 200


def show_as_of(store: str, projection: Projection, words: Mapping[str, str], *, workers: int, as_json: bool) -> None:
    """Print the projection as it stood at the moment that *words* name."""
    path = stores.existing(store)
    with at_option():
        match projection:
            case Projection.TASKS:
                asyncio.run(_tasks(store, words, as_json=as_json))
            case Projection.ACCOUNTS:
                _accounts(path, asyncio.run(_moment(store, words)), workers=workers, as_json=as_json)
            case Projection.BOOKS:
                _report(asyncio.run(_books(store, words)), as_json=as_json)


async def _moment(store: str, words: Mapping[str, str]) -> Moment:
    async with stores.to_read(store) as engine:
        moment = await moment_of(engine, words)
        assert moment is not None, "`at` was told"
        return moment


async def _tasks(store: str, words: Mapping[str, str], *, as_json: bool) -> None:
    async with stores.to_read(store) as engine:
        async for one in _all_as_of(engine, await _moment(store, words)):
            if as_json:
                json_line(task_view(one.task, position=one.position, log_id=engine.log_id))
            else:
                print(plain(_line(one.task)))


def _line(task: Task) -> str:
    figures = {"held": task.held_micros, "charged": task.charged_micros, "net": task.net_micros}
    money = " ".join(f"{name} {credits_text(micros)}" for name, micros in figures.items())
    return f"{Spelling.UUID.spell(task.task_id)} v{task.version} {task.account} {task.model} {task.status} {money}"


async def _all_as_of(engine: Engine, moment: Moment) -> AsyncIterator[Stood]:
    beyond: TaskId | None = None
    while True:
        page, beyond = await tasks_as_of(engine, TaskFilter(after=beyond, oldest_first=True, limit=PAGE), moment)
        for one in page:
            yield one
        if beyond is None:
            return


def _accounts(path: Path, moment: Moment, *, workers: int, as_json: bool) -> None:
    with reading(path) as db:
        rows = sums_then(db, path, Until(moment.place.position, moment.until_us), workers=workers)
    views = [account_view(row) for row in rows.values()]
    if as_json:
        for view in views:
            json_line(view)
        return
    names = ("account", "limit_credits", "granted_credits", "held_credits", "charged_credits", "refunded_credits")
    table(
        names, [[str(view[name] if view[name] is not None else "") for name in names] for view in views], right_from=1
    )


async def _books(store: str, words: Mapping[str, str]) -> Report:
    async with stores.with_books(store) as (engine, books):
        return await draw(engine, books, wanted_of(words))


def _report(report: Report, *, as_json: bool) -> None:
    if as_json:
        json_line(report)
        return
    for line in (*report.lines, report.total):
        print(plain(" ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(line).items())))

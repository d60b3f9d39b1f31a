"""`task-ledger replay --what-if`: who would pay more or less under another catalogue."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import msgspec
import typer

from ledger.catalogue import DEFAULT, Catalogue, read
from ledger.errors import DamagedError
from ledger.events import TaskEvent
from ledger.ids import Spelling, TaskId
from ledger.money import credits_text, mixed_text
from ledger.records import Recorded, TaskFilter
from projections.follow import Progress
from projections.replay.what_if import Cost, Rates, what_if
from scripts import stores
from scripts.printed import json_line, plain
from scripts.progress import bar

PAGE = 200
BYTES_MAX = 8 * 2**20


class TaskLine(msgspec.Struct, frozen=True, kw_only=True):
    """A task that would cost something else; what is held still counts."""

    task: str
    account: str
    model: str
    status: str
    cost_credits: str
    would_cost_credits: str
    more_credits: str


class AccountLine(msgspec.Struct, frozen=True, kw_only=True):
    """An account that would pay something else in all, or whose tasks would."""

    account: str
    tasks: int
    more_credits: str


def show_what_if(store: str, other: Path, against: Path | None, *, as_json: bool) -> None:
    """Print each task and each account that would pay more or less, and what it comes to."""
    rates = Rates(_catalogue(against or DEFAULT, "--against"), _catalogue(other, "--what-if"))
    with bar("what if") as move:
        asyncio.run(_tell(store, rates, move, as_json=as_json))


def _catalogue(path: Path, option: str) -> Catalogue:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        what = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(what, param_hint=f"'{option}'") from None


async def _tell(store: str, rates: Rates, move: Progress, *, as_json: bool) -> None:
    more, differing, remainder = Counter[str](), Counter[str](), Fraction()
    async with aclosing(_costs(store, rates, move)) as costs:  # the store is closed here, also if printing fails
        async for cost in costs:
            remainder += cost.remainder
            if cost.more_micros:
                more[cost.was.account] += cost.more_micros
                differing[cost.was.account] += 1
                _print(_line(cost), as_json=as_json)
    for account in sorted(more):
        line = AccountLine(account=account, tasks=differing[account], more_credits=credits_text(more[account]))
        _print(line, as_json=as_json)
    if as_json:
        told = {"differing_tasks": differing.total(), "more_credits": credits_text(more.total())}
        json_line(told | {"remainder_micros": mixed_text(remainder)})
    elif more:
        print(f"{differing.total()} tasks of {len(more)} accounts: {credits_text(more.total())} credits more in all")
    else:
        print("no difference: nobody would pay more or less")
    if remainder and not as_json:
        print(f"amounts are rounded to the nearest micro-credit: remainder {mixed_text(remainder)} of one in all")


async def _costs(store: str, rates: Rates, move: Progress) -> AsyncGenerator[Cost, None]:
    """What every task came to and would come to, in the order of their creation."""
    async with stores.to_read(store) as engine:
        end, done = (await engine.head()).position, 0
        where = TaskFilter(oldest_first=True, limit=PAGE, bytes_max=BYTES_MAX)
        while page := await engine.page(where):
            ids = [placed.row.task_id for placed in page]
            for stream, rows in groupby(await engine.streams(ids), key=lambda row: row.stream):
                life = [*rows]
                done += len(life)
                yield what_if(TaskId(stream), _events(life), rates)
            move(min(done, end), end)
            where = msgspec.structs.replace(where, after=ids[-1])


def _events(rows: list[Recorded]) -> list[TaskEvent]:
    try:
        return [row.event for row in rows]  # type: ignore[misc]  # a task's stream holds no others
    except msgspec.ValidationError as error:
        raise DamagedError(f"an event of the task of position {rows[0].position} cannot be read: {error}") from error


def _line(cost: Cost) -> TaskLine:
    was, would, _ = cost
    return TaskLine(
        task=Spelling.UUID.spell(was.task_id),
        account=was.account,
        model=was.model,
        status=was.status,
        cost_credits=credits_text(was.net_micros + was.held_micros),
        would_cost_credits=credits_text(would.net_micros + would.held_micros),
        more_credits=credits_text(cost.more_micros),
    )


def _print(line: TaskLine | AccountLine, *, as_json: bool) -> None:
    if as_json:
        json_line(line)
    else:
        print(plain(" ".join(str(value) for value in msgspec.structs.astuple(line))))

"""`task-ledger replay`: what is folded from the log, folded anew beside a running server, compared, and switched."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from projections.books.books import Clock
from projections.follow import Progress
from projections.replay.books import (
    Switch,
    Taken,
    back_of,
    differences,
    drop,
    follow_anew,
    green_of,
    keeping_of,
    settle_books,
    switch_books,
)
from projections.replay.file import ReplayFile, alone, open_replay, replay_of
from projections.replay.lines import Line, Projection, account_lines, task_lines
from projections.replay.ranges import key_of
from projections.replay.replay import Compared, catch_up, compared, replay_tasks
from projections.replay.stored_differences import opened
from projections.replay.switch import Switched, switch, switch_back
from projections.replay.task_pages import reading, snapshot
from projections.replay.workers import workers_here
from scripts import stores
from scripts.options import BY, now_us
from scripts.printed import JsonOption, json_line, plain
from scripts.progress import bar


def replay(
    *,
    projection: Annotated[Projection | None, typer.Option(help="Only this one; all if not told.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare only; exit 1: something differs.")] = False,
    at: Annotated[
        str | None, typer.Option(metavar="POSITION|TIME", help="Change nothing, and show it as it stood there.")
    ] = None,
    clock: Annotated[Clock, typer.Option(help="By which time, if it is one.")] = Clock.RECORDED,
    back: Annotated[bool, typer.Option("--back", help="Put back what the last switch replaced.")] = False,
    what_if: Annotated[
        Path | None,
        typer.Option(
            "--what-if", metavar="CATALOGUE", help="Change nothing; tell who would pay more or less under it."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="CATALOGUE", help="What tasks were priced by; the default one if not told.")
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Fold projections anew beside the live ones, tell what differs, and switch."""
    if sum((verify, back, at is not None, what_if is not None)) > 1:
        raise typer.BadParameter("is one of --verify, --back, --at and --what-if", param_hint="'replay'")
    if what_if is not None:
        from scripts.replay_what_if import show_what_if  # noqa: PLC0415 - only then

        show_what_if(store, what_if, against, as_json=as_json)
        return
    if at is not None:
        from scripts.replay_as_of import show_as_of  # noqa: PLC0415 - all contracts, for how tasks are shown

        words = {"at": at, "clock": clock}
        show_as_of(store, projection or Projection.TASKS, words, workers=workers_here(), as_json=as_json)
        return
    wanted = _Wanted(stores.existing(store), tuple(Projection) if projection is None else (projection,), as_json)
    with alone(replay_of(wanted.path)):
        if back:
            _put_back(store, wanted)
        elif not _replayed(store, wanted, verify=verify):
            raise typer.Exit(1)


class _Wanted(NamedTuple):
    path: Path
    projections: Sequence[Projection]
    as_json: bool

    @property
    def in_ledger(self) -> list[Projection]:
        """Of the projections, those in the ledger's own file."""
        return [one for one in self.projections if one is not Projection.BOOKS]


def _put_back(store: str, wanted: _Wanted) -> None:
    if wanted.in_ledger:
        _tell_switched(_back(wanted), nothing="nothing to put back", as_json=wanted.as_json)
    if Projection.BOOKS in wanted.projections:
        _tell_books(asyncio.run(_books_back(store, wanted)), wanted, nothing="nothing to put back")


def _replayed(store: str, wanted: _Wanted, *, verify: bool) -> bool:
    """Whether there is nothing to be complained of."""
    fine = True
    if wanted.in_ledger:
        fine = _replayed_tasks(wanted, verify=verify)
    if Projection.BOOKS in wanted.projections:
        with bar("books") as move:
            lines, done = asyncio.run(_replayed_books(store, wanted, move, verify=verify))
        _tell_lines(wanted, iter(lines))
        _tell_books(done, wanted, nothing="nothing was switched" if lines else "no difference")
        fine = fine and not (verify and lines)
    return fine


async def _replayed_books(
    store: str, wanted: _Wanted, move: Progress, *, verify: bool
) -> tuple[list[Line], Taken | None]:
    """What differs, and what was switched."""
    books = stores.books_path(wanted.path)
    green = green_of(books)
    async with stores.with_books(store) as (engine, live):
        taken = None if verify else await settle_books(engine, books)
        await follow_anew(engine, live, green, progress=move)
        lines = await differences(engine, books, green)
        if lines and not verify:
            what = Switch(wanted.path, books, green, len({line.row for line in lines}))
            return lines, await switch_books(engine, what, by=BY, at_us=now_us())
    if not keeping_of(books).exists():  # to be ended by who may
        drop(green)
    return lines, taken


async def _books_back(store: str, wanted: _Wanted) -> Taken | None:
    books = stores.books_path(wanted.path)
    async with stores.with_books(store) as (engine, live):
        taken = await settle_books(engine, books)
        if (taken is not None and taken.back) or not back_of(books).exists():
            return taken
        await follow_anew(engine, live, back_of(books))
        lines = await differences(engine, books, back_of(books))
        what = Switch(wanted.path, books, back_of(books), len({line.row for line in lines}), back=True)
        return await switch_books(engine, what, by=BY, at_us=now_us())


def _tell_books(done: Taken | None, wanted: _Wanted, *, nothing: str) -> None:
    rows, position = (0, None) if done is None else (done.replaced, done.position)
    if wanted.as_json:
        json_line({"books_rows": rows, "position": position})
    elif position is not None:
        print(f"switched {rows} rows of the books at position {position}")
    else:
        print(f"books: {nothing}")


def _replayed_tasks(wanted: _Wanted, *, verify: bool) -> bool:
    with open_replay(replay_of(wanted.path)) as file, reading(wanted.path) as db:
        with bar("replay") as move:
            replay_tasks(db, wanted.path, file, workers=workers_here(), progress=move)
        with snapshot(db):
            catch_up(db, file)  # so that accounts are compared as of the moment to which they are added up
            found = compared(db, file)
            count = _tell_lines(wanted, _lines(db, file, found, wanted.in_ledger))
        _tell_compared(found, wanted, changes=count)
        if verify:
            file.end()
            return count == 0
        done = switch(wanted.path, file, wanted.in_ledger, by=BY, at_us=now_us())
        _tell_switched(done, nothing="nothing was switched", as_json=wanted.as_json)
        return done.left == 0


def _back(wanted: _Wanted) -> Switched:
    with open_replay(replay_of(wanted.path)) as file:
        return switch_back(wanted.path, file, by=BY, at_us=now_us())


def _lines(
    db: sqlite3.Connection, file: ReplayFile, found: Compared, projections: Sequence[Projection]
) -> Iterator[Line]:
    """What would change, accounts first: those are figures all over."""
    if Projection.ACCOUNTS in projections:
        yield from account_lines(found.accounts)
    if Projection.TASKS in projections:
        for page in file.differing():
            for task, row in page:
                yield from task_lines(opened(task, row, key_of(db, task)))


def _tell_lines(wanted: _Wanted, lines: Iterator[Line]) -> int:
    """Print what would change, as it comes; how many lines that were."""
    count = 0
    for line in lines:
        count += 1
        if wanted.as_json:
            json_line(line)
        else:
            print(plain(f"{line.projection} {line.row} {line.field}: {line.live} -> {line.replayed}"))
    return count


def _tell_compared(found: Compared, wanted: _Wanted, *, changes: int) -> None:
    if wanted.as_json:
        json_line(
            {
                "position": found.position,
                "head": found.head,
                "tasks": found.tasks,
                "events": found.events,
                "differing_tasks": found.differing_tasks,
                "differing_accounts": len(found.accounts),
                "unreadable_tasks": found.unreadable_tasks,
            }
        )
        return
    rows = f"{found.events} events of {found.tasks} tasks up to position {found.position}"
    if not changes:
        print(f"no difference: {rows}")
    else:
        print(f"{found.differing_tasks} tasks and {len(found.accounts)} accounts differ: {rows}")
    if found.unreadable_tasks:
        print(f"{found.unreadable_tasks} tasks cannot be folded, so no account was compared: see `task-ledger verify`")


def _tell_switched(done: Switched, *, nothing: str, as_json: bool) -> None:
    if as_json:
        json_line(done)
    elif done.position is None:
        print(nothing)
    else:
        print(
            f"switched {done.tasks} tasks and {done.accounts} accounts at position {done.position}, "
            f"in {done.took_ms} ms; {done.left} left as they are"
        )


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(replay)

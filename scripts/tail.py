"""`task-ledger tail`: the log, a line an event, each with the cursor from which to go on after it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, NamedTuple

import typer

from ledger.cursors import position_cursor, position_of
from ledger.engine import Engine
from ledger.events import TYPES
from ledger.lineage import earlier
from ledger.money import credits_text
from ledger.records import Recorded
from scripts import stores
from scripts.printed import JsonOption, event_json, facts_text, instant, json_line, plain, task_of

PAGE = 512
POLL_SECONDS = 0.2
"""After so long it is looked anyway: whoever appends is as a rule another process, which wakes nobody here."""


def tail(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is appended, until Ctrl-C.")] = False,
    cursor: Annotated[
        str | None, typer.Option("--from", metavar="CURSOR", help="Begin after this cursor; else at the beginning.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=0, metavar="N", help="Begin with the last N that fit.")] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="T", help="Only events of this type.")] = None,
    account: Annotated[str | None, typer.Option(metavar="A", help="Only this account's.")] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Print the log, oldest first."""
    if kind is not None and kind not in TYPES:
        raise typer.BadParameter(f"no event has this type; there are {', '.join(sorted(TYPES))}", param_hint="'--type'")
    wanted = _Wanted(kind, account)
    asyncio.run(_tail(store, wanted, cursor=cursor, last=last, follow=follow, as_json=as_json))


class _Wanted(NamedTuple):
    """Which events are printed."""

    kind: str | None
    account: str | None

    def fits(self, row: Recorded) -> bool:
        return self.kind in (None, row.entry.type) and self.account in (None, row.account)

    @property
    def everything(self) -> bool:
        return self == (None, None)


async def _tail(
    store: str, wanted: _Wanted, *, cursor: str | None, last: int | None, follow: bool, as_json: bool
) -> None:
    async with stores.to_read(store) as engine:
        head = (await engine.head()).position
        position = _start(engine, cursor, head=head)
        if last is not None and wanted.everything:
            position = max(position, head - last)
        elif last is not None:
            kept: deque[Recorded] = deque(maxlen=last)
            async for rows in _pages(engine, position, until=head):
                kept += filter(wanted.fits, rows)
            _print(kept, engine.log_id, as_json=as_json)
            position = head
        async for rows in _pages(engine, position, until=None if follow else head):
            _print(filter(wanted.fits, rows), engine.log_id, as_json=as_json)


def _start(engine: Engine, cursor: str | None, *, head: int) -> int:
    """The position after which to begin.

    Raises:
        typer.BadParameter: the cursor is not of this log, as one from beyond a restore is none, or lies beyond its end.
    """
    if cursor is None:
        return 0
    position = position_of(engine.log_id, cursor, earlier=earlier(engine.lineage))
    if position is None:
        raise typer.BadParameter("this is no cursor of this log", param_hint="'--from'")
    if position > head:
        raise typer.BadParameter(f"the log ends at {head}, the cursor lies at {position}", param_hint="'--from'")
    return position


async def _pages(engine: Engine, position: int, *, until: int | None) -> AsyncIterator[list[Recorded]]:
    """The log beyond *position*, page by page, up to *until*; None: and as it grows, for ever."""
    while until is None or position < until:
        rows = await engine.after(position, PAGE if until is None else min(PAGE, until - position))
        if rows:
            yield rows
            position = rows[-1].position
        elif until is None:
            await engine.end.beyond(max(position, engine.end.position), seconds=POLL_SECONDS)
        else:
            return


def _print(rows: Iterable[Recorded], log_id: str, *, as_json: bool) -> None:
    for row in rows:
        if as_json:
            json_line(event_json(row, log_id))
        else:
            print(_line(row, log_id))
    print(end="", flush=True)


def _line(row: Recorded, log_id: str) -> str:
    entry = row.entry
    amount = "" if entry.amount_micros is None else credits_text(entry.amount_micros)
    whose = task_of(row) or ("account" if row.account else "books")
    what = f"{plain(entry.type):<18} {whose:<36} v{row.version:<3} {plain(row.account)}"
    told = filter(None, (amount, facts_text(row)))
    return " ".join((instant(entry.recorded_at_us), what, *told, position_cursor(log_id, row.position)))


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(tail)

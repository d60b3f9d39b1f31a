"""`task-ledger breaks`: what differs, listed, explained and corrected. Works on the store of a running ledger too."""

import asyncio
from collections.abc import Callable
from typing import Annotated

import typer

from ledger.break_log import BreakLog
from ledger.breaks import Break, CorrectBreak, ExplainBreak, Life
from ledger.events import BreakKind
from ledger.money import credits_text
from ledger.times import rfc3339
from projections.books.break_rows import Wanted, all_breaks
from projections.follow import catch_up
from projections.reconciliation.break_shapes import break_view
from scripts import stores
from scripts.options import BY, now_us
from scripts.printed import JsonOption, json_line, table

REASON_MAX_CHARS = 500

app = typer.Typer(name="breaks", help="List, explain and resolve breaks.", add_completion=False)


def _reason(text: str) -> str:
    if not 1 <= len(text) <= REASON_MAX_CHARS or not text.isprintable():
        raise typer.BadParameter(f"must be 1 to {REASON_MAX_CHARS} printable characters")
    return text


BreakId = Annotated[str, typer.Argument(metavar="ID", help="The break, as `breaks list` shows it.")]
Reason = Annotated[str, typer.Option(metavar="R", help="Why.", callback=_reason)]


@app.command("list")
def list_(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Explained and corrected ones too.")] = False,
    kind: Annotated[BreakKind | None, typer.Option(metavar="K", help="Only of this kind.", show_default=False)] = None,
    provider: Annotated[str | None, typer.Option(metavar="P", help="Only of this provider.")] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the breaks that are open; exit 0 whatever there is."""
    listed_us = now_us()
    wanted = Wanted(life=None if everything else Life.OPEN, kind=kind, provider=provider)
    rows: list[Break] = []
    tell: Callable[[Break], None] = rows.append
    if as_json:
        tell = lambda known: json_line(break_view(known, now_us=listed_us))  # noqa: E731 - one of two ways to tell
    asyncio.run(_list(store, wanted, tell))
    if not as_json:
        table(
            ("break", "kind", "provider", "life", "at stake", "since", "owner", "detail"),
            map(_row, sorted(rows, key=lambda known: (known.found.kind, known.found.since_us))),
        )


@app.command()
def explain(
    break_id: BreakId,
    *,
    reason: Reason,
    owner: Annotated[str | None, typer.Option(metavar="O", help="Whose it is from now on.")] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Say why a break is there, where nothing needs to be put right."""
    at_us = now_us()
    command = ExplainBreak(at_us=at_us, break_id=break_id, reason=reason, owner=owner)
    _show(asyncio.run(_carried_out(store, command)), at_us, as_json=as_json)


@app.command()
def resolve(
    break_id: BreakId,
    *,
    reason: Reason,
    event: Annotated[
        int | None, typer.Option(min=1, metavar="POSITION", help="Where in the log it was put right.")
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Say that a break has been put right, for good."""
    at_us = now_us()
    command = CorrectBreak(at_us=at_us, break_id=break_id, reason=reason, position=event)
    _show(asyncio.run(_carried_out(store, command)), at_us, as_json=as_json)


async def _list(store: str, wanted: Wanted, tell: Callable[[Break], None]) -> None:
    async with stores.with_books(store) as (engine, books):
        await catch_up(engine, books)
        async for page in all_breaks(books, wanted):
            for known in page:
                tell(known)


async def _carried_out(store: str, command: ExplainBreak | CorrectBreak) -> Break:
    async with stores.beside(store, make=False) as engine:
        if isinstance(command, CorrectBreak) and command.position is not None:
            end = (await engine.head()).position
            if command.position > end:
                raise typer.BadParameter(f"the log ends at position {end}", param_hint="'--event'")
        log = BreakLog(engine)
        return await (log.explain(command, by=BY) if isinstance(command, ExplainBreak) else log.correct(command, by=BY))


def _show(known: Break, shown_us: int, *, as_json: bool) -> None:
    if as_json:
        json_line(break_view(known, now_us=shown_us))
    else:
        print(f"{known.life} {known.break_id}: {known.reason}")


def _row(known: Break) -> tuple[str, ...]:
    found = known.found
    at_stake, since = credits_text(found.at_stake_micros), rfc3339(found.since_us)
    return known.break_id, found.kind, found.provider, known.life, at_stake, since, known.owner or "", found.detail


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)

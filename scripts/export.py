"""`task-ledger export`: the log as lines of JSON, for another store or another system; also beside a running service.

All of it is of one moment. A file that was cut short lacks its last line.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import typer

from ledger.chain import GENESIS
from ledger.cursors import position_of
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.lineage import earlier
from projections.follow import Progress
from projections.places import NoSuchPlaceError, Place, place_of
from projections.transfer.log_lines import FORMAT, FORMATS, EndLine, Format, Line, LogLine, claim_line, event_line
from projections.transfer.store_digest import digest_of
from scripts import stores
from scripts.progress import bar

PAGE = 1000


def export(
    *,
    how: Annotated[Format, typer.Option("--format", help="As plain lines, or each in a CloudEvent.")] = Format.JSONL,
    cursor: Annotated[
        str | None, typer.Option("--from", metavar="CURSOR", help="Begin after this cursor; else at the beginning.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="End there; else at the end.", show_default=False)
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
) -> None:
    """Print the log as JSON lines, with all that an import needs: keep it as secret as the store."""
    asyncio.run(_export(store, how, cursor=cursor, until=until))


async def _export(store: str, how: Format, *, cursor: str | None, until: int | None) -> None:
    shape, encode, out = FORMATS[how], msgspec.json.Encoder().encode, sys.stdout.buffer
    async with stores.to_read(store) as engine, engine.snapshot():
        after, end = await _bounds(engine, cursor, until)
        with bar("export") as move:
            async for line in lines(engine, after=after, until=end, progress=move):
                out.write(encode(shape(line, engine.log_id)) + b"\n")
    out.flush()


async def _bounds(engine: Engine, cursor: str | None, until: int | None) -> tuple[Place, Place]:
    """The places after which to begin and where to end.

    Raises:
        typer.BadParameter: the cursor is none of this log, or one of them lies beyond its end.
    """
    begin = 0 if cursor is None else position_of(engine.log_id, cursor, earlier=earlier(engine.lineage))
    if begin is None:
        raise typer.BadParameter("this is no cursor of this log", param_hint="'--from'")
    try:
        after = await place_of(engine, str(begin))
        end = await place_of(engine, None if until is None else str(until))
    except NoSuchPlaceError as error:
        raise typer.BadParameter(str(error)) from error
    if end.position < after.position:
        raise typer.BadParameter(f"the cursor lies at {after.position}, beyond {end.position}", param_hint="'--from'")
    return after, end


async def lines(engine: Engine, *, after: Place, until: Place, progress: Progress) -> AsyncIterator[Line]:
    """The log beyond *after*, up to *until*, with what lies around it; all that is read is of one moment."""
    yield LogLine(
        format=FORMAT,
        log_id=engine.log_id,
        lineage=engine.lineage,
        pepper=engine.pepper,
        after=after.position,
        hash=_hash(after),
    )
    position, claims = after.position, 0
    while position < until.position:
        rows = await engine.after(position, min(PAGE, until.position - position))
        if not rows or rows[-1].position != position + len(rows):
            raise DamagedError(f"the log has a hole after position {position}: run `task-ledger verify`")
        for row in rows:
            yield event_line(row)
        position = rows[-1].position
        progress(position - after.position, until.position - after.position)
    claimed = await engine.claims_after(None, PAGE)
    while claimed:
        for claim in claimed:
            yield claim_line(claim)
        claims += len(claimed)
        claimed = await engine.claims_after(claimed[-1].id, PAGE)
    is_whole = until.position == (await engine.head()).position
    yield EndLine(
        events=until.position - after.position,
        claims=claims,
        position=until.position,
        hash=_hash(until),
        proof=await digest_of(engine) if is_whole else None,
    )


def _hash(place: Place) -> str:
    return (place.hash if place.position else GENESIS).hex()


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(export)

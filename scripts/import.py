"""`task-ledger import`: an export, as a store to be served.

Every event is held against its hash as it is read, and written anew by the store's own rules, which give it its place
and its hash. Where those come out as they were, the log is the same under another name, and cursors from before are
good in it. Where they cannot (another engine has other lanes, an older log has times that ran backwards), the log has
been placed and chained anew. Either way every row is folded anew, the proof of the export, if it has one, must be the
proof of the store, the store must be clean, and it remembers whose log it was and the hash at that one's end.
"""

import asyncio
import os
import secrets
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from ledger.chain import GENESIS, Place, link
from ledger.errors import DamagedError
from ledger.ids import Spelling
from ledger.lineage import Ancestor, descended
from ledger.records import ClaimId, ClaimRow, Recorded
from ledger.sqlite import open_to_serve
from ledger.sqlite_copies import begin_epoch, publish
from ledger.sqlite_scratch import scratch
from projections.audit.findings import Report
from projections.audit.lineage import misfits, told
from projections.audit.quick_check import Means, verify
from projections.follow import Progress
from projections.log_lines import FORMAT, ClaimLine, EndLine, EventLine, Line, LogLine, claim_row, decode, recorded
from projections.refill import Refill
from projections.replay.workers import workers_here
from projections.store_digest import digest_of
from scripts import stores
from scripts.printed import JsonOption, json_line
from scripts.progress import bar
from scripts.restore import NEW_ID_BYTES, alone_at, reading
from scripts.verify import tell

PAGE = 1000
LINE_MAX_BYTES = 32 * 2**20

app = typer.Typer(name="import", add_completion=False)


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import came to. Without *imported* there is no store."""

    imported: bool
    log_id: str | None
    """The log's new name."""
    position: int
    head: str
    from_log_id: str
    from_head: str
    """The hash at the end of the log that was exported."""
    same: bool
    """Whether every event has the place and the hash that it had."""
    proven: bool | None
    """Whether views and totals are those of the exported store; None: the export does not say, it ends before that."""
    claims: int
    seconds: float
    report: Report


class BadExport(Exception):
    """The file is not what an export has written."""


@app.command("import")
def import_log(
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", help="An export; - for standard input.")],
    *,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Check an export and make a store of it, where there is none; exit 1: it is not what was exported."""
    target = stores.path_of(store)
    try:
        done = asyncio.run(_import(file, target))
    except BadExport as bad:
        print(f"task-ledger: {bad}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        json_line(done)
    elif done.imported:
        how = "the same positions and hashes" if done.same else "placed and chained anew"
        print(f"{target}: imported up to position {done.position}, head {done.head}, {how}")
    else:
        tell(done.report)
        if done.proven is False:
            print("views or totals are not those of the exported store")
    if not done.imported:
        raise typer.Exit(1)


async def _import(file: BinaryIO, target: Path) -> Imported:
    """Make *target* a store of the export.

    Raises:
        CannotRestore, CannotOpenError: as `scripts.restore.restore_to`.
        BadExport: the file is not what an export has written.
        StorageError: there is no room.
    """
    began_at = time.perf_counter()
    with alone_at(target), scratch(target) as written, bar("import") as move:
        source = _Source(file, move)
        claims = await _fill(source, written)
        async with reading(written) as engine:
            report = await verify(engine, written, Means(workers_here()), progress=move)
            proven = None if source.end.proof is None else source.end.proof == await digest_of(engine)
            same = report.head == source.end.hash
            lineage = source.lineage(same=same)
            for one in await misfits(engine, lineage):
                raise BadExport(told(one))
        new_id = None
        if not report.found and proven is not False:
            new_id = secrets.token_hex(NEW_ID_BYTES)
            begin_epoch(written, log_id=new_id, lineage=lineage, pepper=source.log.pepper)
            publish(written, target)
    return Imported(
        imported=new_id is not None,
        log_id=new_id,
        position=report.position,
        head=report.head,
        from_log_id=source.log.log_id,
        from_head=source.end.hash,
        same=same,
        proven=proven,
        claims=claims,
        seconds=round(time.perf_counter() - began_at, 3),
        report=report,
    )


async def _fill(source: "_Source", written: Path) -> int:
    """Write all that the export has; how many claims that were."""
    store = await open_to_serve(written)
    try:
        refill, claims = Refill(store), 0
        for page in source.pages():
            if isinstance(page[0], Recorded):
                await refill.events(page)
            else:
                claims += await refill.claims(page)
        if refill.keyless and source.end.proof is None:
            named = Spelling.UUID.spell(min(refill.keyless))
            raise BadExport(
                f"the export ends at {source.end.position}, before the content of task {named} was erased, and has no "
                "key of it: export up to its deletion, or all of the log"
            )
    except DamagedError as error:
        raise BadExport(str(error)) from error
    finally:
        await store.close()
    return claims


class _Source:
    """An export while it is read, line by line."""

    log: LogLine
    end: EndLine

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._size = os.fstat(file.fileno()).st_size if file.seekable() else 0
        self._number = self._events = self._claims = 0
        self._hashes: dict[int, bytes] = defaultdict(lambda: GENESIS)
        self._positions: dict[int, int] = defaultdict(int)
        self._claimed: ClaimId | None = None

    def lineage(self, *, same: bool) -> tuple[Ancestor, ...]:
        """Whose log it was; where it has other positions now, none of them is shared."""
        if same:
            return descended(self.log.lineage, log_id=self.log.log_id, position=self.end.position, end=self.end.hash)
        return (Ancestor(log_id=self.log.log_id, position=0, hash=self.end.hash),)

    def pages(self) -> Iterator[list[Recorded] | list[ClaimRow]]:
        """The events and then the claims, in pages; at the end they have been found whole."""
        events: list[Recorded] = []
        claims: list[ClaimRow] = []
        for line in self._lines():
            match line:
                case EventLine():
                    events.append(self._event(line))
                case ClaimLine():
                    claims.append(self._claim(line))
                case _:
                    raise self._bad("a log begins in the middle of another")
            if len(events) >= PAGE or (events and claims):
                yield events
                events = []
            if len(claims) >= PAGE:
                yield claims
                claims = []
        if events:
            yield events
        if claims:
            yield claims

    def _lines(self) -> Iterator[Line]:
        first = self._line()
        if not isinstance(first, LogLine):
            raise self._bad("no export of a log begins so")
        if first.format != FORMAT:
            raise self._bad(f"an export of format {first.format}, this program reads {FORMAT}")
        if first.after:
            raise self._bad(f"an export that begins after position {first.after}: an import needs all of the log")
        self.log = first
        while (line := self._line()) is not None:
            if isinstance(line, EndLine):
                self._ended(line)
                if self._file.read(1):
                    raise self._bad("the export ends here, and the file goes on")
                return
            yield line
        raise self._bad("the file was cut short: the line that ends an export is not there")

    def _line(self) -> Line | None:
        text = self._file.readline(LINE_MAX_BYTES)
        if not text:
            return None
        self._number += 1
        if self._size and self._number % PAGE == 0:
            self._progress(self._file.tell(), self._size)
        try:
            return decode(text)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error

    def _event(self, line: EventLine) -> Recorded:
        """The event, which is the next one of its lane and has the hash that its bytes give."""
        if self._claimed is not None:
            raise self._bad("an event follows the claims, which are of all events")
        try:
            row = recorded(line)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error
        self._events += 1
        if row.position != self._positions[row.lane] + 1:
            raise self._bad(f"position {row.position} follows {self._positions[row.lane]}")
        place = Place(row.lane, row.position, row.stream, row.version, row.account)
        try:
            wanted = link(self._hashes[row.lane], place, row.entry)
        except (struct.error, OverflowError) as error:
            raise self._bad(f"cannot be read: {error}") from error
        if wanted != row.hash:
            raise self._bad(f"the event at position {row.position} is not what was written: it has another hash")
        self._hashes[row.lane], self._positions[row.lane] = row.hash, row.position
        return row

    def _claim(self, line: ClaimLine) -> ClaimRow:
        """The claim, which comes after the one before by its id: so that each is there once."""
        self._claims += 1
        try:
            row = claim_row(line)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error
        if self._claimed is not None and row.id <= self._claimed:
            raise self._bad("a claim stands before the one before it, or a second time")
        self._claimed = row.id
        return row

    def _ended(self, line: EndLine) -> None:
        if (line.events, line.claims) != (self._events, self._claims):
            raise self._bad(
                f"{line.events} events and {line.claims} claims told, {self._events} and {self._claims} seen"
            )
        if line.events and line.hash not in {one.hex() for one in self._hashes.values()}:
            raise self._bad("the log ends with another event than was exported")
        self.end = line

    def _bad(self, what: str) -> BadExport:
        return BadExport(f"line {self._number}: {what}")


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)

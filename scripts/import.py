"""`task-ledger import`: an export, as a store to be served.

Every event is held against its hash as it is read, and written anew by the store's own rules, which give it its place
and its hash. Where those come out as they were, the log is the same under another name, and cursors from before are
good in it. Where they cannot (another engine has other lanes, an older log has times that ran backwards), the log has
been placed and chained anew. Either way every row is folded anew, the proof of the export, if it has one, must be the
proof of the store, the store must be clean, and it remembers whose log it was and the hash at that one's end.

An export that ends before an erasure lacks the key of what was erased later, and is refused. A restore deletes such
tasks once more, for it has the event before it that erased them: who did it, and when. Here there is no more than a key
that is not there, which may just as well have been taken out of the file: to delete for that would make an erasure, at
a time of our own, of what nobody erased, and a log that is not the one that was exported.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from ledger.errors import DamagedError
from ledger.ids import Spelling
from ledger.records import Recorded
from ledger.sqlite import open_to_serve
from ledger.sqlite_copies import begin_epoch, publish
from ledger.sqlite_scratch import scratch
from projections.audit.findings import Report
from projections.audit.lineage import misfits, told
from projections.audit.quick_check import Means, verify
from projections.follow import Progress
from projections.replay.workers import workers_here
from projections.transfer.log_source import PAGE, BadExport, Export
from projections.transfer.refill import Refill
from projections.transfer.store_digest import digest_of
from scripts import stores
from scripts.printed import JsonOption, json_line
from scripts.progress import bar
from scripts.restore import NEW_ID_BYTES, alone_at, reading
from scripts.verify import tell

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
        source = Export(_texts(file, move))
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


def _texts(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    """The lines of the file, none longer than `LINE_MAX_BYTES`: what is, comes in pieces that are no lines."""
    size = os.fstat(file.fileno()).st_size if file.seekable() else 0
    for number in count(1):
        text = file.readline(LINE_MAX_BYTES)
        if not text:
            return
        if size and number % PAGE == 0:
            progress(file.tell(), size)
        yield text


async def _fill(source: Export, written: Path) -> int:
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


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)

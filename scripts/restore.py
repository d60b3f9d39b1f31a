"""`task-ledger restore`: a backup, verified, as a store to be served, up to its end or to a position before that.

The source is only read. It is copied, the copy is brought to this version's schema and verified, and only what is found
clean gets the target's name. So a store that is there was verified, and one that is not clean is never there.

The restored log has a new name (`ledger.lineage`): cursors from before are good up to where it was cut.

A position to stop at is reached by writing the log anew up to there into an empty store, with every row folded on the
way, and not by deleting: the log's own guards hold even here. What was erased after that position stays erased, for
its keys are gone: such tasks are deleted once more at the new end. One that was not over by then cannot be deleted, so
that place is refused. Alternative beaten: a task whose content is missing and of which no event says why.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from ledger.chain import GENESIS
from ledger.commands import Delete
from ledger.engine import ERASES, Engine
from ledger.errors import CannotOpenError, DamagedError, NotDeletable, Refusal
from ledger.ids import Spelling, TaskId
from ledger.ledger import Ledger
from ledger.lineage import descended
from ledger.records import Recorded
from ledger.settlement import violations
from ledger.sqlite import open_to_read, open_to_serve
from ledger.sqlite_copies import begin_epoch, copy, leftovers, publish
from ledger.sqlite_file import take_lock
from ledger.sqlite_scratch import scratch
from ledger.views import seen_of
from projections.audit.findings import Report
from projections.audit.lineage import misfits
from projections.audit.quick_check import Means, verify
from projections.follow import Progress
from projections.replay.workers import workers_here
from projections.transfer.refill import Refill
from scripts import stores
from scripts.printed import JsonOption, json_line
from scripts.progress import bar
from scripts.verify import tell

PAGE = 1000
NEW_ID_BYTES = 8
BY = "restore"
"""The actor of deletions that are made again."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore came to. Without *restored* the source was not clean, and there is no store."""

    restored: bool
    log_id: str | None
    """The new name of the log."""
    position: int
    head: str
    left_out: int
    """Events of the source that are not in it."""
    erased_again: int
    """Tasks whose content was erased in what was left out, and that were deleted once more at the end."""
    seconds: float
    report: Report
    """What verifying it found."""


class CannotRestore(Refusal):
    """What is asked cannot be restored from this file; nothing was made."""


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; it is not changed.")],
    *,
    until: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="Leave out what lies beyond.", show_default=False)
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Verify a backup and make a store of it, where there is none; exit 1: it is not clean, and none was made."""
    target = stores.path_of(store)
    done = asyncio.run(restore_to(source, target, until=until))
    if as_json:
        json_line(done)
    elif done.restored:
        left_out = f", {done.left_out} events left out" if done.left_out else ""
        left_out += f", {done.erased_again} tasks deleted again" if done.erased_again else ""
        print(f"{target}: restored up to position {done.position}, head {done.head}{left_out}")
    else:
        tell(done.report)
    if not done.restored:
        raise typer.Exit(1)


async def restore_to(source: Path, target: Path, *, until: int | None = None) -> Restored:
    """Make *target* a store of *source*, up to *until*, if what it would be is clean.

    Raises:
        CannotRestore: there is something at *target*, the source ends before *until*, or what is left out has erased
            the content of a task that was not over.
        CannotOpenError: the source is no ledger, or the target is being served or cannot be made.
        StorageError: the source cannot be read, or there is no room.
        DamagedError: the source cannot be read up to *until*.
    """
    began_at = time.perf_counter()
    with alone_at(target), scratch(target) as copied, scratch(target) as written, bar("restore") as move:
        was = copy(source, copied, at_rest=True, progress=move)
        await _bring_up_to_date(copied, source)
        cut = Cut(was.position, was.hash, 0)
        made = copied
        if until is not None and until != was.position:
            cut, made = await _cut(copied, written, until=until, progress=move), written
        async with reading(made) as engine:
            report = await verify(engine, made, Means(workers_here()), progress=move)
        new_id = None
        if not report.found:
            new_id = await _begin_epoch(copied, made, cut)
            publish(made, target)
    return Restored(
        restored=new_id is not None,
        log_id=new_id,
        position=report.position,
        head=report.head,
        left_out=was.position - cut.position,
        erased_again=cut.erased_again,
        seconds=round(time.perf_counter() - began_at, 3),
        report=report,
    )


@contextmanager
def alone_at(target: Path) -> Iterator[None]:
    """While it is entered, nobody serves *target*, where there is nothing."""
    _refuse_taken(target)
    lock_fd = take_lock(target)
    try:
        _refuse_taken(target)  # again: somebody may have been faster
        target.unlink(missing_ok=True)  # it was empty
        yield
    finally:
        os.close(lock_fd)


def _refuse_taken(target: Path) -> None:
    if target.is_symlink():  # it would be replaced, and the store lie where it stands: on another disk, perhaps
        raise CannotRestore(f"{target} is a link: name the file that it leads to")
    if target.exists() and (not target.is_file() or target.stat().st_size):
        raise CannotRestore(f"there is something at {target} already: name a new file, or move that away")
    if beside := leftovers(target):
        raise CannotRestore(f"{beside[0]} is there, of a file that is not: it would be read into the restored one")


async def _bring_up_to_date(copied: Path, source: Path) -> None:
    try:
        await (await open_to_serve(copied)).close()
    except CannotOpenError as error:
        raise CannotOpenError(str(error).replace(str(copied), str(source))) from error


class Cut(NamedTuple):
    """Up to where a log is the one that it is made of, and how many deletions were appended to it there."""

    position: int
    hash: bytes
    erased_again: int


async def _cut(copied: Path, written: Path, *, until: int, progress: Progress) -> Cut:
    """Write the log anew up to *until*."""
    async with reading(copied) as engine:
        head = await engine.head()
        if until > head.position:
            raise CannotRestore(f"the log ends at position {head.position}, before {until}")
        store = await open_to_serve(written)
        try:
            refill = Refill(store)
            last = await _events(engine, refill, until=until, progress=progress)
            await _claims(engine, refill)
            if (await store.head()).hash != last:
                raise DamagedError(f"the log up to {until} is not what was written: run `task-ledger verify` on it")
            erased_again = await _erase_again(engine, store, refill.keyless, until=until)
        finally:
            await store.close()
    return Cut(until, last, erased_again)


async def _events(engine: Engine, refill: Refill, *, until: int, progress: Progress) -> bytes:
    """Write the events up to *until*; the hash there."""
    position, last = 0, GENESIS
    while position < until:
        rows = await engine.after(position, min(PAGE, until - position))
        if not rows or rows[-1].position != position + len(rows):
            raise DamagedError(f"the log has a hole after position {position}")
        await refill.events(rows)
        position, last = rows[-1].position, rows[-1].hash
        progress(position, until)
    return last


async def _claims(engine: Engine, refill: Refill) -> None:
    claims = await engine.claims_after(None, PAGE)
    while claims:
        await refill.claims(claims)
        claims = await engine.claims_after(claims[-1].id, PAGE)


async def _erase_again(engine: Engine, store: Engine, keyless: Iterable[TaskId], *, until: int) -> int:
    """Delete those tasks whose content was erased in what was left out; how many."""
    erased: list[Recorded] = []
    for task in keyless:
        erased += [row for row in await engine.streams([task]) if row.entry.type == ERASES]
    ledger = Ledger(store)
    await ledger.writer.start()
    try:
        for row in erased:
            await _refuse_unsettled(store, row, until=until)
            await ledger.handle(
                Delete(task_id=TaskId(row.stream), at_us=row.entry.effective_at_us, actor=BY, account=row.account)
            )
    except NotDeletable as refusal:
        named = Spelling.UUID.spell(TaskId(row.stream))
        raise CannotRestore(
            f"at {until} task {named} was {refusal.status}, its content was erased at {row.position}, and this file "
            "has it no more: stop where that task is over, or take a backup from before the erasure"
        ) from refusal
    finally:
        await ledger.writer.close()
    return len(erased)


async def _refuse_unsettled(store: Engine, erased: Recorded, *, until: int) -> None:
    """Refuse to stop between an outcome and its money, where no task can be deleted."""
    task = TaskId(erased.stream)
    broken = violations(seen_of((await store.tasks([task]))[task]).task)
    if broken:
        named = Spelling.UUID.spell(task)
        raise CannotRestore(
            f"at {until} task {named} was being settled ({broken[0]}), and its content was erased at "
            f"{erased.position}: stop some events later"
        )


async def _begin_epoch(copied: Path, made: Path, cut: Cut) -> str:
    """Name the log in *made*, which is the one in *copied* up to the *cut*; its new name.

    An earlier name that does not fit is left out, and cursors of it are refused; uncut, the log was not clean with it.
    """
    async with reading(copied) as engine:
        before = descended(engine.lineage, log_id=engine.log_id, position=cut.position, end=cut.hash.hex())
        pepper = engine.pepper
    async with reading(made) as engine:
        wrong = await misfits(engine, before)
    before = tuple(one for one in before if one not in wrong)
    new_id = secrets.token_hex(NEW_ID_BYTES)
    begin_epoch(made, log_id=new_id, lineage=before, pepper=pepper)
    return new_id


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[Engine]:
    """The store at *path*, only to be read."""
    engine = await open_to_read(path)
    try:
        yield engine
    finally:
        await engine.close()


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(restore)

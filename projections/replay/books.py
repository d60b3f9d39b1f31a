"""Books kept anew beside the live ones: followed into a file of their own, compared row by row, and switched.

A follower's checkpoint makes the replay resumable, and comparing needs no lock: the live books are read as of one
moment, and the green ones are brought to that very position. The switch takes over what differs, in one transaction of
the live file, and moves its checkpoint on to the event that tells of it. So a service that follows into that file finds
its checkpoint moved by another process, forgets what it has in memory of the books, and goes on from there.

What was live is kept as a file, and to go back is to switch to that file, once it has caught up.

Two files cannot be committed as one. So the log decides, and the event is written first, while nobody else writes the
books: a process that dies before it has switched nothing, and one that dies after it has switched, only that its books
are behind, as a follower may be. The copy of the books, which is made before all else and gets its final name last,
tells the next `replay` that somebody died (`settle_books`); what is left to take is taken from the same source, which
is there until that has been committed. Alternative beaten: the books first and the event after, where who dies in
between has replaced rows, and it is nowhere on record.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ledger.breaks import switch_stream
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.events import ProjectionSwitched
from ledger.sqlite_file import BUSY_TIMEOUT_SECONDS, TROUBLE
from ledger.sqlite_switch import record, switching
from projections.books.books import Books, open_books
from projections.follow import Progress, catch_up, nobody
from projections.replay.books_sql import (
    ATTACH,
    CHECKPOINT,
    MOVE_ON,
    TABLES,
    differing,
    drop_differing,
    take_missing,
)
from projections.replay.lines import Line, Projection


def green_of(books: Path) -> Path:
    """Where the books are kept anew."""
    return books.with_name(f"{books.name}.green")


def back_of(books: Path) -> Path:
    """Where the books lie that were live before the last switch."""
    return books.with_name(f"{books.name}.back")


def keeping_of(books: Path) -> Path:
    """Where the books that are live are copied to before a switch; there only while one is under way."""
    return books.with_name(f"{books.name}.keeping")


def drop(path: Path) -> None:
    """Throw a file of books away, itself at last: its log would be taken for that of the next one of its name."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def follow_anew(engine: Engine, live: Books, path: Path, *, progress: Progress = nobody) -> None:
    """Keep books in the file *path* until they are as far as the log; and so are the live ones."""
    green = await open_books(path, engine)
    try:
        await catch_up(engine, green, progress=progress)
        await catch_up(engine, live)
    finally:
        await green.close()


async def differences(engine: Engine, books: Path, green: Path) -> list[Line]:
    """What would change, figures first of each row; both as of the same position of the log."""
    with closing(sqlite3.connect(books, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)) as db:
        db.execute("BEGIN")
        position, _ = db.execute(CHECKPOINT).fetchone()  # from here on the live books stand still for us
        await _bring(engine, green, position)
        db.execute(ATTACH, (str(green),))
        found = [line for table in TABLES for line in _lines(db, table)]
        db.execute("ROLLBACK")
    return found


class Switch(NamedTuple):
    """What is to be switched: the books of a ledger by those in *source*, which differ in so many rows."""

    ledger: Path
    books: Path
    source: Path
    replaced: int
    back: bool = False


class Taken(NamedTuple):
    """A switch that is on record: how many rows differed, where it stands in the log, and whether it went back."""

    replaced: int
    position: int
    back: bool


async def switch_books(engine: Engine, wanted: Switch, *, by: str, at_us: int) -> Taken:
    """Let the live books be what those in the source are.

    Raises:
        StorageError: one of the files did not take it.
    """
    books = wanted.books
    try:
        _copy(books, keeping_of(books))
        with _writing(books) as db:
            position, _ = db.execute(CHECKPOINT).fetchone()
            event = ProjectionSwitched(
                at_us=at_us, projection=Projection.BOOKS, position=position, replaced=wanted.replaced, back=wanted.back
            )
            with switching(wanted.ledger) as log:
                at = record(log, event, by=by)
            await _take(engine, db, wanted.source, at)  # beyond the live books, which nobody moves meanwhile
    except TROUBLE as error:
        raise StorageError(f"the books did not take the switch: {error}") from error
    _put_away(books, wanted.source)
    return Taken(wanted.replaced, at, wanted.back)


async def settle_books(engine: Engine, books: Path) -> Taken | None:
    """End a switch that somebody died in, if it is on record; None: there was none, or it is forgotten.

    Raises:
        StorageError: the books did not take it.
    """
    kept = keeping_of(books)
    if not kept.exists():
        return None
    taken = await _on_record(engine, kept)
    if taken is None:
        drop(kept)
        return None
    source = back_of(books) if taken.back else green_of(books)
    if source.exists():  # what was committed is taken once more, and is there
        try:
            with _writing(books) as db:
                position, _ = db.execute(CHECKPOINT).fetchone()
                await _take(engine, db, source, max(position, taken.position))
        except TROUBLE as error:
            raise StorageError(f"the books did not take the switch: {error}") from error
    _put_away(books, source)
    return taken


async def _on_record(engine: Engine, kept: Path) -> Taken | None:
    """The switch that *kept* was copied for: the one after what it has seen."""
    position = _seen_by(kept)
    if position is None:
        return None
    for row in await engine.streams([switch_stream()]):
        event = row.event
        if row.position > position and isinstance(event, ProjectionSwitched) and event.projection == Projection.BOOKS:
            return Taken(event.replaced, row.position, event.back)
    return None


def _seen_by(kept: Path) -> int | None:
    """How far the books were that the file is a copy of; None: it is not whole, and so nothing has been done yet."""
    try:
        with closing(sqlite3.connect(f"{kept.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            return int(db.execute(CHECKPOINT).fetchone()[0])
    except sqlite3.DatabaseError:
        return None


async def _take(engine: Engine, db: sqlite3.Connection, source: Path, position: int) -> None:
    """Let the books that *db* writes be what the source comes to at that position."""
    await _bring(engine, source, position)
    db.execute(ATTACH, (str(source),))
    for table in reversed(TABLES):
        db.execute(drop_differing(table))
    for table in TABLES:
        db.execute(take_missing(table))
    db.execute(MOVE_ON)


def _put_away(books: Path, source: Path) -> None:
    """The switch has been committed: what was live is what one goes back to."""
    drop(source)
    drop(back_of(books))
    keeping_of(books).rename(back_of(books))


@contextmanager
def _writing(books: Path) -> Iterator[sqlite3.Connection]:
    """A transaction of the live books, in which nobody else writes them."""
    with closing(sqlite3.connect(books, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


async def _bring(engine: Engine, path: Path, position: int) -> None:
    books = await open_books(path, engine)
    try:
        await catch_up(engine, books, until=position)
    finally:
        await books.close()


def _copy(books: Path, kept: Path) -> None:
    """Copy the books as they were committed last."""
    drop(kept)
    with closing(sqlite3.connect(books)) as live, closing(sqlite3.connect(kept)) as copy:
        live.backup(copy)


def _differing(db: sqlite3.Connection, table: str) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Rows that differ: the live one and the green one, None where there is none."""
    key, rest = TABLES[table]
    width = len(key) + len(rest)
    for row in db.execute(differing(table, first="main", second="green")):
        yield row[:width], None if row[width] is None else row[width:]
    for row in db.execute(differing(table, first="green", second="main")):
        if row[width] is None:
            yield None, row[:width]


def _lines(db: sqlite3.Connection, table: str) -> Iterator[Line]:
    key, rest = TABLES[table]
    columns = (*key, *rest)
    order = sorted(range(len(columns)), key=lambda place: not columns[place].endswith("_micros"))
    for live, fresh in _differing(db, table):
        either = live or fresh
        assert either is not None, "one of them is there"
        name = f"{table} {' '.join(str(_shown(value)) for value in either[: len(key)])}"
        if live is None or fresh is None:
            have, want = ("no row" if row is None else "a row" for row in (live, fresh))
            yield Line(projection=Projection.BOOKS, row=name, field="row", live=have, replayed=want)
            continue
        for place in order:
            if live[place] != fresh[place]:
                have, want = _shown(live[place]), _shown(fresh[place])
                yield Line(projection=Projection.BOOKS, row=name, field=columns[place], live=have, replayed=want)


def _shown(value: Any) -> Any:  # noqa: ANN401 - what SQLite holds
    return value.hex() if isinstance(value, bytes) else value

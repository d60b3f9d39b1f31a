"""R-07: every page of a ledger's file damaged, one at a time: what is served then, what is written, what is told.

SQLite sees what is wrong with the shape of a page, and not what is wrong in the values on it. So with a page that is
gone a file is served read-only or not at all, and no answer is wrong, unless that page had only a piece of a long
value. What else is damaged is seen as it is opened or found by `verify`.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from ledger.engine import Engine, Trouble
from ledger.errors import CannotOpenError, Fault, ReadOnlyError
from ledger.ids import TaskId
from ledger.records import ClaimId, TaskFilter
from ledger.sqlite import open_to_read, open_to_serve
from ledger.sqlite_damage import made
from ledger.sqlite_engine import SqliteEngine
from ledger.task import Status
from projections.audit.audit import audit
from tests import stored
from tests.builders import ACCOUNT, append, create, ident

PAGE_BYTES = 1024
"""A quarter of what a ledger has, so that a small one has pages of every kind."""
FILE_HEADER_BYTES = 100
ROWS_MAX = 100_000


class Page(NamedTuple):
    """A page of the file, counted from 1: whose it is, and of what kind."""

    number: int
    owner: str
    kind: str


class Known(NamedTuple):
    """By what names a reader asks."""

    tasks: Sequence[TaskId]
    claims: Sequence[ClaimId]
    keys: Sequence[str]
    accounts: Sequence[str]


class File(NamedTuple):
    """A sound file, and what it answers."""

    raw: bytes
    pages: Sequence[Page]
    known: Known
    answers: dict[str, object]

    def page(self, number: int) -> bytes:
        return self.raw[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]

    def having(self, number: int, page: bytes) -> bytes:
        assert len(page) == PAGE_BYTES
        return self.raw[: (number - 1) * PAGE_BYTES] + page + self.raw[number * PAGE_BYTES :]


LEAVE_FREE_PAGES = "CREATE TABLE gone (a); INSERT INTO gone VALUES (zeroblob(6000)); DROP TABLE gone;"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    asyncio.run(_add_large_content(path))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {PAGE_BYTES}; VACUUM; {LEAVE_FREE_PAGES}")
    return asyncio.run(_file_at(path))


async def _add_large_content(path: Path) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(create(ident(800), input={"prompt": "x" * 8 * PAGE_BYTES}))


async def _file_at(path: Path) -> File:
    async with stored.reading(path) as engine:
        known = Known(
            tasks=[TaskId(row.stream) for row in await engine.after(0, ROWS_MAX) if row.entry.type == "created"],
            claims=[claim.id for claim in await engine.claims_after(None, ROWS_MAX)],
            keys=[key.key_id for key in await engine.keys(None)],
            accounts=[*await engine.accounts(None)],
        )
        return File(content(path), pages_of(path), known, await answers(engine, known))


def content(path: Path) -> bytes:
    return path.read_bytes()


def put(raw: bytes, path: Path) -> None:
    """Let there be this file at *path*, and nothing beside it."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    path.write_bytes(raw)


def pages_of(path: Path) -> list[Page]:
    """All of them, by SQLite's own account."""
    raw = path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        try:
            told = db.execute("SELECT pageno, name, pagetype FROM dbstat").fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat, which tells the pages of a file")
    used = {number: Page(number, owner, kind) for number, owner, kind in told}
    trunk = int.from_bytes(raw[32:36], "big")
    return [
        used.get(number, Page(number, "the free pages", "trunk" if number == trunk else "free"))
        for number in range(1, len(raw) // PAGE_BYTES + 1)
    ]


async def answers(engine: Engine, known: Known) -> dict[str, object]:
    """What *engine* answers to everything that may be asked; a fault where it cannot."""
    asks: dict[str, Callable[[], Awaitable[object]]] = {
        **{f"task {task.hex()}": partial(engine.tasks, [task]) for task in known.tasks},
        **{f"stream {task.hex()}": partial(engine.streams, [task]) for task in known.tasks},
        **{f"claim {claim}": partial(engine.claims, [claim]) for claim in known.claims},
        **{f"key {key}": partial(engine.key, key) for key in known.keys},
        **{f"account {name}": partial(engine.accounts, [name]) for name in known.accounts},
        **{f"tasks {one}": partial(engine.page, TaskFilter(limit=ROWS_MAX, status=one)) for one in Status},
        "tasks": partial(engine.page, TaskFilter(limit=ROWS_MAX)),
        "tasks of an account": partial(engine.page, TaskFilter(limit=ROWS_MAX, account=ACCOUNT)),
        "claims": partial(engine.claims_after, None, ROWS_MAX),
        "keys": partial(engine.keys, None),
        "accounts": partial(engine.accounts, None),
        "log": partial(engine.after, 0, ROWS_MAX),
        "head": engine.head,
    }
    told: dict[str, object] = {}
    for name, ask in asks.items():
        try:
            told[name] = await ask()
        except Fault as fault:
            told[name] = fault
    return told


# What becomes of a file


class How(StrEnum):
    """How a damaged file is served."""

    REFUSED = "not at all, by name"
    READ_ONLY = "read-only"
    AS_EVER = "as if it were sound"


class Met(NamedTuple):
    """What was met of a damaged file."""

    how: How
    wrong: Sequence[str]
    """The questions whose answer was another one than before, and no fault."""
    failing: int
    is_found: bool
    """Whether `verify` says that something is wrong, or cannot even open the file, and says that."""


async def meet(file: File, path: Path, raw: bytes) -> Met:
    """Serve *raw*, ask everything, try to write, and verify it."""
    put(raw, path)
    how, told = How.REFUSED, dict[str, object]()
    try:
        engine = await open_to_serve(path)
    except CannotOpenError as error:
        told["opening"] = error
    else:
        try:
            how, told = await _served(engine, file, path)
        finally:
            await engine.close()
    faults = [name for name, answer in told.items() if isinstance(answer, Fault)]
    wrong = [name for name, answer in told.items() if name not in faults and answer != file.answers[name]]
    return Met(how, wrong, len(faults), await is_found_by_verify(path))


async def _served(engine: SqliteEngine, file: File, path: Path) -> tuple[How, dict[str, object]]:
    if engine.trouble is not Trouble.READ_ONLY:
        return How.AS_EVER, await answers(engine, file.known)
    before = content(path)
    with pytest.raises(ReadOnlyError, match=r"is damaged and read-only .*task-ledger verify.*task-ledger restore"):
        await engine.commit([append(5000)])
    assert content(path) == before
    return How.READ_ONLY, await answers(engine, file.known)


async def is_found_by_verify(path: Path) -> bool:
    try:
        engine = await open_to_read(path)
    except CannotOpenError:
        return True
    try:
        return bool((await audit(engine)).found)
    except Fault:
        return True
    finally:
        await engine.close()


# Damages


def gone(page: bytes, _number: int, _random: Random) -> bytes:
    return bytes(len(page))


def half_gone(page: bytes, _number: int, _random: Random) -> bytes:
    return page[: len(page) // 2] + bytes(len(page) - len(page) // 2)


def flip_in_head(page: bytes, number: int, random: Random) -> bytes:
    """A bit of what the page says of itself."""
    begin = FILE_HEADER_BYTES if number == 1 else 0
    return flipped(page, 8 * begin + random.randrange(64))


def flip_in_rows(page: bytes, _number: int, random: Random) -> bytes:
    """A bit in its last quarter, where rows are."""
    return flipped(page, random.randrange(6 * len(page), 8 * len(page)))


def flip_anywhere(page: bytes, _number: int, random: Random) -> bytes:
    return flipped(page, random.randrange(8 * len(page)))


def flipped(page: bytes, bit: int) -> bytes:
    changed = bytearray(page)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


PARTLY = [half_gone, flip_in_head, flip_in_rows, flip_anywhere]
SOAK = [pytest.mark.soak, pytest.mark.timeout(1800)]
EVERY = [pytest.param(False, id="one of each kind"), pytest.param(True, id="every page", marks=SOAK)]


def chosen(file: File, *, every: bool) -> list[Page]:
    """Every page, or of each kind that each table and index has the first one; a root is its own kind."""
    if every:
        return [*file.pages]
    return [*{(page.owner, page.kind): page for page in reversed(file.pages)}.values()]


def test_the_file_has_pages_of_every_kind_and_of_every_table_and_index(file: File) -> None:
    assert {page.kind for page in file.pages} == {"internal", "leaf", "overflow", "trunk", "free"}
    owners = {name for kind, name in made() if kind in {"table", "index"}}
    assert owners <= {page.owner for page in file.pages}


async def test_the_sound_file_is_served_as_ever_and_clean(file: File, tmp_path: Path) -> None:
    assert await meet(file, tmp_path / "ledger.db", file.raw) == Met(How.AS_EVER, [], 0, is_found=False)


@pytest.mark.parametrize("every", EVERY)
async def test_r07_with_a_page_that_is_gone_nothing_is_written_no_answer_is_wrong_and_verify_says_so(
    file: File, tmp_path: Path, *, every: bool
) -> None:
    for page in chosen(file, every=every):
        raw = file.having(page.number, gone(file.page(page.number), page.number, Random(0)))
        if raw == file.raw:
            assert page.kind == "free"
            continue
        met = await meet(file, tmp_path / "ledger.db", raw)
        assert met.is_found, page
        if page.kind != "overflow":  # the last one of a long value has no shape, only a piece of the value
            assert met.how is not How.AS_EVER, page
            assert not met.wrong, (page, met)


@pytest.mark.parametrize("damage", PARTLY)
@pytest.mark.parametrize("every", EVERY)
async def test_r07_what_is_wrong_with_a_part_of_a_page_is_seen_or_found_by_verify_or_was_of_no_meaning(
    file: File, tmp_path: Path, *, damage: Callable[[bytes, int, Random], bytes], every: bool
) -> None:
    random = Random(damage.__name__)
    for page in chosen(file, every=every):
        raw = file.having(page.number, damage(file.page(page.number), page.number, random))
        met = await meet(file, tmp_path / "ledger.db", raw)
        if met.wrong or met.failing or met.how is not How.AS_EVER:
            assert met.is_found, (page, met)

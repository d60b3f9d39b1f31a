"""Torn and truncated write-ahead logs: what is left of one is a prefix that has every commit before the damage."""

import asyncio
import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from ledger.sqlite import open_to_read, open_to_serve
from projections.audit.audit import audit
from tests.builders import append, whole_log

COMMITS = 40
PAGE_BYTES, SECTOR_BYTES = 4096, 512


class Left(NamedTuple):
    """What a power cut left: the database, its write-ahead log, and how long that was after each commit."""

    database: Path
    wal: bytes
    ends: Sequence[int]

    def commits_before(self, offset: int) -> int:
        """How many commits lie wholly before *offset*."""
        return sum(end <= offset for end in self.ends)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return asyncio.run(_left(tmp_path_factory.mktemp("left") / "ledger.db"))


async def _left(path: Path) -> Left:
    engine = await open_to_serve(path)
    try:
        database = path.with_name("left.db")
        shutil.copyfile(path, database)
        ends = []
        for number in range(COMMITS):
            await engine.commit([append(number, events=1 + number % 3)])
            ends.append(len(wal_of(path)))
        assert filecmp.cmp(path, database, shallow=False), "no checkpoint yet: all of it is in the log"
        return Left(database, wal_of(path), ends)
    finally:
        await engine.close()


def wal_of(path: Path) -> bytes:
    return path.with_name(f"{path.name}-wal").read_bytes()


def lay_out(path: Path, left: Left, wal: bytes) -> None:
    """What a power cut left, with this write-ahead log in the place of its own."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    shutil.copyfile(left.database, path)
    path.with_name(f"{path.name}-wal").write_bytes(wal)


async def opened(folder: Path, left: Left, wal: bytes) -> int:
    """How many commits there are when the store is opened with this write-ahead log; it is whole, and goes on."""
    path = folder / "ledger.db"
    lay_out(path, left, wal)
    engine = await open_to_serve(path)
    try:
        rows = await whole_log(engine)
        found = len({row.stream for row in rows})
        assert len(rows) == sum(1 + number % 3 for number in range(found)), "a commit is there whole or not at all"
        assert engine.trouble is None
        await engine.commit([append(1000)])
        assert len(await whole_log(engine)) == len(rows) + 1
    finally:
        await engine.close()
    return found


async def cut_everywhere(folder: Path, left: Left, offsets: Sequence[int]) -> None:
    for offset in offsets:
        assert await opened(folder, left, left.wal[:offset]) == left.commits_before(offset), offset


async def garbled(folder: Path, left: Left, random: Random, count: int) -> None:
    for _ in range(count):
        offset = random.randrange(len(left.wal) // SECTOR_BYTES) * SECTOR_BYTES
        wal = bytearray(left.wal)
        wal[offset : offset + SECTOR_BYTES] = random.randbytes(SECTOR_BYTES)
        assert await opened(folder, left, bytes(wal)) == left.commits_before(offset), offset


async def test_r03_a_log_that_is_cut_at_any_page_or_byte_opens_with_every_commit_before_the_cut(
    left: Left, tmp_path: Path
) -> None:
    random = Random(3)
    some = random.sample(range(0, len(left.wal), PAGE_BYTES), 15) + random.sample(range(len(left.wal)), 15)
    bounds = [end + off for end in left.ends[::8] for off in (-1, 0, 1)]
    await cut_everywhere(tmp_path, left, [0, *some, *bounds])


async def test_r03_garbage_in_any_sector_hides_what_follows_it_and_nothing_else(left: Left, tmp_path: Path) -> None:
    await garbled(tmp_path, left, Random(3), 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_r03_at_every_page_and_many_more_places(left: Left, tmp_path: Path) -> None:
    random = Random(33)
    await cut_everywhere(tmp_path, left, range(0, len(left.wal), PAGE_BYTES))
    await cut_everywhere(tmp_path, left, random.sample(range(len(left.wal)), 500))
    await garbled(tmp_path, left, random, 300)


async def test_r03_what_is_left_reads_the_same_without_a_writer(left: Left, tmp_path: Path) -> None:
    path, offset = tmp_path / "ledger.db", left.ends[20] + 100
    lay_out(path, left, left.wal[:offset])
    engine = await open_to_read(path)
    try:
        assert len({row.stream for row in await whole_log(engine)}) == 21
        assert (await audit(engine)).position == (await engine.head()).position
    finally:
        await engine.close()

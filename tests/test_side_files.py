"""What followers keep beside the ledger may be damaged or taken away while they run: all else goes on, and they do."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api import callbacks, followers
from api.callbacks import CallbackSender
from api.refusals import Unavailable
from ledger.records import Recorded
from ledger.sqlite import open_to_serve
from projections.books.books import Books
from projections.callbacks.queue import CallbackQueue
from projections.follow import Checkpoint
from projections.side_file import SideFileError
from tests.receiving import BROKEN, FINE, HANGS, TO_LOOPBACK, Receiver, receiving
from tests.serving import Service, serving
from tests.test_callbacks import ended, over, retry

TABLES = {"books": "tasks", "sweep": "live", "callbacks": "callbacks"}
"""One that each follower cannot do without."""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.02)
    engine = await open_to_serve(tmp_path / "ledger.db")
    async with serving(engine, calls=TO_LOOPBACK, is_followed=True) as running:
        yield running


def file_of(service: Service, name: str) -> Path:
    assert service.callbacks is not None
    return {"books": service.books_path, "sweep": service.sweeper.path, "callbacks": service.callbacks.path}[name]


def damage(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path, timeout=10)) as db:
        db.execute(f"DROP TABLE {table}")


def is_there(path: Path) -> bool:
    return path.exists()


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def ready(service: Service) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = (await service.ask("GET", "/readyz")).json()["followers"]
    return found


async def until(service: Service, name: str, **wanted: Any) -> None:  # noqa: ANN401 - a field's value
    async with asyncio.timeout(20):
        while wanted.items() - (await ready(service))[name].items():  # noqa: ASYNC110 - it is asked for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", TABLES)
async def test_one_that_is_damaged_fails_alone_and_once_it_is_moved_away_it_is_made_anew_without_a_restart(
    service: Service, receiver: Receiver, name: str
) -> None:
    receiver.answer = lambda _: BROKEN
    task = await ended(service, receiver.url)
    await over(service, task)
    done = await ended(service, receiver.url)
    receiver.answer = lambda _: FINE
    await over(service, done)
    path = file_of(service, name)
    await until(service, name, lag=0)
    await asyncio.to_thread(damage, path, TABLES[name])
    late = await ended(service, receiver.url)
    await until(service, name, failing=True)
    others = [other for other in TABLES if other != name]
    for other in others:
        await until(service, other, failing=False, lag=0)
    remove(path)
    await until(service, name, failing=False, lag=0)
    assert is_there(path)
    await over(service, late)
    assert len(receiver.told) == len(set(receiver.ids)) == 3, "nothing is posted again because its queue was made anew"
    await retry(service)
    assert (await over(service, task, 2))["callback"]["delivered_at"] is not None
    assert len(receiver.told) == 4


async def test_while_the_queue_takes_nothing_no_more_is_begun_than_is_kept_in_mind(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.callbacks is not None
    monkeypatch.setattr(callbacks, "UNDER_WAY_MAX", 4)
    receiver.answer = lambda _: HANGS  # until all of them wait
    tasks = [await ended(service, receiver.url) for _ in range(12)]
    await receiver.until(1)
    await until(service, "callbacks", lag=0)
    apply = CallbackQueue.apply
    is_stuck = True

    async def stuck(queue: CallbackQueue, rows: Sequence[Recorded], *, after: Checkpoint) -> bool:
        if is_stuck:
            raise SideFileError("the disk is full")
        return await apply(queue, rows, after=after)

    monkeypatch.setattr(CallbackQueue, "apply", stuck)
    monkeypatch.setattr(CallbackSender, "close", _not_now)
    receiver.answer = lambda _: FINE
    receiver.hung.set()
    await receiver.until(4)
    await asyncio.sleep(0.2)
    assert len(receiver.told) <= 4 + TO_LOOPBACK.bounds.receiver_max // 2
    assert len(receiver.told) < len(tasks)
    is_stuck = False
    for task in tasks:
        await over(service, task)
    assert len(set(receiver.ids)) == len(receiver.told) == 12
    monkeypatch.undo()


async def _not_now(_: CallbackSender) -> None:
    """The file is the same when it takes pages again."""


async def test_what_is_posted_while_the_queue_takes_nothing_is_posted_once_and_known_once_it_is_back(
    service: Service, receiver: Receiver
) -> None:
    assert service.callbacks is not None
    path = service.callbacks.path
    made = [(await service.create("bytespike", callback_url=receiver.url))["id"] for _ in range(3)]
    await over(service, await ended(service, receiver.url))
    await until(service, "callbacks", lag=0)
    remove(path)
    for task in made:  # it goes on in a file that has no name any more
        await service.reported(task, "completed", output={"assets": []})
        await over(service, task)
    assert len(receiver.told) == len(set(receiver.ids)) == 4
    await service.callbacks.close()
    listed = (await service.native("GET", "/callbacks?state=delivered")).json()["callbacks"]
    assert {one["id"] for one in listed} == set(receiver.ids)
    assert is_there(path)


async def test_of_two_who_meet_that_a_file_has_failed_the_second_leaves_alone_what_has_been_opened_since(
    service: Service,
) -> None:
    keeper, began, go_on = service.books, asyncio.Event(), asyncio.Event()
    assert keeper is not None

    async def fail(_: Books) -> None:
        raise SideFileError("it has failed")

    async def fail_later(books: Books) -> None:
        began.set()
        await go_on.wait()
        await fail(books)

    async def itself(books: Books) -> Books:
        return books

    second = asyncio.create_task(keeper.consult(fail_later))
    await began.wait()
    with pytest.raises(Unavailable):
        await keeper.consult(fail)
    opened = await keeper.consult(itself)
    go_on.set()
    with pytest.raises(Unavailable):
        await second
    assert await keeper.consult(itself) is opened

"""What follows the log while the service runs: woken by commits, each by itself, and told of when it cannot go on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from api import followers
from api.followers import Duty, Followers, State
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.log_end import LogEnd
from ledger.sqlite import open_beside, open_to_serve
from tests.builders import ACCOUNT, CREATED_US, ENGINES
from tests.serving import Service, serving

LONG = 3600.0
"""Seconds that no test waits for."""


# The end of the log


async def test_whoever_waits_is_woken_when_the_log_grows() -> None:
    end = LogEnd()
    waiting = [asyncio.create_task(end.beyond(4, seconds=LONG)) for _ in range(3)]
    await asyncio.sleep(0)
    end.moved(4, recorded_at_us=4)
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting), "what is there already is no news"
    end.moved(5, recorded_at_us=5)
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)


async def test_whoever_is_behind_need_not_wait() -> None:
    end = LogEnd()
    end.moved(7, recorded_at_us=7)
    async with asyncio.timeout(10):
        await end.beyond(6, seconds=LONG)


async def test_nobody_waits_for_longer_than_he_wants() -> None:
    async with asyncio.timeout(10):
        await LogEnd().beyond(0, seconds=0.01)


def test_the_end_never_moves_back() -> None:
    end = LogEnd()
    for position in (3, 5, 4):
        end.moved(position, recorded_at_us=position)
    assert end.position == end.recorded_at_us == 5


# The engines tell


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return await ENGINES[request.param].open(tmp_path)


@pytest.fixture
async def service(engine: Engine) -> AsyncIterator[Service]:
    async with serving(engine) as running:
        yield running


async def test_every_commit_moves_the_end(service: Service, engine: Engine) -> None:
    for _ in range(3):
        before = engine.end.position
        await service.create()
        assert before < engine.end.position == (await engine.head()).position


async def test_what_another_process_appended_is_known_once_the_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with Ledger(await open_to_serve(path)) as ledger:
        await ledger.keys.issue(account=ACCOUNT, contract="lemondata", role=Role.CLIENT, by="test", at_us=CREATED_US)
        other = await open_beside(path)
        assert other.end.position == 0
        head = await other.head()
        assert other.end.position == head.position == ledger.engine.end.position
        await other.close()


# Followers


class Counted:
    """A follower that only notes where it has been, and fails while it has a *fault*."""

    def __init__(self, engine: Engine, name: str = "counted") -> None:
        self.duty = Duty(name, self.follow, 0)
        self.fault: Exception | None = None
        self.looks = self.position = 0
        self._engine = engine

    async def follow(self) -> int:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        self.position = (await self._engine.head()).position
        return self.position


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a number that is looked at tells nobody
            await asyncio.sleep(0.001)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks without being woken."""
    monkeypatch.setattr(followers, "LOOK_SECONDS", LONG)


@pytest.mark.usefixtures("patient")
async def test_a_follower_is_woken_by_a_commit(service: Service, engine: Engine) -> None:
    counted = Counted(engine)
    async with Followers(engine, [counted.duty]) as all_of_them:
        for _ in range(3):
            await service.create()
            end = await service.position()
            await until(lambda: counted.position >= end)  # noqa: B023 - it is done before the next
        await until(lambda: all_of_them.states == [State("counted", counted.position, 0, None)])


@pytest.mark.usefixtures("patient")
async def test_a_follower_with_nothing_to_do_does_nothing(service: Service, engine: Engine) -> None:
    await service.create()
    counted = Counted(engine)
    async with Followers(engine, [counted.duty]):
        await until(lambda: counted.position > 0)
        await asyncio.sleep(0.05)
    assert counted.looks == 1


async def test_without_news_it_looks_anyway(service: Service, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.001)
    await service.create()
    counted = Counted(engine)
    async with Followers(engine, [counted.duty]):
        await until(lambda: counted.looks > 3)


@pytest.mark.parametrize("fault", [StorageError("the disk is gone"), ZeroDivisionError()])
async def test_one_that_fails_says_so_once_stops_no_other_and_goes_on_when_it_can(
    service: Service, engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.001)
    ill, well = Counted(engine, "ill"), Counted(engine, "well")
    ill.fault = fault
    async with Followers(engine, [ill.duty, well.duty]) as all_of_them:
        await until(lambda: ill.looks > 3)
        await service.create()
        end = await service.position()
        await until(lambda: well.position >= end)
        failing, other = all_of_them.states
        assert failing.failure == (str(fault) or "ZeroDivisionError")
        assert failing.lag >= end
        assert other.failure is None
        ill.fault = None
        await until(lambda: all_of_them.states[0].failure is None and ill.position >= end)
        ill.fault = fault
        await until(lambda: all_of_them.states[0].failure is not None)
    lines = service.logged("follower.failed")
    assert [line["follower"] for line in lines] == ["ill", "ill"], "told anew only after it had been well"
    assert all(("exception" in line) == isinstance(fault, ZeroDivisionError) for line in lines)


# What /readyz tells


@pytest.fixture
async def followed(engine: Engine) -> AsyncIterator[Service]:
    async with serving(engine, is_followed=True) as running:
        yield running


async def test_readiness_names_the_followers_and_is_not_lost_by_their_failure(
    followed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = followed
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.05)

    async def books() -> dict[str, object]:
        reply = await service.ask("GET", "/readyz")
        assert reply.status == 200
        told: dict[str, object] = reply.json()["followers"]["books"]
        return told

    async def until_told(position: int, *, failing: bool) -> None:
        wanted = {"position": position, "lag": await service.position() - position, "failing": failing}
        async with asyncio.timeout(10):
            while await books() != wanted:  # noqa: ASYNC110 - another's state is asked for
                await asyncio.sleep(0.01)

    before = await service.position()
    await until_told(before, failing=False)
    await asyncio.to_thread(_rename, service.books_path, "movements", "mislaid")
    await service.create()
    await until_told(before, failing=True)
    await asyncio.to_thread(_rename, service.books_path, "mislaid", "movements")
    await until_told(await service.position(), failing=False)


def _rename(path: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"ALTER TABLE {old} RENAME TO {new}")

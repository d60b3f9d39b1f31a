"""The books of the service: what ``GET /ledger/v1/billing/summary`` answers, and a follower that harms nobody."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import bookkeeper, followers
from api.bookkeeper import Bookkeeper
from api.followers import Followers
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.records import Head, Recorded
from ledger.times import rfc3339
from projections.books.books import Books, Clock, Period, open_books
from projections.books.books_sql import SCHEMA_VERSION
from projections.reports.parameters import NAMES
from projections.reports.report import By, Wanted, draw
from tests.builders import CREATED_US, Watched
from tests.money_logs import HOUR_US, money_log
from tests.serving import Service, serving
from tests.wire import Reply

TASKS = 40
MIDDLE_US = CREATED_US + TASKS // 2 * HOUR_US
SUMMARY = "/billing/summary"


class Failing(Watched):
    """A log that cannot be followed while it is *broken*."""

    broken: Exception | None = None

    async def head(self) -> Head:
        if self.broken is not None:
            raise self.broken
        return await super().head()

    async def after(self, position: int, limit: int) -> list[Recorded]:
        if self.broken is not None:
            raise self.broken
        return await super().after(position, limit)


@pytest.fixture
def engine() -> Failing:
    return Failing(MemoryEngine())


@pytest.fixture
async def service(engine: Failing) -> AsyncIterator[Service]:
    async with serving(engine) as running:
        yield running


@pytest.fixture
async def books(engine: Failing, tmp_path: Path) -> AsyncIterator[Books]:
    """Books apart from the service's."""
    opened = await open_books(tmp_path / "other", engine)
    yield opened
    await opened.close()


async def summary(service: Service, **query: str) -> Any:  # noqa: ANN401 - JSON
    reply = await asked(service, **query)
    assert reply.status == 200, reply
    return reply.json()


async def asked(service: Service, **query: str) -> Reply:
    return await service.native("GET", SUMMARY + "?" + "&".join(f"{name}={text}" for name, text in query.items()))


# The answer


ASKED: list[tuple[dict[str, str], Wanted]] = [
    ({}, Wanted()),
    *(({"by": by.value}, Wanted(by=by)) for by in By),
    ({"since": rfc3339(MIDDLE_US)}, Wanted(since_us=MIDDLE_US)),
    ({"until": rfc3339(MIDDLE_US), "by": "day"}, Wanted(until_us=MIDDLE_US, by=By.DAY)),
    ({"until": rfc3339(MIDDLE_US), "clock": "recorded"}, Wanted(until_us=MIDDLE_US, clock=Clock.RECORDED)),
    ({"at": "20"}, Wanted(at="20")),
    ({"at": rfc3339(MIDDLE_US)}, Wanted(at=rfc3339(MIDDLE_US))),
    ({"at": "2026-01-03"}, Wanted(at="2026-01-03T00:00:00Z")),
    ({"since": "2026-01-03"}, Wanted(since_us=CREATED_US - CREATED_US % (24 * HOUR_US) + 24 * HOUR_US)),
]


@pytest.mark.parametrize(("query", "wanted"), ASKED)
async def test_a_summary_is_the_report_to_the_letter(
    service: Service, books: Books, query: dict[str, str], wanted: Wanted
) -> None:
    await money_log(service.ledger, seed=1, tasks=TASKS)
    report = await draw(service.ledger.engine, books, wanted)
    reply = await asked(service, **query)
    assert (reply.status, reply.body) == (200, msgspec.json.encode(report))
    assert report.lines


async def test_a_summary_reads_like_this(service: Service) -> None:
    task = await service.create("bytespike", estimated_credits="1.5")
    await service.reported(task["id"], "completed", actual_credits="1.25", output={"assets": []})
    head = await service.ledger.engine.head()
    amounts = {"held": "1.5", "released": "0.25", "charged": "1.25", "refunded": "0", "net": "1.25", "open": "0"}
    amounts |= {"cost": "0", "margin": "1.25"}
    line = {"movements": 3} | {f"{name}_credits": text for name, text in amounts.items()}
    assert await summary(service, by="model") == {
        "books": SCHEMA_VERSION,
        "position": head.position,
        "head": head.hash.hex(),
        "by": "model",
        "clock": "effective",
        "since": None,
        "until": None,
        "lines": [{"key": "bytespike/wan-2.6"} | line],
        "total": {"key": "total"} | line,
    }


async def test_a_summary_knows_what_was_written_before_it_was_asked_for(service: Service) -> None:
    for count in range(1, 6):
        await service.create(estimated_credits="0.1")
        found = await summary(service)
        assert found["total"]["open_credits"] == f"0.{count}"
        assert found["position"] == await service.position()


async def test_summaries_that_name_the_same_position_have_the_same_figures_whatever_goes_on(service: Service) -> None:
    async def ask() -> list[Any]:
        return [await summary(service) for _ in range(10)]

    async def write() -> None:
        for number in range(TASKS):
            await money_log(service.ledger, seed=number, tasks=1, first=number)
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    found = [one for some in await asyncio.gather(ask(), ask(), ask()) for one in some]
    await writing
    for one in found:
        assert await summary(service, at=str(one["position"])) == one
    assert len({one["position"] for one in found}) > 1, "something did go on"


@pytest.mark.parametrize("role", [Role.WORKER, Role.CLIENT])
async def test_a_summary_is_for_operators(service: Service, role: Role) -> None:
    reply = await service.native("GET", SUMMARY, key=await service.key("ledger", role=role))
    assert (reply.status, reply.json()["code"]) == (403, "forbidden")


async def test_a_name_that_nobody_knows_is_refused(service: Service) -> None:
    for name in ("nobody_knows", "By", "limit", "format"):
        reply = await asked(service, **{name: "1"})
        assert (reply.status, reply.json()["param"]) == (422, name)


WRONG = [
    ({"by": "week"}, "by", "by is one of account, model, contract, provider, day"),
    ({"clock": "wall"}, "clock", "clock is one of effective, recorded"),
    ({"since": "yesterday"}, "since", "since must be a date, or an RFC 3339 time such as 2026-01-02T03:04:05Z"),
    ({"since": "2026-01-02", "until": "2026-01-02"}, "until", "until must be later than since: a period ends before"),
    ({"at": "999"}, "at", "the log ends at position"),
    ({"at": "soon"}, "at", "'soon' is neither a position nor a time"),
]


@pytest.mark.parametrize(("query", "name", "reason"), WRONG)
async def test_what_is_wrong_is_named(service: Service, query: dict[str, str], name: str, reason: str) -> None:
    reply = await asked(service, **query)
    problem = reply.json()
    assert (reply.status, problem["code"], problem["param"]) == (422, "invalid_request", name)
    assert problem["detail"].startswith(reason)
    assert set(query) <= set(NAMES)


# When it fails


async def test_books_that_cannot_be_kept_are_said_to_be_so_and_all_else_goes_on(service: Service) -> None:
    service.books_path.mkdir()
    for _ in range(2):
        reply = await asked(service)
        problem = reply.json()
        assert (reply.status, problem["code"], reply.headers["retry-after"]) == (503, "books_unavailable", "2")
        assert problem["detail"] == problem["title"] == "The books cannot be kept just now; all else goes on"
    assert (await service.create())["status"] == "queued"
    (line,) = service.logged("books.failed")
    assert line["fault"].startswith("the books have no place beside the ledger")
    service.books_path.rmdir()
    assert (await summary(service))["total"]["movements"] == 1


async def test_books_that_are_damaged_are_said_to_be_so_until_they_are_well(service: Service) -> None:
    await service.create()
    await summary(service)
    with closing(sqlite3.connect(service.books_path)) as db:
        db.execute("ALTER TABLE movements RENAME TO mislaid")
    reply = await asked(service)
    assert (reply.status, reply.json()["code"]) == (503, "books_unavailable")
    (line,) = service.logged("books.failed")
    assert line["fault"].startswith("the books could not be read: no such table")
    with closing(sqlite3.connect(service.books_path)) as db:
        db.execute("ALTER TABLE mislaid RENAME TO movements")
    assert (await summary(service))["total"]["movements"] == 1


async def test_a_log_that_cannot_be_read_is_a_503_until_it_can(service: Service, engine: Failing) -> None:
    await service.create()
    await summary(service)
    engine.broken = StorageError("the disk is gone")
    replies = [await asked(service) for _ in range(2)]
    assert [(reply.status, reply.json()["code"]) for reply in replies] == [(503, "store_unavailable")] * 2
    engine.broken = None
    assert (await summary(service))["total"]["movements"] == 1
    engine.broken = StorageError("the disk is gone")
    assert (await asked(service)).status == 503
    assert len(service.logged("books.failed")) == 2, "told anew only after it had been well"
    engine.broken = None


# The follower


async def posted(path: Path, engine: Engine) -> int:
    """How far the books in the file are, as another process sees it."""
    books = await open_books(path, engine)
    try:
        at = await books.checkpoint()
        sums = await books.totals(Period(at.position))
        assert bool(sums) == (at.position > 1)
        return at.position
    finally:
        await books.close()


async def until_posted(path: Path, engine: Engine, position: int) -> None:
    async with asyncio.timeout(10):
        while await posted(path, engine) < position:  # noqa: ASYNC110 - another process's file tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeper, "REST_SECONDS", 0.01)
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.01)


@asynccontextmanager
async def kept(engine: Engine, path: Path) -> AsyncIterator[Bookkeeper]:
    """Books that follow the log."""
    async with Bookkeeper(engine, path) as keeper, Followers(engine, [keeper.duty]):
        yield keeper


@pytest.mark.usefixtures("quick")
async def test_the_follower_keeps_the_books_without_being_asked(engine: Failing, tmp_path: Path) -> None:
    async with Ledger(engine) as ledger, kept(engine, tmp_path / "books"):
        for part in range(3):
            await money_log(ledger, seed=part, tasks=TASKS, first=part * TASKS)
            await until_posted(tmp_path / "books", engine, (await engine.head()).position)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("failure", [StorageError("the disk is gone"), ZeroDivisionError("a bug")])
async def test_a_follower_that_fails_goes_on_when_it_can(
    service: Service, engine: Failing, tmp_path: Path, failure: Exception
) -> None:
    await money_log(service.ledger, seed=1, tasks=TASKS)
    engine.broken = failure
    async with kept(engine, tmp_path / "books") as keeper:
        async with asyncio.timeout(10):
            while not service.logged("follower.failed"):  # noqa: ASYNC110 - nor does a log
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        with pytest.raises(type(failure)):
            await keeper.draw(Wanted())
        engine.broken = None
        await until_posted(tmp_path / "books", engine, await service.position())
    (line,) = service.logged("follower.failed")
    assert (line["follower"], line["fault"]) == ("books", str(failure))
    assert ("Traceback" in line.get("exception", "")) == isinstance(failure, ZeroDivisionError)


async def test_a_follower_that_is_far_behind_is_left_at_once(
    engine: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bookkeeper, "pause_seconds", 3600.0)
    monkeypatch.setattr("projections.follow.PAGE", 10)
    async with Ledger(engine) as ledger:
        await money_log(ledger, seed=1, tasks=TASKS)
        async with asyncio.timeout(10), kept(engine, tmp_path / "books") as keeper:
            await until_posted(tmp_path / "books", engine, 10)
            assert await posted(tmp_path / "books", engine) == 10
            drawn = await keeper.draw(Wanted())
        assert drawn.position == (await engine.head()).position, "a report does not wait for it"

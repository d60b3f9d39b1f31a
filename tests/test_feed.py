"""The feed: every event in order, in pages and as a stream, from a cursor on; nothing missed, nothing said twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import feed as feeds
from api import feed_shapes, streams
from api.feed import EventFilter, Feed
from api.stays import StayLimits
from ledger.cursors import position_cursor
from ledger.engine import Engine
from ledger.errors import DamagedError, StorageError
from ledger.events import TYPES
from ledger.keyring import Keyring
from ledger.keys import Role, parse
from ledger.lineage import descended
from ledger.memory import MemoryEngine
from ledger.records import Recorded
from ledger.sqlite import open_beside
from ledger.task import Status
from tests.builders import ACCOUNT, CREATED_US, ENGINES, Watched, append, delete, whole_log
from tests.serving import STRANGER, Service, serving, spelled
from tests.streams import Event, Stream, stream
from tests.worded import code_of

SSE = {"Accept": "text/event-stream"}


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return await ENGINES[request.param].open(tmp_path)


@pytest.fixture
async def service(engine: Engine) -> AsyncIterator[Service]:
    async with serving(engine) as running:
        yield running


async def page(service: Service, query: str = "", **headers: str) -> dict[str, Any]:
    reply = await service.native("GET", f"/events{query}", **headers)
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


async def pages(service: Service, query: str = "limit=3", *, after: str | None = None) -> list[dict[str, Any]]:
    """All events that fit, read page by page."""
    found: list[dict[str, Any]] = []
    while True:
        read = await page(service, f"?{query}" + (f"&after={after}" if after else ""))
        found += read["events"]
        if not read["has_more"]:
            return found
        after = read["next_cursor"]


def opened(service: Service, query: str = "", **headers: str) -> Any:  # noqa: ANN401 - a context manager of a Stream
    return stream(service.port, f"/ledger/v1/events{query}", key=service.operator, headers=SSE | headers)


async def take(reader: Stream, count: int) -> list[Event]:
    return [await reader.next() for _ in range(count)]


# Pages


async def test_the_feed_is_the_whole_log_in_order_page_by_page(service: Service, engine: Engine) -> None:
    await service.bring(Status.COMPLETED)
    await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": "10"})
    log = await whole_log(engine)
    assert [(one["position"], one["type"], one["hash"]) for one in await pages(service)] == [
        (row.position, row.entry.type, row.hash.hex()) for row in log
    ]


async def test_an_event_is_shown_as_in_its_tasks_history_with_its_task_and_account(service: Service) -> None:
    task = await service.create(input={"prompt": "a cat"})
    await service.reported(task["id"], "progressed", percent=40, message="on its way")
    shown = [one for one in await pages(service) if one["task"] == task["id"]]
    assert shown == [{"task": task["id"], "account": ACCOUNT, **event} for event in await service.history(task["id"])]
    assert shown[0]["payload"]["input"] == {"prompt": "a cat"}


async def test_what_is_about_no_task_says_so(service: Service) -> None:
    first = (await page(service, "?limit=1"))["events"][0]
    assert (first["type"], first["task"]) == ("key-issued", None)


async def test_the_cursor_of_a_task_goes_on_right_after_its_last_event(service: Service) -> None:
    task = await service.create()
    later = await service.create()
    read = await page(service, f"?after={task['cursor']}")
    assert {one["task"] for one in read["events"]} == {later["id"]}


async def test_at_the_end_there_is_nothing_and_the_cursor_stays(service: Service) -> None:
    end = (await page(service, "?limit=200"))["next_cursor"]
    assert await page(service, f"?after={end}") == {"events": [], "next_cursor": end, "has_more": False}


async def test_one_may_begin_at_the_end(service: Service) -> None:
    await service.create()
    read = await page(service, "?after=end")
    assert read["events"] == []
    task = await service.create()
    assert {one["task"] for one in (await page(service, f"?after={read['next_cursor']}"))["events"]} == {task["id"]}


FILTERS = [
    ("type=created", {"created"}, {ACCOUNT, STRANGER}),
    ("type=completed,charged", {"completed", "charged"}, {ACCOUNT}),
    (f"account={STRANGER}", {"created", "held"}, {STRANGER}),
    (f"account={ACCOUNT}&type=held", {"held"}, {ACCOUNT}),
]


@pytest.mark.parametrize(("query", "types", "accounts"), FILTERS, ids=[query for query, _, _ in FILTERS])
async def test_what_does_not_fit_is_left_out(service: Service, query: str, types: set[str], accounts: set[str]) -> None:
    await service.bring(Status.COMPLETED)
    await service.create(account=STRANGER)
    everything = await pages(service)
    found = await pages(service, f"limit=2&{query}")
    assert found == [one for one in everything if one["type"] in types and one["account"] in accounts]
    assert {one["type"] for one in found} == types
    assert {one["account"] for one in found} == accounts


async def test_every_type_of_event_can_be_asked_for(service: Service) -> None:
    for kind in TYPES:
        assert all(one["type"] == kind for one in (await page(service, f"?type={kind}"))["events"])


async def test_a_filter_that_nothing_fits_moves_the_cursor_on_and_looks_at_no_more_than_so_many(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LOOKED_AT_MAX", 4)
    monkeypatch.setattr(feeds, "CHUNK", 4)
    for _ in range(5):
        await service.create()
    read = await page(service, "?type=deleted")
    assert (read["events"], read["has_more"]) == ([], True)
    assert read["next_cursor"] == position_cursor(service.ledger.engine.log_id, 4)
    assert await pages(service, "type=deleted") == []
    assert len(await pages(service, "type=held&limit=1")) == 5


async def test_a_page_of_large_events_ends_early(service: Service) -> None:
    for _ in range(12):
        await service.create(input={"prompt": "x" * 1_000_000})
    read = await page(service, "?type=created&limit=200")
    assert read["has_more"]
    assert 7 <= len(read["events"]) <= 8
    assert len(await pages(service, "type=created&limit=200")) == 12


async def test_an_event_may_come_in_an_envelope(service: Service) -> None:
    task = await service.create()
    plain, wrapped = await pages(service), await pages(service, "envelope=cloudevents&limit=3")
    assert [one["data"] for one in wrapped] == plain
    assert wrapped[-1] == {
        "specversion": "1.0",
        "id": str(plain[-1]["position"]),
        "source": f"urn:task-ledger:log:{service.ledger.engine.log_id}",
        "type": "task-ledger.held",
        "subject": task["id"],
        "time": plain[-1]["effective_at"],
        "datacontenttype": "application/json",
        "data": plain[-1],
    }
    assert "subject" not in wrapped[0]
    assert len({(one["source"], one["id"]) for one in wrapped}) == len(wrapped)


async def test_the_feed_is_the_operators(service: Service) -> None:
    reply = await service.native("GET", "/events", key=service.worker)
    assert (reply.status, code_of("ledger", reply)) == (403, "forbidden")


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_cursor_that_is_not_this_logs_is_told_before_anything_else(service: Service, accept: str) -> None:
    end = await service.position()
    log_id = service.ledger.engine.log_id
    beyond, foreign = position_cursor(log_id, end + 1), position_cursor("another", 1)
    for cursor in (beyond, foreign, "nonsense"):
        for told in ({"Last_Event_ID": cursor}, {}):
            reply = await service.native("GET", "/events" if told else f"/events?after={cursor}", Accept=accept, **told)
            assert (reply.status, code_of("ledger", reply)) == (400, "wrong_cursor")
            assert reply.json()["param"] == ("Last-Event-ID" if told else "after")


async def test_the_last_id_that_a_client_has_seen_beats_the_cursor_in_its_address(service: Service) -> None:
    read = await page(service, "?limit=1")
    beside = await page(service, "?limit=1&after=end", Last_Event_ID=read["next_cursor"])
    assert [one["position"] for one in beside["events"]] == [2]


async def test_a_hole_in_the_log_is_a_fault_and_is_not_passed_over() -> None:
    class Holed(MemoryEngine):
        async def after(self, position: int, limit: int) -> list[Recorded]:
            return [row for row in await super().after(position, limit) if row.position != 2]

    engine = Holed()
    for number in range(1, 4):
        await engine.commit([append(number)])
    with pytest.raises(DamagedError, match="hole"):
        await Feed(engine).page(0, EventFilter(), events_max=10, bytes_max=1000)


# Erasure


async def test_what_was_erased_is_shown_as_erased_by_whichever_way_it_is_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await service.bring(Status.COMPLETED, "chunkr", input={"file": "https://example.com/secret.pdf"})
    async with opened(service) as reader:
        before = await take(reader, await service.position())
        assert any("secret.pdf" in event.data for event in before)
        await service.ledger.handle(delete(spelled(task["id"])))
        recent = (await service.native("GET", "/events?limit=200")).body
        monkeypatch.setattr(feeds, "RECENT_MAX", 0)  # and as the log itself is read
        afresh = await Feed(service.ledger.engine).page(0, EventFilter(), events_max=200, bytes_max=10**7)
    for text in (recent, b"".join(one.body for one in afresh.events)):
        assert b"secret.pdf" not in text
        assert b'"payload":null,"erased":true' in text


# What many read


class Counting(Watched):
    """Notes what is read of the log."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.reads: list[int] = []

    async def after(self, position: int, limit: int) -> list[Recorded]:
        self.reads.append(position)
        return await super().after(position, limit)


async def test_an_event_is_read_and_rendered_once_for_all_who_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    render = feed_shapes.render

    def counted(row: Recorded, form: Any, log_id: str) -> bytes:  # noqa: ANN401
        rendered.append(row.position)
        return render(row, form, log_id)

    monkeypatch.setattr(feeds, "render", counted)
    engine = Counting(MemoryEngine())
    await engine.commit([append(1, events=3)])
    feed = Feed(engine)
    found = await asyncio.gather(*(feed.page(0, EventFilter(), events_max=9, bytes_max=10**6) for _ in range(20)))
    assert {tuple(one.position for one in page.events) for page in found} == {(1, 2, 3)}
    assert (engine.reads, rendered) == ([0], [1, 2, 3])


@pytest.mark.parametrize(("count", "size"), [(40, 10**9), (10**9, 20_000)])
async def test_what_is_shared_is_bounded_and_whoever_is_further_behind_reads_the_log(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(feeds, "RECENT_MAX", count)
    monkeypatch.setattr(feeds, "RECENT_MAX_BYTES", size)
    engine = MemoryEngine()
    feed = Feed(engine)
    follower = 0
    for number in range(1, 201):
        await engine.commit([append(number)])
        (told,) = (await feed.page(follower, EventFilter(), events_max=9, bytes_max=10**6)).events
        follower = told.position
        assert follower == number
        assert len(feed._recent) <= count
        assert sum(one.weight_bytes for one in feed._recent) == feed._weight_bytes <= size
    behind = await feed.page(0, EventFilter(), events_max=500, bytes_max=10**7)
    assert [one.position for one in behind.events] == [*range(1, 201)]
    assert behind.is_end


async def test_who_has_not_read_for_long_is_caught_up_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RECENT_MAX", 5)
    engine = MemoryEngine()
    feed = Feed(engine)
    position, found = 0, []
    for burst in (3, 50, 1, 7, 200):
        await engine.commit([append(100 + len(await whole_log(engine)), events=burst)])
        read = await feed.page(position, EventFilter(), events_max=1000, bytes_max=10**7)
        found += [one.position for one in read.events]
        position = read.beyond
    assert found == [*range(1, 262)]


# Waiting


async def test_a_page_waits_for_what_comes(service: Service) -> None:
    end = (await page(service, "?after=end"))["next_cursor"]
    waiting = asyncio.create_task(page(service, f"?after={end}&wait=30"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    task = await service.create()
    assert {one["task"] for one in (await waiting)["events"]} == {task["id"]}


async def test_a_page_waits_for_what_fits_and_for_nothing_else(service: Service) -> None:
    waiting = asyncio.create_task(page(service, f"?after=end&wait=30&account={STRANGER}&type=held"))
    await asyncio.sleep(0.05)
    for _ in range(3):
        await service.create()
    await asyncio.sleep(0.2)
    assert not waiting.done()
    task = await service.create(account=STRANGER)
    assert [one["task"] for one in (await waiting)["events"]] == [task["id"]]


async def test_a_page_that_has_waited_in_vain_is_empty_and_tells_how_far_it_has_looked(service: Service) -> None:
    waiting = asyncio.create_task(page(service, "?after=end&wait=1&type=deleted"))
    await asyncio.sleep(0.05)
    await service.create()
    read = await waiting
    assert (read["events"], read["has_more"]) == ([], False)
    assert read["next_cursor"] == position_cursor(service.ledger.engine.log_id, await service.position())


async def test_what_another_process_appends_wakes_a_reader(tmp_path: Path) -> None:
    async with serving(await ENGINES["sqlite"].open(tmp_path)) as service, opened(service, "?after=end") as reader:
        other = await open_beside(tmp_path / "ledger.db")
        await Keyring(other).issue(account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="cli", at_us=CREATED_US)
        await other.close()
        assert (await reader.next()).json()["type"] == "key-issued"


# As a stream


async def test_a_stream_tells_what_there_is_and_then_what_comes(service: Service) -> None:
    await service.create()
    before = await pages(service)
    async with opened(service) as reader:
        assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream")
        assert reader.headers["cache-control"] == "no-store"
        told = await take(reader, len(before))
        assert [event.json() for event in told] == before
        assert {event.name for event in told} == {"message"}
        assert [event.last_id for event in told] == [event["cursor"] for event in before]
        task = await service.bring(Status.COMPLETED)
        news = await take(reader, task["version"])
        assert [event.json()["version"] for event in news] == [*range(1, task["version"] + 1)]


async def test_a_stream_is_filtered_and_wrapped_as_pages_are(service: Service) -> None:
    query = f"?account={STRANGER}&type=created&envelope=cloudevents&after=end"
    async with opened(service, query) as reader:
        await service.create()
        task = await service.create(account=STRANGER)
        event = (await reader.next()).json()
        assert (event["type"], event["subject"]) == ("task-ledger.created", task["id"])


@pytest.mark.parametrize("seen", [0, 1, 4])
async def test_who_was_cut_off_goes_on_right_after_the_last_event_that_he_has_seen(service: Service, seen: int) -> None:
    await service.bring(Status.COMPLETED)
    async with opened(service) as reader:
        await reader.heartbeat()
        first = await take(reader, seen)
        last_id = reader.last_id
    await service.create()
    everything = await pages(service)
    async with opened(service, "?after=end", Last_Event_ID=last_id) as reader:
        rest = await take(reader, len(everything) - seen)
    assert [event.json() for event in first + rest] == everything


async def test_a_quiet_stream_says_that_it_is_there_and_how_far_it_is(engine: Engine) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(engine, waiting=StayLimits(heartbeat_seconds=1)))
        reader = await stack.enter_async_context(opened(service, "?type=deleted"))
        await service.create()
        position = await service.position()
        await reader.heartbeat()
        await reader.heartbeat()
        assert reader.last_id == position_cursor(engine.log_id, position)


# Who is cut off


@pytest.fixture
async def impatient(engine: Engine) -> AsyncIterator[Service]:
    """A service that waits a second for slow readers."""
    async with serving(engine, waiting=StayLimits(slow_seconds=1)) as running:
        yield running


async def much(service: Service) -> None:
    """More happens than a connection holds."""
    for _ in range(30):
        await service.create(input={"prompt": "x" * 500_000})


async def test_a_slow_reader_is_cut_off_and_costs_no_more_than_his_connection(impatient: Service) -> None:
    service = impatient
    async with opened(service, "?after=end"):
        await much(service)
        line = await logged(service)
        assert line["why"] == "slow_reader"
        assert line["bytes"] < 14_000_000, "what he has not taken was not made for him"
    assert await page(service)


async def test_a_slow_reader_who_reads_on_in_time_is_told_why_and_how_to_go_on(
    impatient: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = impatient
    monkeypatch.setattr(streams, "LINGER_SECONDS", 60)
    async with opened(service, "?after=end") as reader:
        await much(service)
        await asyncio.sleep(3)
        told = await reader.rest()
    assert (told[-1].name, told[-1].json()) == ("end", {"reason": "slow_reader"})
    missed = await pages(service, "limit=200", after=told[-1].last_id)
    assert len(told) - 1 + len(missed) == 60
    assert missed[0]["position"] == told[-2].json()["position"] + 1


async def logged(service: Service) -> dict[str, Any]:
    """The line that tells how a stream ended."""
    async with asyncio.timeout(20):
        while not service.logged("stream.ended"):  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
    (line,) = service.logged("stream.ended")
    return line


async def test_a_dead_key_ends_the_stream_that_it_opened(service: Service) -> None:
    operator = await service.key("ledger", account="another", role=Role.OPERATOR)
    async with stream(service.port, "/ledger/v1/events?after=end", key=operator, headers=SSE) as reader:
        token = parse(operator)
        assert token is not None
        await service.native("DELETE", f"/keys/{token.key_id}")
        told = await reader.rest()
    assert [event.json() for event in told if event.name == "end"] == [{"reason": "key_revoked"}]
    assert [event.json()["type"] for event in told if event.name == "message"] == ["key-revoked"]


async def test_a_stop_ends_streams_at_once_and_says_so(engine: Engine) -> None:
    async with AsyncExitStack() as stack:
        async with serving(engine) as service:
            reader = await stack.enter_async_context(opened(service, "?after=end"))
            waiting = asyncio.create_task(waited(service))
            await asyncio.sleep(0.1)
            stopped_at = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopped_at < 4, "the drain waited for those who stay"
        assert [event.json() for event in await reader.rest()] == [{"reason": "shutdown"}]
        assert msgspec.json.decode(await waiting)["events"] == []


async def waited(service: Service) -> bytes:
    """What a page comes to that waits, on a connection of its own."""
    target = "/ledger/v1/events?after=end&wait=60"
    async with stream(service.port, target, key=service.operator) as answer:
        return await answer.body()


async def test_there_is_room_for_so_many_readers_and_a_place_is_free_again_when_one_has_left(engine: Engine) -> None:
    async with serving(engine, waiting=StayLimits(feed_max=2)) as service:
        async with opened(service, "?after=end"), opened(service, "?after=end"):
            reply = await service.native("GET", "/events?after=end&wait=1")
            assert (reply.status, code_of("ledger", reply)) == (503, "overloaded")
            assert reply.headers["retry-after"] == "5"
            async with opened(service) as refused:
                assert (refused.status, refused.headers["retry-after"]) == (503, "5")
            assert (await service.native("GET", "/events?wait=9")).status == 200, "there is something: nobody waits"
        await vacated(service)
        async with opened(service) as reader:
            assert reader.status == 200


async def vacated(service: Service) -> None:
    async with asyncio.timeout(20):
        while len(service.logged("stream.ended")) < 2:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)


async def test_a_store_that_fails_meanwhile_ends_the_stream_and_the_reader_comes_back_to_it() -> None:
    class Failing(MemoryEngine):
        fails = False

        async def after(self, position: int, limit: int) -> list[Recorded]:
            if self.fails:
                raise StorageError("the disk is gone")
            return await super().after(position, limit)

    engine = Failing()
    async with serving(engine) as service:
        async with opened(service) as reader:
            await take(reader, await service.position())
            engine.fails = True
            await service.create()
            (told,) = await reader.rest()
            assert (told.name, told.json()) == ("end", {"reason": "store_unavailable"})
        engine.fails = False
        async with opened(service, Last_Event_ID=told.last_id) as reader:
            assert (await reader.next()).json()["type"] == "created"


async def test_a_cursor_from_before_a_restore_is_good_up_to_where_the_log_was_cut() -> None:
    engine = MemoryEngine()
    async with serving(engine) as service:
        await service.create()
        cut = await service.position() - 1
        former = "f" * 16
        engine.lineage = descended((), log_id=former, position=cut, end="00" * 32)
        kept = await page(service, f"?after={position_cursor(former, cut)}")
        assert [event["position"] for event in kept["events"]] == [cut + 1]
        lost = await service.native("GET", f"/events?after={position_cursor(former, cut + 1)}")
        assert (lost.status, code_of("ledger", lost)) == (400, "wrong_cursor")

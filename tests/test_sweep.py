"""The sweep: silence becomes stalled and a deadline expired, on a clock that the test moves."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api import followers, settings, sweep
from api.sweep import Sweeper
from ledger.commands import Expire, MarkStalled
from ledger.engine import Engine
from ledger.errors import CannotOpenError, StorageError
from ledger.silence import SECONDS, Patience
from ledger.sqlite import open_to_serve
from ledger.task import Status
from ledger.times import US_PER_SECOND, rfc3339
from tests.builders import CREATED_US, ENGINES, Watched
from tests.invariants import common_invariant
from tests.serving import VENDORS, Service, queued, serving, spelled

DEADLINE_SECONDS = 3600
DEADLINE = rfc3339(CREATED_US + DEADLINE_SECONDS * US_PER_SECOND)
DAY_SECONDS = 86_400


@pytest.fixture(params=sorted(ENGINES))
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Watched:
    return Watched(await ENGINES[request.param].open(tmp_path))


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        await common_invariant(watched.engine)


async def types(service: Service, task: dict[str, Any]) -> list[str]:
    return [event["type"] for event in await service.history(task["id"])]


async def stalled(service: Service, query: str = "") -> list[str]:
    reply = await service.native("GET", f"/tasks?stalled=true{query}")
    assert reply.status == 200, reply
    return [task["id"] for task in reply.json()["tasks"]]


# Deadlines


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
@pytest.mark.parametrize("contract", VENDORS)
async def test_a_live_task_expires_at_its_deadline_and_not_before_with_its_money_by_rule(
    service: Service, contract: str, status: Status
) -> None:
    task = await service.bring(status, contract, expires_at=DEADLINE)
    service.clock.advance(DEADLINE_SECONDS - 1)
    await service.sweeper.sweep()
    assert (await service.task(task["id"]))["status"] == status
    service.clock.advance(1)
    await service.sweeper.sweep()
    shown = await service.task(task["id"])
    assert (shown["status"], shown["finished_at"]) == ("expired", DEADLINE)
    assert (shown["billing"]["held_credits"], shown["billing"]["net_credits"]) == ("0", "0")
    expired = next(one for one in await service.history(task["id"]) if one["type"] == "expired")
    assert (expired["actor"], expired["recorded_at"]) == ("sweep", DEADLINE)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_a_deadline_is_nothing_to_a_task_that_has_ended(service: Service, status: Status) -> None:
    task = await service.bring(status, expires_at=DEADLINE)
    service.clock.advance(DAY_SECONDS)
    before = await service.position()
    await service.sweeper.sweep()
    assert await service.position() == before
    assert (await service.task(task["id"]))["status"] == status


async def test_what_a_worker_charged_before_the_deadline_is_kept(service: Service) -> None:
    task = await service.bring(Status.RUNNING, expires_at=DEADLINE)
    await service.reported(task["id"], "charged", amount_credits="0.5", key="c1")
    service.clock.advance(DEADLINE_SECONDS)
    await service.sweeper.sweep()
    billing = (await service.task(task["id"]))["billing"]
    assert (billing["charged_credits"], billing["held_credits"], billing["net_credits"]) == ("0.5", "0", "0.5")


async def test_swept_twice_nothing_happens_the_second_time(service: Service) -> None:
    await service.bring(Status.QUEUED, expires_at=DEADLINE)
    await service.bring(Status.RUNNING)
    service.clock.advance(DAY_SECONDS)
    await service.sweeper.sweep()
    end = await service.position()
    for _ in range(3):
        assert await service.sweeper.sweep() == end


async def test_more_than_one_go_takes_are_all_ended_by_one_sweep(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHUNK_MAX", 3)
    due = [await service.bring(Status.QUEUED, expires_at=DEADLINE) for _ in range(8)]
    silent = [await service.bring(Status.RUNNING) for _ in range(8)]
    service.clock.advance(DAY_SECONDS)
    await service.sweeper.sweep()
    assert {(await service.task(task["id"]))["status"] for task in due} == {"expired"}
    assert sorted(await stalled(service)) == sorted(task["id"] for task in silent)


async def test_an_update_that_nobody_ends_is_put_back_at_the_deadline(service: Service) -> None:
    task = await service.bring(Status.COMPLETED, "chunkr", expires_at=DEADLINE)
    await service.sweeper.sweep()  # by now it has been forgotten
    reply = await service.ask(
        "PATCH",
        f"/chunkr/api/v1/task/{task['public_id']}/parse",
        key=await service.key("chunkr"),
        json={"ocr_strategy": "Auto"},
    )
    assert reply.status == 200, reply
    assert (await service.task(task["id"]))["status"] == "queued"
    service.clock.advance(DEADLINE_SECONDS)
    await service.sweeper.sweep()
    assert (await service.task(task["id"]))["status"] == "completed"
    assert (await types(service, task))[-1] == "update-reverted"


# Silence


async def test_a_running_task_that_nobody_hears_of_is_stalled_and_keeps_its_hold(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    service.clock.advance(SECONDS - 1)
    await service.sweeper.sweep()
    assert (await service.task(task["id"]))["stalled_since"] is None
    service.clock.advance(1)
    await service.sweeper.sweep()
    shown = await service.task(task["id"])
    assert (shown["status"], shown["stalled_since"]) == ("running", rfc3339(CREATED_US))
    assert (shown["billing"]["held_credits"], shown["billing"]["released_credits"]) == ("1.5", "0")
    assert (await types(service, task))[-1] == "stalled"


async def test_a_queued_task_is_never_stalled(service: Service) -> None:
    await service.bring(Status.QUEUED)
    service.clock.advance(DAY_SECONDS)
    await service.sweeper.sweep()
    assert await stalled(service) == []


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("progressed", {"percent": 40}), ("charged", {"amount_credits": "0.1", "key": "c1"})],
)
async def test_a_stalled_task_that_is_heard_of_again_is_stalled_no_more_and_may_be_again(
    service: Service, kind: str, fields: dict[str, Any]
) -> None:
    task = await service.bring(Status.RUNNING)
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert await stalled(service) == [task["id"]]
    assert (await service.reported(task["id"], kind, **fields))["stalled_since"] is None
    assert await stalled(service) == []
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    heard_at = rfc3339(CREATED_US + SECONDS * US_PER_SECOND)
    assert (await service.task(task["id"]))["stalled_since"] == heard_at
    assert (await types(service, task)).count("stalled") == 2


async def test_a_worker_that_has_nothing_new_to_say_is_heard_all_the_same(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    await service.reported(task["id"], "progressed", percent=40)
    for _ in range(6):
        service.clock.advance(SECONDS // 2)
        await service.reported(task["id"], "progressed", percent=40)
        await service.sweeper.sweep()
        assert (await service.task(task["id"]))["stalled_since"] is None
    last_heard = rfc3339(service.clock())
    assert (await types(service, task)).count("progressed") == 1, "the log has what is new, and nothing else"
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert (await service.task(task["id"]))["stalled_since"] == last_heard


async def test_those_that_are_heard_without_news_keep_no_silent_one_from_its_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHUNK_MAX", 2)
    talking = [await service.bring(Status.RUNNING) for _ in range(6)]
    silent = await service.bring(Status.RUNNING)
    service.clock.advance(SECONDS)
    for task in talking:
        await service.reported(task["id"], "started")
    await service.sweeper.sweep()
    assert await stalled(service) == [silent["id"]]


async def test_what_a_client_asks_is_not_its_worker_being_heard(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    service.clock.advance(SECONDS - 1)
    assert (await service.native("POST", f"/tasks/{task['id']}/cancel")).status == 202
    service.clock.advance(1)
    await service.sweeper.sweep()
    assert (await service.task(task["id"]))["stalled_since"] == rfc3339(CREATED_US)


async def test_how_long_is_too_long_is_a_models_own(watched: Watched) -> None:
    patience = Patience(seconds=60, of={"lemondata": 600, "lemondata/sora-2": 6000})
    async with serving(watched, patience=patience) as service:
        of_model = await service.bring(Status.RUNNING, model="sora-2")
        of_contract = await service.bring(Status.RUNNING)
        of_all = await service.bring(Status.RUNNING, "beatra")
        for seconds, expected in (
            (60, [of_all]),
            (600, [of_contract, of_all]),
            (6000, [of_model, of_contract, of_all]),
        ):
            service.clock.advance(CREATED_US // US_PER_SECOND + seconds - service.clock() // US_PER_SECOND)
            await service.sweeper.sweep()
            assert sorted(await stalled(service)) == sorted(task["id"] for task in expected)


WAYS_OUT = [("cancel", {}, "running"), ("failed", {"code": "lost"}, "failed"), ("completed", {}, "completed")]


@pytest.mark.parametrize(("way", "fields", "status"), WAYS_OUT)
async def test_the_operator_has_a_way_out_of_silence(
    service: Service, way: str, fields: dict[str, Any], status: str
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    if way == "cancel":
        reply = await service.native("POST", f"/tasks/{task}/cancel")
        assert (reply.status, reply.json()["cancel_requested"]) == (202, True)
        assert reply.json()["stalled_since"] is not None, "that it is asked for is no sign of life"
        shown = await service.reported(task, "cancelled")  # an operator may do all that a worker may
        assert (shown["status"], shown["billing"]["net_credits"]) == ("cancelled", "0")
    else:
        reply = await service.native("POST", f"/tasks/{task}/events", {"type": way, **fields})
        assert (reply.status, reply.json()["status"], reply.json()["stalled_since"]) == (200, status, None)
    assert (await service.task(task))["billing"]["held_credits"] == "0"
    assert await stalled(service) == []


# Races: what comes at the same moment wins or loses in the commit


@pytest.mark.parametrize("first", ["report", "sweep"])
async def test_a_report_at_the_moment_of_the_deadline_wins_or_loses_as_a_whole(
    service: Service, watched: Watched, first: str
) -> None:
    task = (await service.bring(Status.RUNNING, expires_at=DEADLINE))["id"]
    await service.sweeper.sweep()
    service.clock.advance(DEADLINE_SECONDS)
    expire = Expire(task_id=spelled(task), at_us=service.clock(), actor="sweep")
    watched.commit_gate.shut()
    blocker = asyncio.create_task(service.create())  # while it is committed, both wait for the next commit
    await watched.commit_gate.someone_waits()
    if first == "sweep":
        sweeping = asyncio.create_task(service.ledger.handle(expire))
        await queued(service, 1)
        reporting = asyncio.create_task(service.report(task, "completed", actual_credits="1"))
    else:
        reporting = asyncio.create_task(service.report(task, "completed", actual_credits="1"))
        await queued(service, 1)
        sweeping = asyncio.create_task(service.ledger.handle(expire))
    await queued(service, 2)
    watched.commit_gate.open()
    reply, _, _ = await asyncio.gather(reporting, sweeping, blocker)
    shown = await service.task(task)
    status, net, late = ("completed", "1", 0) if first == "report" else ("expired", "0", 1)
    assert (shown["status"], shown["billing"]["net_credits"], shown["late_reports"]) == (status, net, late)
    assert (reply.status, reply.json().get("late", False)) == (200, bool(late))


async def test_a_task_that_was_heard_of_since_is_not_marked(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    service.clock.advance(SECONDS)
    heard: list[str] = []
    plain = service.ledger.handle

    async def handle(command: Any) -> Any:  # noqa: ANN401 - any command, and its outcome
        if isinstance(command, MarkStalled) and not heard:
            heard.append("progressed")
            await service.reported(task, "progressed", percent=1)  # after the sweep has looked, before its command
        return await plain(command)

    service.ledger.handle = handle  # type: ignore[method-assign]
    await service.sweeper.sweep()
    assert heard
    assert (await service.task(task))["stalled_since"] is None


# Clocks


async def test_a_clock_set_back_a_day_expires_nothing_early_and_stalls_nothing_early(service: Service) -> None:
    due = await service.bring(Status.QUEUED, expires_at=DEADLINE)
    running = await service.bring(Status.RUNNING)
    service.clock.now_us -= DAY_SECONDS * US_PER_SECOND
    service.clock.advance(DEADLINE_SECONDS)
    await service.sweeper.sweep()
    assert (await service.task(due["id"]))["status"] == "queued"
    assert (await service.task(running["id"]))["stalled_since"] is None
    service.clock.advance(DAY_SECONDS)
    await service.sweeper.sweep()
    assert (await service.task(due["id"]))["status"] == "expired"
    assert await stalled(service) == [running["id"]]


async def test_a_clock_set_a_year_ahead_passes_deadlines_but_makes_nobody_silent(service: Service) -> None:
    due = await service.bring(Status.QUEUED, expires_at=DEADLINE)
    running = await service.bring(Status.RUNNING)
    service.clock.now_us += 365 * DAY_SECONDS * US_PER_SECOND
    await service.sweeper.sweep()
    assert (await service.task(due["id"]))["status"] == "expired", "a deadline is on the clock, whatever it says"
    assert await stalled(service) == [], "no time has passed in which it could have been heard"
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert await stalled(service) == [running["id"]]


# Ends and faults


async def test_a_service_that_was_down_has_not_listened_and_patience_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with serving(await open_to_serve(path)) as service:
        task = await service.bring(Status.RUNNING)
        late_us = service.clock() + DAY_SECONDS * US_PER_SECOND
    async with serving(await open_to_serve(path), now_us=late_us) as service:
        await service.sweeper.sweep()
        assert await stalled(service) == []
        service.clock.advance(SECONDS)
        await service.sweeper.sweep()
        assert await stalled(service) == [task["id"]]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_sweep_that_the_store_interrupts_goes_on_at_the_next(
    service: Service, watched: Watched, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(sweep, "CHUNK_MAX", 2)
    tasks = [(await service.bring(Status.QUEUED, expires_at=DEADLINE))["id"] for _ in range(5)]
    service.clock.advance(DEADLINE_SECONDS)
    watched.commit_faults.extend([StorageError("the disk is full")] * times)
    for _ in range(times):
        with pytest.raises(StorageError):
            await service.sweeper.sweep()
    await service.sweeper.sweep()
    for task in tasks:
        assert [event["type"] for event in await service.history(task)].count("expired") == 1


async def test_while_the_store_takes_nothing_nobody_can_be_heard_and_patience_begins_anew(
    service: Service, watched: Watched
) -> None:
    task = await service.bring(Status.RUNNING)
    service.clock.advance(SECONDS)
    watched.commit_faults.append(StorageError("the disk is full"))
    with pytest.raises(StorageError):
        await service.sweeper.sweep()
    await service.sweeper.sweep()
    assert await stalled(service) == []
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert await stalled(service) == [task["id"]]


async def test_a_full_queue_ends_the_sweep_and_the_next_one_goes_on(watched: Watched) -> None:
    async with serving(watched, queue_max=2) as service:
        tasks = [(await service.bring(Status.QUEUED, expires_at=DEADLINE))["id"] for _ in range(5)]
        service.clock.advance(DEADLINE_SECONDS)
        for _ in range(5):
            await service.sweeper.sweep()
        assert {(await service.task(task))["status"] for task in tasks} == {"expired"}


async def test_without_a_place_for_the_deadlines_the_list_is_refused_and_all_else_goes_on(service: Service) -> None:
    service.sweeper.path.mkdir()
    with pytest.raises(CannotOpenError, match="deadlines"):
        await service.sweeper.sweep()
    reply = await service.native("GET", "/tasks?stalled=true")
    assert (reply.status, reply.json()["code"]) == (503, "store_unavailable")
    await service.create()


async def test_the_running_service_sweeps_by_itself_and_tells_when_it_cannot(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(sweep, "REST_SECONDS", 0.05)
    async with serving(watched, is_followed=True) as service:
        task = (await service.bring(Status.QUEUED, expires_at=DEADLINE))["id"]
        service.clock.advance(DEADLINE_SECONDS)
        await _until(service, lambda ready: ready["failing"] is False)
        async with asyncio.timeout(10):
            while (await service.task(task))["status"] != "expired":  # noqa: ASYNC110 - another's doing is waited for
                await asyncio.sleep(0.01)
        await asyncio.to_thread(_rename, service.sweeper.path, "live", "mislaid")  # who has its turn needs this loop
        await service.create()
        await _until(service, lambda ready: ready["failing"] is True)
        await asyncio.to_thread(_rename, service.sweeper.path, "mislaid", "live")  # who has its turn needs this loop
        await _until(service, lambda ready: (ready["failing"], ready["lag"]) == (False, 0))


def _rename(path: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")  # its turn among those of the sweep
        db.execute(f"ALTER TABLE {old} RENAME TO {new}")
        db.execute("COMMIT")


async def _until(service: Service, condition: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition((await service.ask("GET", "/readyz")).json()["followers"]["sweep"]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# The list


async def test_the_stalled_are_listed_page_by_page_and_by_account_and_model(service: Service) -> None:
    tasks = [(await service.bring(Status.RUNNING, contract))["id"] for contract in (*VENDORS, *VENDORS)]
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    await service.bring(Status.RUNNING)  # this one is not
    for order in ("asc", "desc"):
        listed: list[str] = []
        query = f"&order={order}&limit=3"
        while True:
            page = (await service.native("GET", f"/tasks?stalled=true{query}")).json()
            listed += [task["id"] for task in page["tasks"]]
            if not page["has_more"]:
                break
            query = f"&order={order}&limit=3&cursor={page['next_cursor']}"
        assert listed == sorted(tasks, reverse=order == "desc")
    assert await stalled(service, "&model=wan-2.6") == sorted([tasks[5], tasks[1]], reverse=True)
    assert await stalled(service, "&account=nobody") == []


async def test_the_list_is_short_when_tasks_are_large(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.native_stalled.CHUNK_MAX_BYTES", 1)
    tasks = [(await service.bring(Status.RUNNING))["id"] for _ in range(2)]
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    page = (await service.native("GET", "/tasks?stalled=true")).json()
    assert ([task["id"] for task in page["tasks"]], page["has_more"]) == ([max(tasks)], True)


# Settings


def test_patience_is_read_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text('[silence]\nseconds = 90\n[silence.of]\nchunkr = 600\n"lemondata/sora-2" = 7200\n')
    patience = settings.read(path).silence
    assert patience == Patience(seconds=90, of={"chunkr": 600, "lemondata/sora-2": 7200})
    assert settings.read(None).silence == Patience()


@pytest.mark.parametrize("wrong", ["of = {sora = 60}", "seconds = 0", "of = {chunkr = 0}", "minutes = 5"])
def test_a_patience_that_cannot_be_meant_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text(f"[silence]\n{wrong}\n")
    with pytest.raises(ValueError, match="silence"):
        settings.read(path)


async def test_a_sweeper_on_a_new_log_has_nothing_to_do(engine: Engine, tmp_path: Path) -> None:
    async with serving(engine) as service:
        fresh = Sweeper(service.ledger, tmp_path / "deadlines", clock=service.clock)
        async with fresh:
            assert await fresh.sweep() == await service.position()

"""The demo worker: what it reports, and that it keeps what every worker owes the ledger."""

import asyncio
import itertools
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import typer
from aiohttp import web
from msgspec.structs import replace

from api.app import clock, make_runner, make_server
from api.bookkeeper import Bookkeeper
from ledger.catalogue import read
from ledger.keys import mint
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.records import TaskFilter
from ledger.sqlite import open_to_serve
from scripts.cli import run
from scripts.demo.plan import Billing, Next, Progress, Report, View, after, kind_of, plan
from scripts.demo.worker import Habits, KeyRefused, RequestRefused, Worker, open_session
from scripts.work import work
from tests.http import caller
from tests.serving import Service, serving

ROOT = Path(__file__).parent.parent
HASTY = Habits(name="w", pace_seconds=0.01)
PATIENCE_SECONDS = 20


# What it reports


def view(capability: str = "text-to-video", **changes: Any) -> View:  # noqa: ANN401 - fields of the view
    task = View(
        id="t1",
        contract="lemondata",
        capability=capability,
        model="m",
        status="running",
        worker="w",
        cancel_requested=False,
        progress=Progress(),
        billing=Billing("1.5"),
        input={},
    )
    return replace(task, **changes)


def planned(task: View, *, seed: int = 1, fail_share: float = 0) -> list[Report]:
    return plan(task, worker="w", dice=Random(seed), fail_share=fail_share)


CAPABILITIES = [
    ("text-to-video", "video"),
    ("image-to-video", "video"),
    ("text_to_image", "image"),
    ("text-to-music", "audio"),
    ("text-to-3d", "model3d"),
    ("parse", "document"),
    ("unknown", "document"),
]


@pytest.mark.parametrize(("capability", "kind"), CAPABILITIES)
def test_a_task_is_started_progresses_and_completes_with_assets_of_its_kind(capability: str, kind: str) -> None:
    started, *progressed, completed = planned(view(capability))
    assert started == {"type": "started", "worker": "w", "provider_task_id": "demo-t1"}
    percents = [report["percent"] for report in progressed]
    assert len(percents) >= 3
    assert percents == sorted(set(percents))
    assert all(report["type"] == "progressed" and 0 < report["percent"] < 100 for report in progressed)
    assert completed["type"] == "completed"
    assert [asset["kind"] for asset in completed["output"]["assets"]] == [kind]
    assert kind_of(view(capability)) == kind


def test_as_many_images_come_as_were_asked_for_up_to_four() -> None:
    counts = [1, 3, 4, 5, 0, -1, "2", None]
    made = [planned(view("text-to-image", input={"n": count}))[-1]["output"]["assets"] for count in counts]
    assert [len(assets) for assets in made] == [1, 3, 4, 1, 1, 1, 1, 1]
    assert len({asset["url"] for asset in made[1]}) == 3


def test_a_parsed_document_has_what_chunkr_shows() -> None:
    output = planned(view("parse", contract="chunkr", input={"file": "https://files.test/a/in.pdf?x=1"}))[-1]["output"]
    assert output["file_name"] == "in.pdf"
    assert output["page_count"] == len(output["chunks"]) >= 1
    assert output["pdf_url"].startswith("https://")
    segments = [segment for chunk in output["chunks"] for segment in chunk["segments"]]
    assert len(segments) >= 1
    for segment in segments:
        assert {"segment_id", "segment_type", "content"} <= segment.keys()
        bbox, width, height = segment["bbox"], segment["page_width"], segment["page_height"]
        assert 0 <= bbox["left"] < bbox["left"] + bbox["width"] <= width
        assert 0 <= bbox["top"] < bbox["top"] + bbox["height"] <= height
        assert 0 <= segment["confidence"] <= 1
        assert 1 <= segment["page_number"] <= output["page_count"]


def test_beatra_is_told_the_usage_and_that_it_cost_what_was_estimated() -> None:
    usage = planned(view("text_to_music", contract="beatra", billing=Billing("80")))[-1]["usage"]
    assert usage["audio_seconds"] > 0
    assert [line["billed_amount_credits"] for line in usage["lines"]] == ["80"]


def test_a_failing_task_fails_on_the_way_with_a_reason() -> None:
    for seed in range(20):
        started, *progressed, failed = planned(view(), seed=seed, fail_share=1)
        assert started["type"] == "started"
        assert progressed
        assert failed["type"] == "failed"
        assert failed["code"]
        assert failed["message"]


def test_the_share_of_failures_is_about_as_asked() -> None:
    ends = Counter(planned(view(), seed=seed, fail_share=0.25)[-1]["type"] for seed in range(400))
    assert 60 < ends["failed"] < 140


def test_the_same_dice_make_the_same_of_a_task() -> None:
    assert planned(view(), seed=7, fail_share=0.5) == planned(view(), seed=7, fail_share=0.5)


def test_a_task_that_was_begun_is_not_told_again_what_it_knows() -> None:
    reports = planned(view(progress=Progress(50)))
    assert [report["percent"] for report in reports if report["type"] == "progressed"] == [60, 80]
    assert (reports[0]["type"], reports[-1]["type"]) == ("started", "completed")


ANSWERS = [
    ({}, Next.GO_ON),
    ({"cancel_requested": True}, Next.CONFIRM),
    ({"status": "cancelled"}, Next.LEAVE),
    ({"status": "completed", "late": True}, Next.LEAVE),
    ({"status": "queued"}, Next.LEAVE),
    ({"cancel_requested": True, "status": "cancelled"}, Next.LEAVE),
    ({"cancel_requested": True, "late": True}, Next.LEAVE),
]


@pytest.mark.parametrize(("told", "expected"), ANSWERS)
def test_what_an_answer_tells_the_worker_to_do(told: dict[str, Any], expected: Next) -> None:
    assert after(view(**told)) is expected


# At work, on the real application


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine()) as running:
        yield running


class Hired:
    """A worker of a test, and what it told of its tasks."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, habits: Habits) -> None:
        self.told: list[tuple[str, str]] = []
        self.worker = Worker(session, url, key, habits, tell=lambda task, became: self.told.append((task.id, became)))

    async def run(self, count: int | None = None) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.worker.run(count)


@asynccontextmanager
async def hired(service: Service, habits: Habits = HASTY, *, port: int | None = None) -> AsyncIterator[Hired]:
    async with open_session() as session:
        yield Hired(session, f"http://127.0.0.1:{port or service.port}", service.worker, habits)


@asynccontextmanager
async def at_work(worker: Hired) -> AsyncIterator[None]:
    """While this is entered, *worker* works without an end."""
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await found():  # noqa: ASYNC110 - what it waits for is on the other side of HTTP
            await asyncio.sleep(0.01)


async def kinds(service: Service, task: str) -> list[str]:
    """The types of the task's events, oldest first, without money."""
    money = {"held", "released", "charged", "refunded"}
    return [event["type"] for event in await service.history(task) if event["type"] not in money]


async def test_it_completes_a_task_of_every_model_there_is(service: Service) -> None:
    models = read().models.values()
    tasks = [(await service.create(one.contract, model=one.name, capability=None))["id"] for one in models]
    async with hired(service, HASTY._replace(pace_seconds=0, concurrency=8)) as worker:
        await worker.run(len(tasks))
    for task in tasks:
        shown = await service.task(task)
        assert shown["status"] == "completed", shown
        assert shown["worker"] == "w"
        assert shown["output"]["assets"]
        events = await kinds(service, task)
        assert events == ["created", "started", *["progressed"] * (len(events) - 3), "completed"]
        assert len(events) >= 6


async def test_it_takes_the_oldest_task_first(service: Service) -> None:
    tasks = []
    for _ in range(5):
        tasks.append((await service.create())["id"])
        service.clock.advance(1)
    async with hired(service, HASTY._replace(pace_seconds=0, concurrency=1)) as worker:
        await worker.run(3)
    assert worker.told == [(task, "completed") for task in tasks[:3]]
    assert [(await service.task(task))["status"] for task in tasks[3:]] == ["queued", "queued"]


async def test_it_works_on_no_more_tasks_at_a_time_than_it_should(service: Service) -> None:
    for _ in range(6):
        await service.create()

    async def running() -> int:
        return len((await service.native("GET", "/tasks?status=running")).json()["tasks"])

    async with hired(service, HASTY._replace(concurrency=2)) as worker, at_work(worker):
        most = 0
        while len(worker.told) < 6:
            most = max(most, await running())
            await asyncio.sleep(0)
    assert most == 2


async def test_a_failed_task_gets_its_money_back(service: Service) -> None:
    task = (await service.create("beatra"))["id"]
    async with hired(service, HASTY._replace(fail_share=1)) as worker:
        await worker.run(1)
    shown = await service.task(task)
    assert shown["status"] == "failed"
    assert shown["error"]["code"]
    assert shown["billing"]["net_credits"] == "0"


async def test_it_confirms_a_cancel_that_an_answer_tells_of(service: Service) -> None:
    task = (await service.create("beatra"))["id"]
    async with hired(service, HASTY._replace(pace_seconds=0.05)) as worker, at_work(worker):
        await until(lambda: _has_status(service, task, "running"))
        assert (await service.native("POST", f"/tasks/{task}/cancel")).status == 202
        await until(lambda: _has_status(service, task, "cancelled"))
    assert (await service.history(task))[-2]["data"]["confirmed"] is True
    assert worker.told == [(task, "cancelled")]


async def test_it_leaves_a_task_that_was_cancelled_at_once_and_goes_on_with_the_next(service: Service) -> None:
    first = (await service.create("bytespike"))["id"]
    service.clock.advance(1)
    second = (await service.create("bytespike"))["id"]
    habits = HASTY._replace(pace_seconds=0.05, concurrency=1)
    async with hired(service, habits) as worker, at_work(worker):
        await until(lambda: _has_status(service, first, "running"))
        spelled = (await service.task(first))["public_id"]
        key = await service.key("bytespike")
        assert (await service.ask("POST", f"/v1/tasks/cancel/{spelled}", key=key)).status == 200
        await until(lambda: _has_status(service, second, "completed"))
    assert worker.told[0] == (first, "cancelled")
    assert (await kinds(service, first))[-2:] == ["cancelled", "late-reported"]


async def test_it_leaves_a_task_that_another_worker_has(service: Service) -> None:
    task = (await service.create())["id"]
    async with hired(service) as worker:
        (stale,) = await worker.worker._ripe(1)
        await service.reported(task, "started", worker="other")
        await worker.worker._carry_through(stale)
    (told,) = worker.told
    assert told[1].startswith("left alone: 409 already_started")
    assert (await service.task(task))["worker"] == "other"


async def test_it_goes_on_with_what_an_earlier_worker_of_its_name_left(service: Service) -> None:
    mine, others = [(await service.create())["id"] for _ in range(2)]
    await service.reported(mine, "started", worker="w")
    await service.reported(mine, "progressed", percent=60, stage="render")
    await service.reported(others, "started", worker="other")
    async with hired(service) as worker:
        await worker.run(1)
    assert await kinds(service, mine) == ["created", "started", "progressed", "progressed", "completed"]
    assert (await service.task(others))["status"] == "running"


async def test_a_task_stays_queued_for_the_delay(service: Service) -> None:
    task = (await service.create())["id"]
    loop = asyncio.get_running_loop()
    async with hired(service, HASTY._replace(delay_seconds=0.8)) as worker:
        begun, running = loop.time(), asyncio.create_task(worker.run(1))
        await until(lambda: _has_status(service, task, "running", "completed"))
        assert loop.time() - begun >= 0.8
        await running


async def _has_status(service: Service, task: str, *wanted: str) -> bool:
    return (await service.task(task))["status"] in wanted


async def test_a_report_whose_answer_was_lost_counts_once(service: Service) -> None:
    task = (await service.create())["id"]
    async with cutting(service) as port, hired(service, HASTY._replace(pace_seconds=0), port=port) as worker:
        await worker.run(1)
    events = await service.history(task)
    assert [event["type"] for event in events].count("progressed") == 4
    assert (await service.task(task))["status"] == "completed"
    assert (await service.task(task))["late_reports"] == 0


@asynccontextmanager
async def cutting(service: Service) -> AsyncIterator[int]:
    """A way to the service on which every other answer is lost, after the service has done what was asked."""
    asked = itertools.count()

    async def pass_on(request: web.Request) -> web.Response:
        key = {"Authorization": request.headers["Authorization"]}
        url = f"http://127.0.0.1:{service.port}{request.rel_url}"
        async with session.request(request.method, url, data=await request.read(), headers=key) as answer:
            body = await answer.read()
        if next(asked) % 2 == 0:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=answer.status, body=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    async with open_session() as session:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


async def test_it_survives_a_restart_of_the_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(await open_to_serve(tmp_path / "ledger.db")) as service:
        tasks = [(await service.create("bytespike"))["id"] for _ in range(3)]
        worker_key, port = service.worker, service.port
    async with open_session() as session:
        worker = Hired(session, f"http://127.0.0.1:{port}", worker_key, HASTY._replace(pace_seconds=0.05))
        running = asyncio.create_task(worker.run(3))
        for _ in range(3):
            async with served_again(tmp_path / "ledger.db", port):
                await asyncio.sleep(0.15)
        async with served_again(tmp_path / "ledger.db", port) as ledger:
            await running
            page = [await ledger.history(task.row.task_id) for task in await ledger.engine.page(TaskFilter())]
    assert sorted(worker.told) == sorted((task, "completed") for task in tasks)
    for rows in page:
        types = [row.entry.type for row in rows]
        assert types.count("progressed") == 4, types
        assert len(types) == 9, types
    assert "does not answer, trying again" in capsys.readouterr().err


@asynccontextmanager
async def served_again(path: Path, port: int) -> AsyncIterator[Ledger]:
    async with Ledger(await open_to_serve(path)) as ledger:
        books = Bookkeeper(ledger.engine, path.with_suffix(".books"))
        callbacks = caller(ledger, path.parent, clock)
        server = make_server(ledger, catalogue=read(), books=books, callbacks=callbacks)
        runner = make_runner(server, drain_seconds=5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
            yield ledger
        finally:
            await runner.cleanup()


async def test_a_key_that_is_not_taken_ends_it(service: Service) -> None:
    key = await service.key("lemondata")
    async with open_session() as session:
        with pytest.raises(KeyRefused, match="403 forbidden"):
            await Hired(session, f"http://127.0.0.1:{service.port}", key, HASTY).run()


async def test_a_key_that_is_revoked_at_work_ends_it(service: Service) -> None:
    await service.create()
    async with hired(service, HASTY._replace(pace_seconds=0.2)) as worker:
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.1)
        service.clock.advance(1)
        await service.ledger.keys.revoke(service.worker.split("_")[1], by="test", at_us=service.clock())
        with pytest.raises(KeyRefused, match="401 revoked_api_key"):
            await running


async def test_what_is_no_ledger_ends_it(service: Service) -> None:
    async with open_session() as session:
        url = f"http://127.0.0.1:{service.port}/elsewhere"
        with pytest.raises(RequestRefused, match="404 not_found"):
            await Hired(session, url, service.worker, HASTY).run()


# The command


async def worker_process(*arguments: str, key: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.work", *arguments,
        stdout=PIPE, stderr=PIPE, cwd=ROOT, env={**os.environ, "TASK_LEDGER_KEY": key},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_quietly_in_the_middle_of_a_task(service: Service, number: signal.Signals) -> None:
    task = (await service.create())["id"]
    process = await worker_process("--url", f"http://127.0.0.1:{service.port}", "--pace", "60", key=service.worker)
    await until(lambda: _has_status(service, task, "running"))
    process.send_signal(number)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0
    assert (await service.task(task))["status"] == "running"


async def test_once_carries_one_task_through_and_prints_what_became_of_it(service: Service) -> None:
    task = (await service.create())["id"]
    url = f"http://127.0.0.1:{service.port}"
    process = await worker_process("--url", url, "--pace", "0", "--once", "--json", key=service.worker)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    expected = f'{{"task":"{task}","contract":"lemondata","model":"seedance-2.0","became":"completed"}}\n'
    assert out.decode() == expected


WRONG = [
    (["--url", "ftp://127.0.0.1"], "--url"),
    (["--url", "nonsense"], "--url"),
    (["--pace", "-1"], "--pace"),
    (["--pace", "nan"], "--pace"),
    (["--fail-share", "1.5"], "--fail-share"),
    (["--concurrency", "0"], "--concurrency"),
    (["--count", "0"], "--count"),
    (["--once", "--count", "2"], "--once"),
    (["--name", "two words"], "--name"),
    (["--key", "tl_mistyped"], "--key"),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = typer.Typer(add_completion=False)
    alone.command()(work)
    _, key = mint(bytes(40))
    assert run(alone, ["--key", key, *arguments]) == 2
    _is_one_line(named, *capsys.readouterr())


async def test_a_key_of_the_wrong_role_and_a_wrong_address_are_one_line_and_exit_code_2(service: Service) -> None:
    url = f"http://127.0.0.1:{service.port}"
    for key, address, named in [(await service.key("chunkr"), url, "--key"), (service.worker, url + "/x", "--url")]:
        process = await worker_process("--url", address, key=key)
        out, err = await process.communicate()
        assert process.returncode == 2
        _is_one_line(named, out.decode(), err.decode())


def _is_one_line(named: str, out: str, err: str) -> None:
    assert out == ""
    assert re.fullmatch(rf"task-ledger: [^\n]*{named}[^\n]*\n", err), err


async def test_a_service_that_is_not_there_yet_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with serving(MemoryEngine()) as service:
        process = await worker_process("--url", f"http://127.0.0.1:{port}", key=service.worker)
        assert process.stderr is not None
        assert b"does not answer, trying again" in await process.stderr.readline()
        process.terminate()
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 0

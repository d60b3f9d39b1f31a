"""The queue of callbacks, by itself: a fold of the log, the same whenever it is made."""

from pathlib import Path

import pytest

from api.callbacks import plan_of
from api.contracts import CONTRACTS
from api.contracts.shape import Contract
from ledger.callbacks import callback_id
from ledger.engine import Engine
from ledger.errors import CannotOpenError
from ledger.ids import TaskId
from ledger.memory import MemoryEngine
from ledger.task import Status
from projections.callbacks.queue import CallbackQueue, open_queue
from projections.callbacks.rows import Delivery, Line, State, Wanted
from projections.follow import catch_up
from tests.receiving import BROKEN, TO_LOOPBACK, receiving
from tests.serving import ACCOUNT, Service, serving, spelled
from tests.test_callbacks import ended, over, retry

URL = "https://example.com/hook"
LINE = Line(ACCOUNT, "https://example.com:443")
EVERYTHING = Wanted(state=None, limit=1000)


async def made(engine: Engine, path: Path, contracts: dict[str, Contract] = CONTRACTS) -> CallbackQueue:
    queue = await open_queue(path, engine, plan_of(contracts))
    await catch_up(engine, queue)
    return queue


async def rows(queue: CallbackQueue) -> list[Delivery]:
    return await queue.listed(EVERYTHING)


async def busy(service: Service) -> None:
    """Some life: outcomes that were delivered, failed, given up, sent again, and a webhook."""
    async with receiving() as receiver:
        key = await service.key("bytespike")
        await service.ask("POST", "/bytespike/api/v1/me/webhooks", key=key, json={"url": receiver.url})
        await over(service, await ended(service, receiver.url), 2)
        receiver.answer = lambda _: BROKEN
        task = await ended(service, receiver.url)
        for attempt in range(1, 7):
            await over(service, task, 2 * attempt)
            await retry(service)
        dead = (await service.native("GET", "/callbacks")).json()["callbacks"]
        await service.native("POST", f"/callbacks/{dead[0]['id']}/resend", {})
        await over(service, task, 14)  # and the webhook has been tried once more


async def test_a_queue_made_at_once_is_the_one_that_followed(tmp_path: Path) -> None:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as service:
        await busy(service)
        engine, caller = service.ledger.engine, service.callbacks
        assert caller is not None
        live = await caller.consult(rows)
        queue = await made(engine, tmp_path / "again")
        anew = await rows(queue)
        assert {one.callback_id: one for one in anew} == {one.callback_id: one for one in live}
        assert {one.state for one in anew} >= {State.DELIVERED, State.WAITING}
        await queue.close()


async def test_a_task_without_an_address_is_in_no_queue(tmp_path: Path) -> None:
    async with serving(MemoryEngine()) as service:
        for status in (Status.COMPLETED, Status.FAILED):
            await service.bring(status, "bytespike")
        await service.bring(Status.RUNNING, "bytespike", callback_url=URL)
        queue = await made(service.ledger.engine, tmp_path / "q")
        assert await rows(queue) == []
        assert await queue.news((await service.ledger.engine.head()).position) == {}
        await queue.close()


async def test_what_is_new_is_told_once_and_all_of_it_when_another_process_was_first(tmp_path: Path) -> None:
    async with serving(MemoryEngine()) as service:
        engine = service.ledger.engine
        mine, theirs = await made(engine, tmp_path / "q"), await made(engine, tmp_path / "q")
        await mine.news((await engine.head()).position)
        await service.bring(Status.FAILED, "bytespike", callback_url=URL)
        head = await catch_up(engine, mine)
        assert await mine.news(head.position) == {LINE: 0}
        assert await mine.news(head.position) == {}
        await service.bring(Status.FAILED, "bytespike", callback_url=URL.replace("example", "other"))
        await catch_up(engine, theirs)
        head = await catch_up(engine, mine)
        assert await mine.news(head.position) == {LINE: 0, Line(ACCOUNT, "https://other.com:443"): 0}
        await mine.close()
        await theirs.close()


async def test_of_one_task_only_the_eldest_is_next(tmp_path: Path) -> None:
    async with serving(MemoryEngine()) as service:
        task = (await service.create("chunkr", callback_url=URL))["id"]
        await service.reported(task, "started")
        await service.reported(task, "completed", output={})
        queue = await made(service.ledger.engine, tmp_path / "q")
        (first,) = await queue.waiting(LINE, 10)
        assert (first.type, first.callback_id) == ("started", callback_id(spelled(task), first.about, None))
        assert len(await rows(queue)) == 2
        await queue.close()


async def test_a_try_from_before_events_said_what_it_was_about_counts(tmp_path: Path) -> None:
    from ledger.commands import RecordCallback  # noqa: PLC0415

    async with serving(MemoryEngine()) as service:
        made_ = await service.bring(Status.FAILED, "bytespike", callback_url=URL)
        told = RecordCallback(
            task_id=TaskId(spelled(made_["id"])), at_us=service.clock(), actor="old", attempt=1, delivered=True
        )
        await service.ledger.handle(told)
        queue = await made(service.ledger.engine, tmp_path / "q")
        assert [one.state for one in await rows(queue)] == [State.DELIVERED]
        await queue.close()


async def test_the_queue_of_another_log_is_begun_anew(tmp_path: Path) -> None:
    async with serving(MemoryEngine()) as service:
        await service.bring(Status.FAILED, "bytespike", callback_url=URL)
        queue = await made(service.ledger.engine, tmp_path / "q")
        assert len(await rows(queue)) == 1
        await queue.close()
    async with serving(MemoryEngine()) as service:
        queue = await made(service.ledger.engine, tmp_path / "q")
        assert await rows(queue) == []
        await queue.close()


async def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "q"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(CannotOpenError):
        await open_queue(path, MemoryEngine(), plan_of(CONTRACTS))
    assert path.read_bytes() == b"something else" * 100


async def test_what_no_contract_tells_is_in_no_queue(tmp_path: Path) -> None:
    silent = {name: one._replace(telling=None, webhooks=None) for name, one in CONTRACTS.items()}
    async with serving(MemoryEngine()) as service:
        await service.bring(Status.FAILED, "bytespike", callback_url=URL)
        queue = await made(service.ledger.engine, tmp_path / "q", silent)
        assert await rows(queue) == []
        await queue.close()

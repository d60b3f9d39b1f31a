"""The cache of views: bounded, one read for all who miss at once, and never older than the last commit."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from ledger.errors import DamagedError, StorageError, TaskNotFound
from ledger.ids import TaskId
from ledger.ledger import Ledger
from ledger.task import Status, Task
from ledger.views import ANSWERS_MAX, OVERHEAD_BYTES, Seen, Views
from tests.builders import (
    Watched,
    append,
    cancel,
    create,
    ident,
    start,
    task_row,
)
from tests.rules_dsl import ACCOUNT, STRANGER

MAX_BYTES = 50 * (OVERHEAD_BYTES + 1000)


@pytest.fixture
def views(watched: Watched) -> Views:
    return Views(watched, weight_max_bytes=MAX_BYTES)


@pytest.fixture
async def reopened(watched: Watched) -> AsyncIterator[Ledger]:
    """A ledger that has tasks 1 to 3 in its store and nothing in memory."""
    before = await Ledger(watched).start()
    await asyncio.gather(*(before.handle(create(ident(number))) for number in (1, 2, 3)))
    await before.writer.close()
    ledger = await Ledger(watched).start()
    watched.task_reads.clear()
    yield ledger
    watched.read_gate.open()
    await ledger.writer.close()


def seen(number: int, *, version: int = 1, size_bytes: int = 500) -> Seen:
    return Seen(Task(task_id=ident(number), version=version), version, size_bytes)


def at_hand(views: Views, count: int) -> list[int]:
    """Which of the tasks below *count* are in memory, without touching them."""
    return [number for number in range(count) if ident(number) in views._cache]


# Bounded


def test_however_many_tasks_are_committed_memory_stays_within_its_bound(views: Views) -> None:
    for number in range(20_000):
        views.put(seen(number, size_bytes=number % 1000))
        assert views._weight_bytes <= MAX_BYTES
    assert views._weight_bytes == sum(kept.weight_bytes for kept in views._cache.values())
    newest = at_hand(views, 20_000)
    assert 50 <= len(newest) <= 70
    assert newest == list(range(20_000 - len(newest), 20_000))


async def test_nor_do_reads_fill_it_beyond_its_bound(watched: Watched, views: Views) -> None:
    await watched.commit([append(number) for number in range(500)])
    for number in range(0, 500, 20):
        found = await views.get_all([ident(n) for n in range(number, number + 20)])
        assert None not in found
        assert views._weight_bytes <= MAX_BYTES
    assert at_hand(views, 500)[-1] == 499


def test_what_was_not_touched_for_longest_goes_first(views: Views) -> None:
    for number in range(50):
        views.put(seen(number))
    assert views.cached(ident(0)) is not None
    views.put(seen(1, version=2))
    for number in range(50, 95):
        views.put(seen(number))
    assert at_hand(views, 4) == [0, 1]


def test_a_view_too_large_for_all_of_it_is_not_kept(views: Views) -> None:
    views.put(seen(1, size_bytes=MAX_BYTES))
    assert at_hand(views, 2) == []
    assert views._weight_bytes == 0


def test_what_is_dropped_weighs_nothing(views: Views) -> None:
    views.put(seen(1))
    views.drop(ident(1))
    views.drop(ident(1))
    assert (views.cached(ident(1)), views._weight_bytes) == (None, 0)


def test_answers_that_are_kept_with_a_task_weigh_too(views: Views) -> None:
    for number in range(1000):
        one = seen(number)
        views.put(one)
        views.keep_answer(one, "an answer", b"x" * 20_000, weight_bytes=20_000)
        assert views._weight_bytes <= MAX_BYTES
    newest = at_hand(views, 1000)
    assert newest == list(range(1000 - len(newest), 1000))
    assert len(newest) == MAX_BYTES // (20_000 + 500 + OVERHEAD_BYTES)
    assert views._weight_bytes == sum(kept.weight_bytes for kept in views._cache.values())
    for number in newest:
        views.drop(ident(number))
    assert views._weight_bytes == 0


def test_a_task_keeps_a_few_answers_and_none_when_it_is_not_in_memory_any_more(views: Views) -> None:
    one = seen(1)
    views.put(one)
    for variant in range(100):
        views.keep_answer(one, variant, b"x", weight_bytes=1)
    assert [*one.answers] == [*range(ANSWERS_MAX)]
    assert views._weight_bytes == one.weight_bytes == 500 + OVERHEAD_BYTES + ANSWERS_MAX
    newer = seen(1, version=2)
    views.put(newer)
    older = seen(1)
    views.keep_answer(older, "an answer", b"x", weight_bytes=1)
    assert older.answers == {}
    assert views._weight_bytes == newer.weight_bytes == 500 + OVERHEAD_BYTES


# One read for all


async def test_all_who_miss_at_once_share_one_read(watched: Watched, views: Views) -> None:
    await watched.commit([append(number) for number in range(100)])
    readers = [views.get(ident(number % 100)) for number in range(300)]
    found = await asyncio.gather(*readers)
    assert [one.task.task_id for one in found if one is not None] == [ident(number % 100) for number in range(300)]
    assert len(watched.task_reads) == 1
    assert len(watched.task_reads[0]) == 100


async def test_who_misses_during_a_read_shares_the_next_one(watched: Watched, views: Views) -> None:
    await watched.commit([append(number) for number in range(10)])
    watched.read_gate.shut()
    first = asyncio.create_task(views.get(ident(0)))
    await watched.read_gate.someone_waits()
    others = [asyncio.create_task(views.get(ident(number % 10))) for number in range(30)]
    await asyncio.sleep(0)
    assert len(watched.task_reads) == 1
    watched.read_gate.open()
    await asyncio.gather(first, *others)
    assert [len(ids) for ids in watched.task_reads] == [1, 10]


async def test_what_is_at_hand_is_not_read_again(watched: Watched, views: Views) -> None:
    await watched.commit([append(1), append(2)])
    first = await views.get(ident(1))
    assert await views.get(ident(1)) is first
    assert await views.get_all([ident(1)]) == [first]
    assert len(watched.task_reads) == 1
    assert [one and one.task.task_id for one in await views.get_all([ident(2), ident(1), ident(9)])] == [
        ident(2),
        ident(1),
        None,
    ]
    assert watched.task_reads[1:] == [[ident(2), ident(9)]]
    assert await views.get_all([]) == []


# Never older than the last commit


async def test_a_commit_during_a_read_is_not_overwritten_by_what_was_read(watched: Watched, views: Views) -> None:
    await watched.commit([append(1)])
    watched.read_gate.shut()
    reading = asyncio.create_task(views.read(ident(1)))
    await watched.read_gate.someone_waits()
    newer = seen(1, version=2)
    views.put(newer)
    watched.read_gate.open()
    old = await reading
    assert old is not None
    assert old.task.version == 1
    assert views.cached(ident(1)) is newer
    views.drop(ident(1))
    assert await views.read(ident(1)) is views.cached(ident(1)) is not None  # as long as that read lasts, no longer


async def test_what_was_dropped_during_a_read_is_not_brought_back_by_it(watched: Watched, views: Views) -> None:
    await watched.commit([append(1), append(2)])
    watched.read_gate.shut()
    reading = asyncio.create_task(views.get_all([ident(1), ident(2)]))
    await watched.read_gate.someone_waits()
    views.drop(ident(1))
    watched.read_gate.open()
    assert None not in await reading
    assert at_hand(views, 3) == [2]
    assert await views.get(ident(1)) is views.cached(ident(1)) is not None


async def test_not_even_when_the_commit_was_too_large_to_be_kept(watched: Watched, views: Views) -> None:
    await watched.commit([append(1)])
    watched.read_gate.shut()
    reading = asyncio.create_task(views.get(ident(1)))
    await watched.read_gate.someone_waits()
    views.put(seen(1, version=2, size_bytes=MAX_BYTES))
    watched.read_gate.open()
    await reading
    assert views.cached(ident(1)) is None


async def test_a_stranger_who_reads_during_a_commit_does_not_bring_back_the_state_before(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1)))
    watched.read_gate.shut()
    prying = asyncio.create_task(ledger.task(ident(1), account=STRANGER, tells_foreign=True))
    await watched.read_gate.someone_waits()
    started = await ledger.handle(start(ident(1)))
    watched.read_gate.open()
    with pytest.raises(TaskNotFound) as refused:
        await prying
    assert refused.value.foreign
    assert (await ledger.task(ident(1), account=ACCOUNT)).task == started.task
    assert (await ledger.handle(cancel(ident(1)))).task.version == started.task.version + 3


async def test_who_misses_after_a_commit_reads_what_it_wrote(watched: Watched, views: Views) -> None:
    await watched.commit([append(1)])
    watched.read_gate.shut()
    early = asyncio.create_task(views.get(ident(1)))
    await watched.read_gate.someone_waits()
    await watched.commit([append(1, expected=1)])
    late = asyncio.create_task(views.read(ident(1)))
    await asyncio.sleep(0)
    watched.read_gate.open()
    found = await asyncio.gather(early, late)
    assert [one.task.version for one in found if one is not None] == [1, 2]
    kept = views.cached(ident(1))
    assert kept is not None
    assert kept.task.version == 2


# Absent, foreign


@pytest.mark.parametrize("account", [ACCOUNT, STRANGER, None])
async def test_an_absent_task_costs_one_read(reopened: Ledger, watched: Watched, account: str | None) -> None:
    for times in (1, 2, 3):
        with pytest.raises(TaskNotFound) as refused:
            await reopened.task(ident(9), account=account)
        assert not refused.value.foreign
        assert watched.task_reads == [[ident(9)]] * times


@pytest.mark.parametrize("tells", [False, True])
async def test_a_foreign_task_costs_one_read_too_whether_it_is_at_hand_or_not(
    reopened: Ledger, watched: Watched, *, tells: bool
) -> None:
    for times in (1, 2, 3):
        with pytest.raises(TaskNotFound) as refused:
            await reopened.task(ident(1), account=STRANGER, tells_foreign=tells)
        assert refused.value.foreign is tells
        assert str(refused.value) == str(TaskNotFound())
        assert watched.task_reads == [[ident(1)]] * times


async def test_an_own_task_is_read_once_and_then_at_hand(reopened: Ledger, watched: Watched) -> None:
    for account in (ACCOUNT, None, ACCOUNT):
        found = await reopened.task(ident(1), account=account)
        assert (found.task.status, found.position) == (Status.QUEUED, 2)
    assert watched.task_reads == [[ident(1)]]


async def test_absent_and_foreign_tasks_share_the_read_of_those_who_ask_with_them(
    reopened: Ledger, watched: Watched
) -> None:
    asked = [(ident(1), STRANGER), (ident(9), STRANGER), (ident(2), ACCOUNT), (ident(9), ACCOUNT)]
    reads = (reopened.task(task, account=account) for task, account in asked)
    kinds = [type(found) for found in await asyncio.gather(*reads, return_exceptions=True)]
    assert kinds == [TaskNotFound, TaskNotFound, Seen, TaskNotFound]
    assert len(watched.task_reads) == 1


# Reads that fail, and readers who leave


async def test_a_read_that_fails_fails_all_who_wait_for_it_and_the_next_one_works(
    watched: Watched, views: Views
) -> None:
    await watched.commit([append(1), append(2)])
    watched.read_faults.append(StorageError("disk gone"))
    tasks = [ident(1), ident(2), ident(1), ident(9)]
    failed = await asyncio.gather(*(views.get(task) for task in tasks), return_exceptions=True)
    assert [type(fault) for fault in failed] == [StorageError] * 4
    assert at_hand(views, 3) == []
    watched.read_faults.append(StorageError("disk gone"))
    with pytest.raises(StorageError):
        await views.get_all([ident(1), ident(2)])
    assert [one is not None for one in await views.get_all(tasks)] == [True, True, True, False]


async def test_who_waits_for_the_read_after_the_failed_one_is_served(watched: Watched, views: Views) -> None:
    await watched.commit([append(1)])
    watched.read_faults.append(StorageError("disk gone"))
    watched.read_gate.shut()
    first = asyncio.create_task(views.get(ident(1)))
    await watched.read_gate.someone_waits()
    second = asyncio.create_task(views.get(ident(1)))
    await asyncio.sleep(0)
    watched.read_gate.open()
    with pytest.raises(StorageError):
        await first
    assert await second is not None


async def test_a_reader_who_leaves_does_not_disturb_the_others(watched: Watched, views: Views) -> None:
    await watched.commit([append(1)])
    watched.read_gate.shut()
    leaver, stayer = (asyncio.create_task(views.get(ident(1))) for _ in range(2))
    await watched.read_gate.someone_waits()
    leaver.cancel()
    await asyncio.sleep(0)
    watched.read_gate.open()
    assert await stayer is not None
    assert leaver.cancelled()
    assert at_hand(views, 2) == [1]


@pytest.mark.parametrize("fault", [None, StorageError("disk gone")])
async def test_when_all_readers_have_left_the_next_one_is_served(
    watched: Watched, views: Views, fault: StorageError | None
) -> None:
    await watched.commit([append(1)])
    if fault is not None:
        watched.read_faults.append(fault)
    watched.read_gate.shut()
    leaver = asyncio.create_task(views.get(ident(1)))
    await watched.read_gate.someone_waits()
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    watched.read_gate.open()
    assert await views.get(ident(1)) is not None
    assert await views.get(ident(9)) is None


@pytest.mark.parametrize("view", [b"", b"{", b'{"version":"one"}', b'{"account":"\xff"}'])
async def test_a_damaged_view_fails_who_asks_for_it_and_nobody_else(
    watched: Watched, views: Views, view: bytes
) -> None:
    await watched.commit([append(1, task=replace(task_row(1), view=view)), append(2)])
    damaged, sound = await asyncio.gather(views.get(ident(1)), views.get(ident(2)), return_exceptions=True)
    assert isinstance(damaged, DamagedError)
    assert ident(1).hex() in str(damaged)
    assert isinstance(sound, Seen)
    assert await views.get(ident(9)) is None


async def test_a_foreign_task_is_told_by_its_row_alone_and_takes_no_room(watched: Watched, views: Views) -> None:
    await watched.commit([append(1, task=replace(task_row(1), view=b"{")), append(2)])
    assert await views.read(ident(1), account=STRANGER) is None, "or it would be found damaged"
    assert await views.read(ident(2), account=STRANGER) is None
    assert at_hand(views, 3) == []
    theirs, ours, everyones = await asyncio.gather(
        views.read(ident(2), account=STRANGER), views.read(ident(2), account=ACCOUNT), views.read(ident(2))
    )
    assert theirs is None
    assert ours is everyones is views.cached(ident(2)) is not None


async def test_a_command_to_a_task_with_a_damaged_view_fails_alone(ledger: Ledger, watched: Watched) -> None:
    await watched.engine.commit([append(1, task=replace(task_row(1), view=b"{"))])
    commands = (create(ident(2)), start(ident(1)), create(ident(3)))
    outcomes = await asyncio.gather(*(ledger.handle(command) for command in commands), return_exceptions=True)
    assert [isinstance(outcome, DamagedError) for outcome in outcomes] == [False, True, False]
    assert {TaskId(row.stream) for row in await ledger.history(ident(2))} == {ident(2)}

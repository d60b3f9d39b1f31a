"""How many tasks an account may have under way: counted by the writer, exactly, whoever asks at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.accounts import Accounts
from ledger.commands import Create, NewWork, RequestUpdate, TaskCommand
from ledger.credit import Grant
from ledger.engine import Engine
from ledger.errors import InsufficientCredits, KeyReused, Refusal, StorageError, TooManyTasks
from ledger.events import School
from ledger.keyring import Keyring
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.records import Recorded
from ledger.sqlite import open_beside, open_to_serve
from ledger.task import LIVE
from tests.builders import (
    ACCOUNT,
    CREATED_US,
    PERSISTENT,
    STRANGER,
    Store,
    Watched,
    cancel,
    claim,
    complete,
    create,
    ident,
    start,
)
from tests.invariants import OUTCOMES, common_invariant
from tests.rules_dsl import BEATRA, HOLD, ON_SUCCESS, confirm, update
from tests.test_histories import history

AT_ONCE, CAP = 64, 5
FREE_OF_CHARGE = replace(HOLD, estimated_micros=0)

only_persistent = pytest.mark.parametrize("store", PERSISTENT, indirect=True)


def new(number: int, *, tasks_max: int | None = CAP, account: str = ACCOUNT) -> Create:
    """A task that costs nothing: only the count can refuse it."""
    return create(ident(number), account=account, terms=FREE_OF_CHARGE, tasks_max=tasks_max)


def put_back_to_work(number: int, *, tasks_max: int | None = CAP) -> RequestUpdate:
    return replace(update("All"), task_id=ident(number), tasks_max=tasks_max)


async def answers(ledger: Ledger, commands: Sequence[TaskCommand]) -> list[object]:
    """What commands that are asked all at once come to: outcomes, and refusals for want of room."""
    told: list[object] = [*await asyncio.gather(*map(ledger.handle, commands), return_exceptions=True)]
    assert all(isinstance(one, TooManyTasks) for one in told if isinstance(one, BaseException)), told
    return told


async def tried(ledger: Ledger, numbers: Sequence[int], *, tasks_max: int = CAP, account: str = ACCOUNT) -> list[int]:
    """Which of these tasks were admitted, created all at once."""
    told = await answers(ledger, [new(number, tasks_max=tasks_max, account=account) for number in numbers])
    return [number for number, one in zip(numbers, told, strict=True) if not isinstance(one, TooManyTasks)]


async def live(engine: Engine, account: str = ACCOUNT) -> int:
    """How many are under way by the account's row in the store."""
    rows = await engine.accounts([account])
    return rows[account].live_tasks if account in rows else 0


def most(log: Sequence[Recorded], account: str = ACCOUNT) -> int:
    """The most that were ever under way, counted anew from the log."""
    under_way: set[bytes] = set()
    counts = [0]
    for row in log:
        if row.account == account and row.entry.type in {"created", "update-requested"}:
            under_way.add(row.stream)
        elif row.account == account and row.entry.type in OUTCOMES:
            under_way.remove(row.stream)
        counts.append(len(under_way))
    return max(counts)


# Many at once


@pytest.mark.parametrize("batch_max", [1, 3, 16, AT_ONCE])
async def test_of_sixty_four_creates_at_once_as_many_are_let_through_as_the_cap_has_places(
    watched: Watched, batch_max: int
) -> None:
    ledger = await Ledger(watched, batch_max=batch_max).start()
    assert await tried(ledger, range(AT_ONCE)) == [0, 1, 2, 3, 4]
    assert await live(watched.engine) == CAP
    await ledger.handle(complete(ident(3)))
    assert await tried(ledger, range(100, 100 + AT_ONCE)) == [100]
    await ledger.writer.close()
    assert most(await watched.engine.after(0, 10_000)) == CAP
    await common_invariant(watched.engine)


@pytest.mark.parametrize("batch_max", [1, 7, AT_ONCE])
async def test_while_tasks_come_and_go_all_at_once_the_cap_is_never_passed_and_always_reached(
    watched: Watched, batch_max: int
) -> None:
    ledger = await Ledger(watched, batch_max=batch_max).start()
    under_way: list[int] = []
    for round_ in range(8):
        ending = [cancel(ident(number)) if number % 2 else complete(ident(number)) for number in under_way[:3]]
        fresh = range(100 * round_, 100 * round_ + AT_ONCE // 2)
        coming: list[TaskCommand] = [new(number) for number in fresh]
        coming[4:4] = ending
        await answers(ledger, coming)
        under_way = [
            number
            for number in [*under_way, *fresh]
            if (row := (await watched.engine.tasks([ident(number)])).get(ident(number))) and row.row.status in LIVE
        ]
        assert len(under_way) == await live(watched.engine) == CAP
    await ledger.writer.close()
    assert most(await watched.engine.after(0, 10_000)) == CAP
    await common_invariant(watched.engine)


async def test_in_one_batch_each_is_admitted_by_what_the_ones_before_it_left(ledger: Ledger, watched: Watched) -> None:
    assert await tried(ledger, [1, 2], tasks_max=2) == [1, 2]
    asked: list[TaskCommand] = [new(3, tasks_max=2), cancel(ident(1)), new(4, tasks_max=2), new(5, tasks_max=2)]
    told = await answers(ledger, asked)
    assert [isinstance(one, TooManyTasks) for one in told] == [True, False, False, True]
    assert len(watched.commits) == 2


async def test_accounts_are_counted_apart(ledger: Ledger, watched: Watched) -> None:
    mine, others = await asyncio.gather(tried(ledger, range(10)), tried(ledger, range(10, 20), account=STRANGER))
    assert (mine, others) == ([0, 1, 2, 3, 4], [10, 11, 12, 13, 14])
    assert (await live(watched.engine), await live(watched.engine, STRANGER)) == (CAP, CAP)


async def test_a_cap_of_one_command_is_not_that_of_another(ledger: Ledger) -> None:
    told = await answers(
        ledger, [new(1, tasks_max=1), new(2, tasks_max=1), new(3, tasks_max=None), new(4, tasks_max=3)]
    )
    assert [isinstance(one, TooManyTasks) for one in told] == [False, True, False, False]


# What counts


async def test_an_update_puts_a_task_back_to_work_and_is_counted_until_it_has_ended(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1), terms=ON_SUCCESS))
    await ledger.handle(complete(ident(1)))
    assert await tried(ledger, range(10, 20)) == [10, 11, 12, 13, 14]
    position = (await watched.engine.head()).position
    with pytest.raises(TooManyTasks):
        await ledger.handle(put_back_to_work(1))
    assert (await watched.engine.head()).position == position
    await ledger.handle(cancel(ident(10)))
    assert (await ledger.handle(put_back_to_work(1))).appended
    assert await tried(ledger, [20]) == []
    await ledger.handle(cancel(ident(1)))  # it is as it was before the update
    assert await tried(ledger, [21, 22]) == [21]


async def test_a_task_that_is_asked_to_stop_is_under_way_until_it_has(ledger: Ledger) -> None:
    assert await tried(ledger, [1], tasks_max=1) == [1]
    await ledger.handle(start(ident(1)))
    await ledger.handle(cancel(ident(1), policy=BEATRA))
    assert await tried(ledger, [2], tasks_max=1) == []
    await ledger.handle(replace(confirm(), task_id=ident(1)))
    assert await tried(ledger, [3, 4], tasks_max=1) == [3]


async def test_a_cap_below_what_is_under_way_ends_nothing_and_admits_nothing(ledger: Ledger, watched: Watched) -> None:
    assert len(await tried(ledger, range(5))) == 5
    assert await tried(ledger, [10], tasks_max=2) == []
    for number in range(3):
        await ledger.handle(complete(ident(number)))
    assert await tried(ledger, [11], tasks_max=2) == []
    await ledger.handle(complete(ident(3)))
    assert await tried(ledger, [12, 13], tasks_max=2) == [12]
    assert await live(watched.engine) == 2


async def test_through_random_lives_of_many_tasks_the_count_is_theirs_after_every_step(
    ledger: Ledger, watched: Watched
) -> None:
    lives = [
        [step.command for step in history(school, seed)] for seed in range(100, 106) for school in School
    ]  # each begins with its create, which is asked again until there is room
    task_of = {ident(number): commands for number, commands in enumerate(lives)}
    refused = 0
    for turn in range(3 * len(lives[0])):
        for task, commands in task_of.items():
            exists = task in await watched.engine.tasks([task])
            command = replace(commands[1 + turn % (len(commands) - 1) if exists else 0], task_id=task)
            if isinstance(command, NewWork):
                command = replace(command, tasks_max=3)
            try:
                await ledger.handle(replace(command, expected_version=None))
            except Refusal as refusal:
                refused += isinstance(refusal, TooManyTasks)
        rows = await watched.engine.tasks([*task_of])
        assert await live(watched.engine) == sum(placed.row.status in LIVE for placed in rows.values()) <= 3
    assert refused > len(lives)
    assert len(rows) == len(lives)
    await common_invariant(watched.engine)


# What a refusal is


async def test_a_refusal_tells_the_count_the_cap_and_where_in_the_log_they_stood_and_appends_nothing(
    ledger: Ledger, watched: Watched
) -> None:
    await tried(ledger, range(CAP))
    stood = (await watched.engine.accounts([ACCOUNT]))[ACCOUNT].position
    await tried(ledger, [50], account=STRANGER)
    position, commits = (await watched.engine.head()).position, len(watched.commits)
    with pytest.raises(TooManyTasks) as refused:
        await ledger.handle(create(ident(9), claim("k"), tasks_max=CAP))
    assert (refused.value.live_tasks, refused.value.tasks_max, refused.value.position) == (CAP, CAP, stood)
    assert ((await watched.engine.head()).position, len(watched.commits)) == (position, commits)
    assert await watched.engine.tasks([ident(9)]) == {}
    await ledger.handle(complete(ident(0)))
    assert (await ledger.handle(create(ident(10), claim("k"), tasks_max=CAP))).appended  # the key was not taken


async def test_neither_a_create_nor_a_refusal_reads_more_than_it_did(ledger: Ledger, watched: Watched) -> None:
    assert len(await tried(ledger, range(AT_ONCE))) == CAP
    assert await tried(ledger, range(100, 110)) == []
    assert watched.account_reads == [[ACCOUNT]]
    assert watched.task_reads in ([], [[]])


async def test_what_was_created_before_is_answered_again_however_many_are_under_way(ledger: Ledger) -> None:
    first = replace(new(1), claims=(claim("k"),))
    await ledger.handle(first)
    await tried(ledger, range(10, 20))
    again = await ledger.handle(replace(first, task_id=ident(2)))
    assert (again.replayed, again.task.task_id) == (True, ident(1))
    with pytest.raises(KeyReused):
        await ledger.handle(replace(new(3), claims=(claim("k", fingerprint="another"),)))


async def test_whoever_has_neither_room_nor_credit_is_told_of_the_room_first(ledger: Ledger) -> None:
    await ledger.accounts.set_limit(ACCOUNT, 0, by="test", at_us=CREATED_US)
    await tried(ledger, [1], tasks_max=1)
    with pytest.raises(TooManyTasks):
        await ledger.handle(create(ident(2), tasks_max=1))
    await ledger.handle(complete(ident(1)))
    with pytest.raises(InsufficientCredits):
        await ledger.handle(create(ident(3), tasks_max=1))


# What it rests on


async def handed_in(ledger: Ledger, count: int) -> None:
    """Returns when so many commands are decided or wait for it."""
    while ledger.writer.queued < count:  # noqa: ASYNC110 - the writer gives no other sign
        await asyncio.sleep(0)


async def test_a_refusal_is_not_given_before_what_it_rests_on_is_durable(ledger: Ledger, watched: Watched) -> None:
    watched.commit_gate.shut()
    first = asyncio.create_task(tried(ledger, [1], tasks_max=1))
    await watched.commit_gate.someone_waits()
    second = asyncio.create_task(tried(ledger, [2], tasks_max=1))
    await handed_in(ledger, 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.done()
    watched.commit_gate.open()
    assert (await first, await second) == ([1], [])


async def test_when_the_commit_that_took_the_last_place_fails_the_next_one_has_it(
    ledger: Ledger, watched: Watched
) -> None:
    watched.commit_gate.shut()
    watched.commit_faults.append(StorageError("the disk is full"))
    first = asyncio.create_task(ledger.handle(new(1, tasks_max=1)))
    await watched.commit_gate.someone_waits()
    second = asyncio.create_task(tried(ledger, [2, 3], tasks_max=1))
    await handed_in(ledger, 2)
    watched.commit_gate.open()
    with pytest.raises(StorageError):
        await first
    assert await second == [2]
    assert await live(watched.engine) == 1


async def test_after_a_commit_of_which_nobody_knows_what_became_the_count_is_read_anew(
    ledger: Ledger, watched: Watched
) -> None:
    watched.faults_come_late = True
    watched.commit_faults.append(StorageError("written, and the answer lost"))
    with pytest.raises(StorageError):
        await ledger.handle(new(1, tasks_max=2))
    assert await tried(ledger, [2, 3], tasks_max=2) == [2]
    assert await live(watched.engine) == 2


async def test_when_a_part_of_the_batch_was_not_written_those_behind_it_are_decided_again(
    ledger: Ledger, watched: Watched
) -> None:
    watched.stale_commits = 1
    assert len(await tried(ledger, range(AT_ONCE))) == await live(watched.engine) == CAP
    await common_invariant(watched.engine)


# Across processes


@only_persistent
async def test_what_was_under_way_is_counted_by_the_process_that_comes_after(store: Store) -> None:
    before = await Ledger(await store.open()).start()
    assert len(await tried(before, range(4))) == 4
    await before.writer.close()
    after = await Ledger(await store.open()).start()
    assert await tried(after, range(10, 10 + AT_ONCE)) == [10]
    await after.handle(cancel(ident(0)))
    assert await tried(after, range(100, 110)) == [100]
    await after.writer.close()
    await common_invariant(after.engine)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def serving(path: Path) -> AsyncIterator[Ledger]:
    async with Ledger(await open_to_serve(path)) as ledger:
        yield ledger
        await common_invariant(ledger.engine)


async def meddle(path: Path, number: int) -> None:
    """What other processes do meanwhile: keys, limits and grants, also of the account whose tasks are counted."""
    engine = await open_beside(path)
    try:
        await Accounts(engine).set_limit(ACCOUNT, 10**9 + number, by="cli", at_us=CREATED_US)
        await Accounts(engine).grant(ACCOUNT, Grant(at_us=CREATED_US, amount_micros=1, key=f"g{number}"), by="cli")
        await Keyring(engine).issue(
            account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="cli", at_us=CREATED_US + number
        )
    finally:
        await engine.close()


async def test_whatever_another_process_writes_meanwhile_the_count_is_exact(serving: Ledger, path: Path) -> None:
    for round_ in range(6):
        meddling = asyncio.create_task(meddle(path, round_))
        numbers = range(1000 * round_, 1000 * round_ + AT_ONCE)
        admitted = await tried(serving, numbers)
        await meddling
        admitted += await tried(serving, range(1000 * round_ + 500, 1000 * round_ + 510))
        assert len(admitted) == await live(serving.engine) == CAP
        assert (await serving.accounts.row(ACCOUNT)).granted_micros == round_ + 1
        done: list[TaskCommand] = [complete(ident(number)) for number in admitted]
        await asyncio.gather(*map(serving.handle, done))
        assert await live(serving.engine) == 0

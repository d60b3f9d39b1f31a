"""New work and the credit of its account in the writer: what it rests on, when that is read, and who may change it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger import accounts, waiters
from ledger.accounts import Accounts
from ledger.credit import Grant
from ledger.errors import InsufficientCredits, Overloaded, StorageError
from ledger.events import CreditLimited
from ledger.keys import account_stream
from ledger.ledger import Ledger
from ledger.money import MICROS_PER_CREDIT
from ledger.records import AccountRow, Append, Outcome
from ledger.sqlite import open_beside, open_to_serve
from ledger.waiters import ATTEMPTS_MAX
from tests.builders import ACCOUNT, CREATED_US, STRANGER, Watched, cancel, complete, create, ident, start
from tests.invariants import common_invariant
from tests.rules_dsl import HOLD

TEN = 10 * MICROS_PER_CREDIT
"""What a task of `create` holds."""


async def limit(ledger: Ledger, tasks: int | None) -> AccountRow:
    """Let `ACCOUNT` have so many tasks at once."""
    micros = None if tasks is None else tasks * TEN
    return await ledger.accounts.set_limit(ACCOUNT, micros, by="test", at_us=CREATED_US)


async def exposure(watched: Watched, account: str = ACCOUNT) -> int:
    """What the account's tasks cost by the store, in tasks of `create`."""
    return (await watched.engine.accounts([account]))[account].exposure_micros // TEN


async def tried(ledger: Ledger, *numbers: int, account: str = ACCOUNT) -> list[int]:
    """Which of these tasks were admitted, created all at once."""
    asked = (ledger.handle(create(ident(number), account=account)) for number in numbers)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, InsufficientCredits) for answer in answers if isinstance(answer, BaseException))
    return [number for number, answer in zip(numbers, answers, strict=True) if not isinstance(answer, BaseException)]


# What is read, and when


async def test_an_account_is_read_once_and_then_known(ledger: Ledger, watched: Watched) -> None:
    for number in range(5):
        await ledger.handle(create(ident(number)))
        await ledger.handle(start(ident(number)))
    assert watched.account_reads == [[ACCOUNT]]


async def test_the_account_of_a_task_that_another_process_left_is_learned_from_the_task(watched: Watched) -> None:
    before = await Ledger(watched).start()
    await limit(before, 1)
    await before.handle(create(ident(1)))
    await before.writer.close()
    ledger = await Ledger(watched).start()
    await ledger.handle(cancel(ident(1)))
    assert await tried(ledger, 2, 3) == [2]
    await ledger.writer.close()
    await common_invariant(watched.engine)


async def test_a_refusal_is_given_on_terms_that_were_read_for_it(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 1)
    await ledger.handle(create(ident(1)))
    reads = len(watched.account_reads)
    assert await tried(ledger, 2, 3) == []
    assert len(watched.account_reads) == reads + 1
    assert len(watched.commits) == 2


async def test_when_the_terms_cannot_be_read_those_who_lack_credit_are_told_of_the_fault(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(ledger, 1)
    await ledger.handle(create(ident(1)))

    async def broken(_: object) -> list[AccountRow]:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.accounts, "reread", broken)
        with pytest.raises(StorageError, match="the disk is gone"):
            await ledger.handle(create(ident(2)))
    assert await tried(ledger, 2) == []
    await ledger.handle(cancel(ident(1)))
    assert await tried(ledger, 2) == [2]


async def test_more_accounts_than_are_remembered_are_read_again(
    ledger: Ledger, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "REMEMBERED_MAX", 3)
    for number in range(8):
        await ledger.handle(create(ident(number), account=f"a{number % 4}"))
    assert len(ledger.accounts._rows) == 3
    assert ledger.accounts._fresh_until.keys() == ledger.accounts._rows.keys()
    assert len(watched.account_reads) == 8
    await common_invariant(watched.engine)


async def test_a_row_that_was_moved_and_forgotten_while_it_was_read_is_not_remembered(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1)))
    ledger.accounts.forget()
    watched.read_gate.shut()
    reading = asyncio.create_task(ledger.accounts.refresh(ACCOUNT))
    await watched.read_gate.someone_waits()
    ledger.accounts.put([AccountRow(account=ACCOUNT, position=9, held_micros=2 * TEN)])
    ledger.accounts.forget()
    watched.read_gate.open()
    await reading
    assert ledger.accounts.cached(ACCOUNT) is None


async def test_a_row_that_was_moved_while_it_was_read_is_kept_and_takes_the_terms(
    ledger: Ledger, watched: Watched
) -> None:
    await limit(ledger, 5)
    ledger.accounts.forget()
    watched.read_gate.shut()
    reading = asyncio.create_task(ledger.accounts.refresh(ACCOUNT))
    await watched.read_gate.someone_waits()
    ledger.accounts.put([AccountRow(account=ACCOUNT, position=9, held_micros=TEN)])
    watched.read_gate.open()
    await reading
    row = ledger.accounts.cached(ACCOUNT)
    assert row is not None
    assert (row.held_micros, row.limit_micros, row.version, row.position) == (TEN, 5 * TEN, 1, 9)


async def test_terms_are_read_again_after_a_second(
    ledger: Ledger, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for now in (100.0, 100.5, 101.1, 101.2):  # noqa: B007 - what the clock shows
        await ledger.accounts.refresh(ACCOUNT)
    assert len(watched.account_reads) == 2


# In a batch, and on top of one


async def test_in_one_batch_each_is_admitted_by_what_the_ones_before_it_left(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 3)
    assert await tried(ledger, 1, 2, 3, 4, 5) == [1, 2, 3]
    answers = await asyncio.gather(
        ledger.handle(create(ident(6))),
        ledger.handle(cancel(ident(1))),
        ledger.handle(create(ident(7))),
        ledger.handle(create(ident(8))),
        return_exceptions=True,
    )
    # Whoever lacks credit is decided last, by terms that were read then: the room that came meanwhile is there.
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 2
    assert await exposure(watched) == 3


async def test_a_batch_that_is_decided_meanwhile_rests_on_the_one_that_is_committed(
    ledger: Ledger, watched: Watched
) -> None:
    await limit(ledger, 3)
    watched.commit_gate.shut()
    first = [asyncio.create_task(ledger.handle(create(ident(number)))) for number in (1, 2)]
    await watched.commit_gate.someone_waits()
    second = asyncio.create_task(tried(ledger, 3, 4, 5))
    while ledger.writer.queued < 3:  # noqa: ASYNC110 - the writer gives no other sign
        await asyncio.sleep(0)
    watched.commit_gate.open()
    await asyncio.gather(*first)
    assert await second == [3]
    assert await exposure(watched) == 3
    with pytest.raises(InsufficientCredits) as refused:
        await ledger.handle(create(ident(6)))
    assert refused.value.position == (await watched.engine.accounts([ACCOUNT]))[ACCOUNT].position


async def test_after_a_commit_that_failed_the_accounts_are_read_anew(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 2)
    watched.faults_come_late = True
    watched.commit_faults.append(StorageError("written, and the answer lost"))
    with pytest.raises(StorageError):
        await ledger.handle(create(ident(1)))
    assert await tried(ledger, 2, 3) == [2]
    assert await exposure(watched) == 2


async def test_another_account_s_shortage_is_nobody_else_s(ledger: Ledger) -> None:
    await limit(ledger, 0)
    short, rich = await asyncio.gather(tried(ledger, 1, 2), tried(ledger, 3, 4, account=STRANGER))
    assert (short, rich) == ([], [3, 4])


async def test_a_shortage_takes_no_idempotency_key_and_leaves_no_event(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 0)
    position = (await watched.engine.head()).position
    assert await tried(ledger, 1) == []
    assert (await watched.engine.head()).position == position
    assert await watched.engine.tasks([ident(1)]) == {}


async def test_what_costs_nothing_needs_no_credit(ledger: Ledger) -> None:
    await limit(ledger, 0)
    free = create(ident(1), terms=replace(HOLD, estimated_micros=0))
    assert (await ledger.handle(free)).appended
    assert (await ledger.handle(complete(ident(1)))).appended


@pytest.mark.parametrize(("tasks", "is_admitted"), [(0, False), (1, False), (2, True)])
async def test_the_figures_of_a_refusal_all_stood_at_the_position_that_it_names(
    ledger: Ledger, watched: Watched, *, tasks: int, is_admitted: bool
) -> None:
    await ledger.handle(create(ident(1)))
    await limit(ledger, 0)
    watched.commit_gate.shut()
    first = asyncio.create_task(tried(ledger, 2, account=STRANGER))
    await watched.commit_gate.someone_waits()
    moving = asyncio.create_task(ledger.handle(complete(ident(1))))
    short = asyncio.create_task(ledger.handle(create(ident(3))))
    while len(ledger.writer._next.verdicts) < 2:  # noqa: ASYNC110 - the writer gives no other sign
        await asyncio.sleep(0)
    await Accounts(watched.engine).set_limit(ACCOUNT, tasks * TEN, by="cli", at_us=CREATED_US)
    watched.commit_gate.open()
    await asyncio.gather(first, moving)
    if is_admitted:
        assert (await short).appended
    else:
        with pytest.raises(InsufficientCredits) as caught:
            await short
        refused = caught.value
        assert refused.position == (await watched.engine.accounts([ACCOUNT]))[ACCOUNT].position
        before = [row.event for row in await watched.engine.after(0, refused.position)]
        limits = [event.limit_micros for event in before if isinstance(event, CreditLimited)]
        assert refused.limit_micros == limits[-1] == tasks * TEN


# What an account is given takes turns with the batches


async def given(ledger: Ledger, number: int) -> AccountRow:
    """One grant, of a task of `create`."""
    command = Grant(at_us=CREATED_US, amount_micros=TEN, key=f"g{number}")
    return (await ledger.accounts.grant(ACCOUNT, command, by="test")).row


def streams(watched: Watched) -> list[list[bytes]]:
    """Whose events each commit was to write."""
    return [[append.stream for append in batch] for batch in watched.commits]


async def handed_in(ledger: Ledger) -> None:
    """Returns when a grant waits for its turn."""
    while not ledger.writer._turns:  # noqa: ASYNC110 - the writer gives no other sign
        await asyncio.sleep(0)


async def test_a_grant_comes_between_two_batches_and_the_second_is_decided_on_it(
    ledger: Ledger, watched: Watched
) -> None:
    await limit(ledger, 1)
    watched.commit_gate.shut()
    first = asyncio.create_task(tried(ledger, 1))
    await watched.commit_gate.someone_waits()
    second = asyncio.create_task(tried(ledger, 2, 3))
    granted = asyncio.create_task(given(ledger, 1))
    await handed_in(ledger)
    watched.commit_gate.open()
    assert (await first, await second) == ([1], [2])
    assert (await granted).granted_micros == TEN
    own = account_stream(ACCOUNT)
    assert streams(watched) == [[own], [ident(1)], [own], [ident(2)]]


async def test_whoever_grants_without_a_pause_no_create_is_committed_twice_and_all_get_their_turn(
    ledger: Ledger, watched: Watched
) -> None:
    await limit(ledger, 1000)
    numbers = iter(range(100))
    grants = 0

    async def creates() -> None:
        for number in numbers:
            await ledger.handle(create(ident(number)))

    async def granter() -> None:
        nonlocal grants
        while not creating.done():
            grants += 1
            await given(ledger, grants)

    creating = asyncio.gather(*(creates() for _ in range(8)))
    await asyncio.gather(creating, granter())
    written = Counter(stream for streams in streams(watched) for stream in streams)
    assert written == {account_stream(ACCOUNT): 1 + grants} | {ident(number): 1 for number in range(100)}
    assert grants > 1
    await common_invariant(watched.engine)


async def test_who_leaves_before_his_grant_had_its_turn_is_passed_over(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 2)
    watched.commit_gate.shut()
    first = asyncio.create_task(tried(ledger, 1))
    await watched.commit_gate.someone_waits()
    second, granted = asyncio.create_task(tried(ledger, 2, 3)), asyncio.create_task(given(ledger, 1))
    await handed_in(ledger)
    granted.cancel()
    watched.commit_gate.open()
    assert (await first, await second) == ([1], [2])
    assert (await ledger.accounts.row(ACCOUNT)).granted_micros is None
    assert (await given(ledger, 1)).granted_micros == TEN


async def test_a_grant_whose_commit_fails_is_told_so_and_the_creates_go_on(ledger: Ledger, watched: Watched) -> None:
    await limit(ledger, 1)
    watched.faults_come_late = True
    watched.commit_faults.append(StorageError("written, and the answer lost"))
    with pytest.raises(StorageError):
        await given(ledger, 1)
    assert await tried(ledger, 1, 2, 3) == [1, 2]
    assert [len(batch) for batch in watched.commits] == [1, 1, 2]


async def test_closing_gives_what_was_handed_in_and_takes_no_more(watched: Watched) -> None:
    ledger = await Ledger(watched).start()
    watched.commit_gate.shut()
    first = asyncio.create_task(tried(ledger, 1))
    await watched.commit_gate.someone_waits()
    granted = asyncio.create_task(given(ledger, 1))
    await handed_in(ledger)
    closing = asyncio.create_task(ledger.writer.close())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Accounts(watched, append=ledger.writer.append).set_limit(ACCOUNT, TEN, by="test", at_us=CREATED_US)
    watched.commit_gate.open()
    await closing
    assert (await first, (await granted).granted_micros) == ([1], TEN)


def meddled(watched: Watched, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Have another process set another limit just before each of the next commits that admit new work."""
    written, other, left = watched._written, Accounts(watched.engine), iter(range(times))

    async def meddle(batch: Sequence[Append]) -> list[Outcome]:
        if any(append.rests_on is not None for append in batch) and (turn := next(left, None)) is not None:
            await other.set_limit(ACCOUNT, (101 + turn) * TEN, by="cli", at_us=CREATED_US)
        return await written(batch)

    monkeypatch.setattr(watched, "_written", meddle)


async def test_a_create_is_not_given_up_because_another_process_keeps_changing_the_terms(
    ledger: Ledger, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(ledger, 100)
    meddled(watched, monkeypatch, times=5 * ATTEMPTS_MAX)
    assert await tried(ledger, 1, 2) == [1, 2]
    assert len(watched.commits) > 5 * ATTEMPTS_MAX


async def test_nor_is_it_tried_for_ever(ledger: Ledger, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "TERMS_ATTEMPTS_MAX", 6)
    await limit(ledger, 100)
    meddled(watched, monkeypatch, times=10**6)
    with pytest.raises(StorageError, match="the account kept changing"):
        await ledger.handle(create(ident(1)))
    assert len(watched.commits) == 1 + 6


# Beside another process


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def serving(path: Path) -> AsyncIterator[Ledger]:
    async with Ledger(await open_to_serve(path)) as ledger:
        yield ledger
        await common_invariant(ledger.engine)


async def beside(path: Path, *, tasks: int | None = None, granted: int | None = None) -> None:
    """What another process does to `ACCOUNT`, in tasks of `create`."""
    engine = await open_beside(path)
    try:
        if granted is not None:
            command = Grant(at_us=CREATED_US, amount_micros=granted * TEN, key=f"g{granted}")
            await Accounts(engine).grant(ACCOUNT, command, by="cli")
        else:
            micros = None if tasks is None else tasks * TEN
            await Accounts(engine).set_limit(ACCOUNT, micros, by="cli", at_us=CREATED_US)
    finally:
        await engine.close()


async def test_a_grant_by_another_process_is_heeded_by_the_very_next_create(serving: Ledger, path: Path) -> None:
    await limit(serving, 1)
    assert await tried(serving, 1, 2) == [1]
    await beside(path, granted=1)
    assert await tried(serving, 3, 4) == [3]


@pytest.mark.parametrize("between", [0, 1, 2], ids=["at once", "after one commit", "after two"])
async def test_a_limit_that_another_process_has_set_does_not_slip_through(
    serving: Ledger, path: Path, between: int
) -> None:
    assert await tried(serving, 1, 2) == [1, 2]
    await beside(path, tasks=3)
    for number in range(between):  # the log has moved on past it, and the account in memory has not
        assert await tried(serving, 10 + number, account=STRANGER)
    assert await tried(serving, 3, 4, 5) == [3]
    await beside(path, tasks=None)
    for number in range(between):
        assert await tried(serving, 20 + number, account=STRANGER)
    assert await tried(serving, 6, 7) == [6, 7]


async def test_while_another_process_turns_the_limit_up_and_down_it_is_never_passed(
    serving: Ledger, path: Path
) -> None:
    await beside(path, tasks=5)
    admitted = 0
    for round_ in range(6):
        tasks = 5 + 3 * round_
        turning = asyncio.create_task(beside(path, tasks=tasks))
        admitted += len(await tried(serving, *range(100 * round_, 100 * round_ + 20)))
        await turning
        admitted += len(await tried(serving, *range(100 * round_ + 50, 100 * round_ + 70)))
        assert admitted == tasks
    await beside(path, tasks=1)
    assert await tried(serving, 999) == []


async def test_reports_go_on_whatever_another_process_does_to_the_terms(serving: Ledger, path: Path) -> None:
    assert await tried(serving, 1, 2, 3) == [1, 2, 3]
    await beside(path, tasks=0)
    done = await asyncio.gather(*(serving.handle(complete(ident(number))) for number in (1, 2)), tried(serving, 4))
    assert done[2] == []
    assert (await serving.accounts.row(ACCOUNT)).available_micros == -3 * TEN

"""Group commit through the ledger: who is answered, when, with what, and what a failure or a leaver disturbs."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.commands import Start, TaskCommand
from ledger.errors import (
    AlreadyStarted,
    CancelUnsupported,
    KeyReused,
    NotCancellable,
    Overloaded,
    Refusal,
    StorageError,
    TaskNotFound,
)
from ledger.ids import TaskId
from ledger.ledger import Ledger, Outcome
from ledger.memory import MemoryEngine
from ledger.task import Status
from ledger.writer import HALVED_MIN
from tests.builders import (
    PERSISTENT,
    Store,
    Watched,
    cancel,
    claim,
    complete,
    create,
    ident,
    start,
    whole_ledger,
)
from tests.rules_dsl import ACCOUNT, CHUNKR, CREATED_US, HOLD, LEMONDATA, STRANGER

on_engines_that_persist = pytest.mark.parametrize("store", PERSISTENT, indirect=True)


def sent(ledger: Ledger, *commands: TaskCommand) -> list[asyncio.Task[Outcome]]:
    """The commands on their way, all at once."""
    return [asyncio.create_task(ledger.handle(command)) for command in commands]


async def answers(sending: Sequence[asyncio.Task[Outcome]]) -> list[Outcome | BaseException]:
    return await asyncio.gather(*sending, return_exceptions=True)


async def tags(watched: Watched, task: TaskId) -> list[str]:
    """What is in the store of the task, by name."""
    return [row.entry.type for row in await watched.engine.streams([task])]


# Shared commits


async def test_what_arrives_while_one_commit_runs_goes_into_the_next_and_half_of_many_into_the_one_after(
    ledger: Ledger, watched: Watched
) -> None:
    watched.commit_gate.shut()
    first = sent(ledger, create(ident(0)))
    await watched.commit_gate.someone_waits()
    others = sent(ledger, *(create(ident(n)) for n in range(1, 101)))
    await asyncio.sleep(0)
    assert ledger.writer.queued == 100
    watched.commit_gate.open()
    await asyncio.gather(*first, *others)
    assert [len(batch) for batch in watched.commits] == [1, 51, 49]
    assert len(await whole_ledger(watched)) == 202


async def test_a_few_are_not_halved(ledger: Ledger, watched: Watched) -> None:
    await asyncio.gather(*sent(ledger, *(create(ident(n)) for n in range(HALVED_MIN))))
    assert [len(batch) for batch in watched.commits] == [HALVED_MIN]


async def test_a_batch_has_a_bound(watched: Watched) -> None:
    ledger = await Ledger(watched, batch_max=30).start()
    await asyncio.gather(*sent(ledger, *(create(ident(n)) for n in range(100))))
    assert [len(batch) for batch in watched.commits] == [30, 30, 30, 10]
    await ledger.close()


async def test_commands_to_one_task_in_one_batch_each_see_what_the_ones_before_did(
    ledger: Ledger, watched: Watched
) -> None:
    task = ident(1)
    created, started, cancelled, late = await asyncio.gather(
        *sent(ledger, create(task), start(task), cancel(task), complete(task))
    )
    assert len(watched.commits) == 1
    assert [created.task.status, started.task.status, cancelled.task.status] == ["queued", "running", "cancelled"]
    assert [created.position, started.position, cancelled.position, late.position] == [2, 3, 6, 7]
    assert late.late
    assert late.task.status is Status.CANCELLED


async def test_nobody_is_answered_before_the_commit_has_returned(ledger: Ledger, watched: Watched) -> None:
    await ledger.handle(create(ident(1)))
    watched.commit_gate.shut()
    unmoved = replace(start(ident(1)), worker="w2")
    sending = sent(ledger, start(ident(1)), unmoved, cancel(ident(1), policy=CHUNKR), create(ident(2)), start(ident(9)))
    await watched.commit_gate.someone_waits()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in sending)
    assert (await ledger.task(ident(1), account=ACCOUNT)).task.status is Status.QUEUED
    watched.commit_gate.open()
    outcomes = await answers(sending)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Outcome, AlreadyStarted, NotCancellable, Outcome, TaskNotFound]


async def test_what_is_answered_is_what_everybody_reads_from_then_on(ledger: Ledger, watched: Watched) -> None:
    created = await ledger.handle(create(ident(1)))
    assert (created.appended, created.replayed, created.late, created.position) == (True, False, False, 2)
    seen = await ledger.task(ident(1), account=ACCOUNT)
    assert (seen.task, seen.position) == (created.task, created.position)
    repeated = await ledger.handle(start(ident(1)))
    again = await ledger.handle(start(ident(1)))
    assert (again.task, again.position, again.appended) == (repeated.task, 3, False)
    assert len(watched.commits) == 2


# Decided while another commit runs


async def held_up(ledger: Ledger, watched: Watched, *commands: TaskCommand) -> list[asyncio.Task[Outcome]]:
    """The commands, in a commit that does not return before the gate is opened."""
    watched.commit_gate.shut()
    sending = sent(ledger, *commands)
    await watched.commit_gate.someone_waits()
    return sending


async def decided_meanwhile(ledger: Ledger, *commands: TaskCommand) -> list[asyncio.Task[Outcome]]:
    """The commands, decided on top of the commit that is held up, and answered no sooner than it ends."""
    sending = sent(ledger, *commands)
    while len(ledger.writer._next.waiters) < len(commands):  # noqa: ASYNC110 - the writer gives no other sign
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in sending)
    return sending


async def test_what_is_decided_meanwhile_rests_on_the_commit_that_runs(ledger: Ledger, watched: Watched) -> None:
    await ledger.handle(create(ident(1)))
    await ledger.handle(create(ident(2)))
    started = await held_up(ledger, watched, start(ident(1)), create(ident(3), claim("k")))
    again, other = start(ident(1)), start(ident(1), worker="w2")
    twin, thief = create(ident(4), claim("k")), create(ident(5), claim("k", fingerprint="other"))
    sending = await decided_meanwhile(ledger, again, other, twin, thief, cancel(ident(3)))
    watched.commit_gate.open()
    await asyncio.gather(*started)
    unmoved, refused, replayed, reused, cancelled = await answers(sending)
    assert isinstance(unmoved, Outcome)
    assert (unmoved.position, unmoved.appended, unmoved.task.status) == (5, False, Status.RUNNING)
    assert isinstance(refused, AlreadyStarted)
    assert isinstance(replayed, Outcome)
    assert (replayed.replayed, replayed.task.task_id, replayed.position) == (True, ident(3), 7)
    assert isinstance(reused, KeyReused)
    assert isinstance(cancelled, Outcome)
    assert (cancelled.position, cancelled.task.status) == (10, Status.CANCELLED)
    assert [len(batch) for batch in watched.commits] == [1, 1, 2, 1]
    assert len(await whole_ledger(watched)) == 10


FAULTS = [StorageError("disk full"), RuntimeError("a bug")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_rests_on_a_commit_that_fails_is_decided_anew(
    ledger: Ledger, watched: Watched, fault: Exception
) -> None:
    await ledger.handle(create(ident(1)))
    watched.commit_faults.append(fault)
    failing = await held_up(ledger, watched, start(ident(1), claim("k")))
    commands = (start(ident(1), worker="w2"), start(ident(1), claim("k")), cancel(ident(1), policy=CHUNKR))
    sending = await decided_meanwhile(ledger, *commands)
    watched.commit_gate.open()
    assert [type(outcome) for outcome in await answers(failing)] == [type(fault)]
    started, other_worker, refused = await answers(sending)
    assert isinstance(started, Outcome)
    assert (started.task.run.worker, started.appended, started.position) == ("w2", True, 3)
    assert isinstance(other_worker, AlreadyStarted)
    assert isinstance(refused, NotCancellable)
    assert await tags(watched, ident(1)) == ["created", "held", "started"]
    assert (await ledger.task(ident(1), account=ACCOUNT)).position == 3


async def test_what_rests_on_a_task_that_was_never_created_is_not_found(ledger: Ledger, watched: Watched) -> None:
    watched.commit_faults.append(StorageError("disk full"))
    failing = await held_up(ledger, watched, create(ident(1), claim("k")))
    sending = await decided_meanwhile(ledger, start(ident(1)), create(ident(2), claim("k")))
    watched.commit_gate.open()
    assert [type(outcome) for outcome in await answers(failing)] == [StorageError]
    started, created = await answers(sending)
    assert isinstance(started, TaskNotFound)
    assert isinstance(created, Outcome)
    assert (created.replayed, created.task.task_id, created.position) == (False, ident(2), 2)
    assert {row.stream for row in await whole_ledger(watched)} == {ident(2)}


async def test_what_rests_on_what_another_node_was_faster_with_is_decided_anew(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1)))
    watched.stale_commits = 1
    slower = await held_up(ledger, watched, start(ident(1)))
    other_node = await Ledger(watched.engine).start()
    await other_node.handle(start(ident(1), worker="w2"))  # as many events: only the versions fit
    sending = await decided_meanwhile(ledger, complete(ident(1)), start(ident(1)))
    watched.commit_gate.open()
    completed, refused, *others = await answers([*sending, *slower])
    assert isinstance(completed, Outcome)
    assert (completed.task.run.worker, completed.task.status) == ("w2", Status.COMPLETED)
    assert [isinstance(outcome, Outcome) and outcome.late for outcome in (refused, *others)] == [True, True]
    await other_node.writer.close()


async def test_who_leaves_between_decision_and_commit_is_passed_over(ledger: Ledger, watched: Watched) -> None:
    first = await held_up(ledger, watched, create(ident(0)))
    one, leaver, two = await decided_meanwhile(ledger, create(ident(1)), create(ident(2)), start(ident(2)))
    leaver.cancel()
    watched.commit_gate.open()
    await asyncio.gather(*first, one)
    with pytest.raises(TaskNotFound):
        await two
    assert {row.stream for row in await whole_ledger(watched)} == {ident(0), ident(1)}


async def test_a_read_that_fails_meanwhile_fails_those_who_need_it(ledger: Ledger, watched: Watched) -> None:
    first = await held_up(ledger, watched, create(ident(0)))
    decided = await decided_meanwhile(ledger, create(ident(1)))
    watched.read_faults.append(StorageError("disk gone"))
    with pytest.raises(StorageError):
        await ledger.handle(start(ident(9)))
    watched.commit_gate.open()
    assert [outcome.appended for outcome in await asyncio.gather(*first, *decided)] == [True, True]


async def test_closing_carries_out_what_was_decided_meanwhile(ledger: Ledger, watched: Watched) -> None:
    first = await held_up(ledger, watched, create(ident(0)))
    decided = await decided_meanwhile(ledger, create(ident(1)), start(ident(0)))
    closing = asyncio.create_task(ledger.writer.close())
    await asyncio.sleep(0)
    watched.commit_gate.open()
    await closing
    assert [outcome.appended for outcome in await asyncio.gather(*first, *decided)] == [True] * 3


# A full queue


async def test_a_full_queue_refuses_at_once_and_keeps_what_it_has_taken(watched: Watched) -> None:
    ledger = await Ledger(watched, queue_max=10).start()
    watched.commit_gate.shut()
    taken = sent(ledger, create(ident(0)))
    await watched.commit_gate.someone_waits()
    taken += sent(ledger, *(create(ident(n)) for n in range(1, 11)))
    await asyncio.sleep(0)
    for number in range(11, 14):
        with pytest.raises(Overloaded) as refused:
            await ledger.handle(create(ident(number)))
        assert refused.value.retry_after_seconds > 0
    watched.commit_gate.open()
    assert all(outcome.appended for outcome in await asyncio.gather(*taken))
    await ledger.handle(create(ident(11)))
    rows = await whole_ledger(watched)
    assert {row.stream for row in rows} == {ident(n) for n in range(12)}
    await ledger.close()


# Commits that fail


async def test_a_commit_that_fails_fails_those_who_wait_for_it_and_nobody_else(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1)))
    watched.commit_gate.shut()
    before = sent(ledger, create(ident(2)))
    await watched.commit_gate.someone_waits()
    failing = sent(ledger, start(ident(1)), create(ident(3)), start(ident(9)))
    await asyncio.sleep(0)
    watched.commit_faults.append(StorageError("disk full"))
    watched.commit_gate.open()
    assert (await before[0]).appended
    assert [type(outcome) for outcome in await answers(failing)] == [StorageError] * 3
    assert await tags(watched, ident(1)) == ["created", "held"]
    assert await tags(watched, ident(3)) == []
    outcomes = await answers(sent(ledger, start(ident(1)), create(ident(3))))
    assert [outcome.task.version for outcome in outcomes if isinstance(outcome, Outcome)] == [3, 2]
    await whole_ledger(watched)


async def test_what_a_failed_commit_would_have_done_is_nowhere_in_memory(ledger: Ledger, watched: Watched) -> None:
    task = ident(1)
    await ledger.handle(create(task))
    watched.commit_faults.append(StorageError("disk full"))
    late = start(task, claim("s", operation="start"), at_us=CREATED_US + 10**12)
    with pytest.raises(StorageError):
        await ledger.handle(late)
    assert (await ledger.task(task, account=ACCOUNT)).task.status is Status.QUEUED
    assert (await ledger.task(task, account=None)).position == 2
    cancelled = await ledger.handle(cancel(task, policy=LEMONDATA))
    assert cancelled.task.status is Status.CANCELLED
    assert await tags(watched, task) == ["created", "held", "cancel-requested", "cancelled", "released"]
    assert not (await ledger.handle(late)).replayed
    assert {row.entry.recorded_at_us for row in await whole_ledger(watched)} == {CREATED_US, late.at_us}


async def test_a_commit_that_was_written_although_it_failed_is_found_by_who_tries_again(
    ledger: Ledger, watched: Watched
) -> None:
    task = ident(1)
    await ledger.handle(create(task))
    watched.faults_come_late = True
    for command in (start(task, claim("s", operation="start")), create(ident(2), claim("c"))):
        watched.commit_faults.append(StorageError("the answer was lost"))
        with pytest.raises(StorageError):
            await ledger.handle(command)
        assert (await ledger.handle(command)).replayed
    assert (await ledger.task(task, account=ACCOUNT)).task.status is Status.RUNNING
    assert len(watched.commits) == 3
    assert len(await whole_ledger(watched)) == 5


async def test_a_read_that_fails_fails_the_batch_and_the_next_one_works(ledger: Ledger, watched: Watched) -> None:
    watched.read_faults.append(StorageError("disk gone"))
    kinds = [type(outcome) for outcome in await answers(sent(ledger, start(ident(1)), create(ident(2))))]
    assert kinds == [StorageError, StorageError]
    assert watched.commits == []
    assert (await ledger.handle(create(ident(2)))).appended


BUGS: list[TaskCommand] = [
    create(ident(2), input={"prompt": object()}),  # no bytes for it when it is put into the batch
    create(ident(2), request_id="\ud800"),  # nor when it is hashed, which is the engine's part
    create(ident(2), claim("\ud800")),  # nor when its key is looked up
]


@pytest.mark.parametrize("bug", BUGS)
async def test_a_command_that_meets_a_bug_fails_alone(ledger: Ledger, watched: Watched, bug: TaskCommand) -> None:
    await ledger.handle(replace(create(ident(1)), callback_url=None))
    around = (create(ident(3)), start(ident(1)), bug, cancel(ident(1)), create(ident(4)))
    outcomes = await answers(sent(ledger, *around))
    failed = outcomes.pop(2)
    assert isinstance(failed, Exception)
    assert not isinstance(failed, (Refusal, StorageError))
    assert [isinstance(outcome, Outcome) and outcome.appended for outcome in outcomes] == [True] * 4
    assert (await ledger.task(ident(1), account=ACCOUNT)).task.status is Status.CANCELLED
    assert len(await whole_ledger(watched)) == 2 + 2 + 1 + 3 + 2


# Callers who leave


async def test_who_leaves_before_his_turn_is_passed_over(ledger: Ledger, watched: Watched) -> None:
    watched.commit_gate.shut()
    first = sent(ledger, create(ident(0)))
    await watched.commit_gate.someone_waits()
    one, leaver, two = sent(ledger, create(ident(1)), create(ident(2)), create(ident(3)))
    await asyncio.sleep(0)
    leaver.cancel()
    watched.commit_gate.open()
    await asyncio.gather(*first, one, two)
    assert leaver.cancelled()
    assert {row.stream for row in await whole_ledger(watched)} == {ident(0), ident(1), ident(3)}


async def test_when_all_have_left_there_is_nothing_to_commit(ledger: Ledger, watched: Watched) -> None:
    watched.commit_gate.shut()
    first = sent(ledger, create(ident(0)))
    await watched.commit_gate.someone_waits()
    leavers = sent(ledger, create(ident(1)), start(ident(1)))
    await asyncio.sleep(0)
    for leaver in leavers:
        leaver.cancel()
    watched.commit_gate.open()
    await asyncio.gather(*first)
    await ledger.handle(create(ident(2)))
    assert len(watched.commits) == 2


@pytest.mark.parametrize("fault", [None, StorageError("disk full")])
async def test_who_leaves_during_the_commit_changes_nothing_for_the_others(
    ledger: Ledger, watched: Watched, fault: StorageError | None
) -> None:
    await ledger.handle(create(ident(9)))
    watched.commit_gate.shut()
    if fault is not None:
        watched.commit_faults.append(fault)
    sending = sent(ledger, create(ident(1)), create(ident(2)), cancel(ident(8)), start(ident(9)))
    await watched.commit_gate.someone_waits()
    for leaver in sending[1:3]:
        leaver.cancel()
    await asyncio.sleep(0)
    watched.commit_gate.open()
    expected = Outcome if fault is None else StorageError
    kinds = [type(outcome) for outcome in await answers(sending)]
    assert kinds == [expected, asyncio.CancelledError, asyncio.CancelledError, expected]
    assert await tags(watched, ident(2)) == ([] if fault else ["created", "held"])
    assert (await ledger.handle(create(ident(3)))).appended
    assert len(await whole_ledger(watched)) == (4 if fault else 9)


# Idempotency keys


async def test_s36_fifty_identical_requests_at_once_make_one_task_and_49_replays(
    ledger: Ledger, watched: Watched
) -> None:
    outcomes = await asyncio.gather(*sent(ledger, *(create(ident(n), claim("k")) for n in range(50))))
    assert Counter(outcome.replayed for outcome in outcomes) == {False: 1, True: 49}
    assert len({outcome.task.task_id for outcome in outcomes}) == 1
    assert all(outcome.task == outcomes[0].task for outcome in outcomes)
    assert all((outcome.position, outcome.appended) == (2, True) for outcome in outcomes)
    assert [row.entry.type for row in await whole_ledger(watched)] == ["created", "held"]


async def test_s36_one_after_the_other_they_are_replays_as_well(ledger: Ledger, watched: Watched) -> None:
    first = await ledger.handle(create(ident(1), claim("k")))
    for number in range(2, 5):
        again = await ledger.handle(create(ident(number), claim("k")))
        assert again == replaced(first, replayed=True)
    assert len(watched.commits) == 1
    assert await ledger.task_by_key(ACCOUNT, "create", "k") == ident(1)
    assert await ledger.task_by_key(STRANGER, "create", "k") is None


@on_engines_that_persist
async def test_s36_across_a_restart_they_still_are_one_task(store: Store) -> None:
    outcomes: list[Outcome] = []
    for round_ in range(2):
        ledger = await Ledger(await store.open()).start()
        sending = sent(ledger, *(create(ident(25 * round_ + n), claim("k")) for n in range(25)))
        outcomes += await asyncio.gather(*sending)
        await ledger.close()
    assert Counter(outcome.replayed for outcome in outcomes) == {False: 1, True: 49}
    assert len({outcome.task.task_id for outcome in outcomes}) == 1
    rows = await whole_ledger(await store.open())
    assert [row.entry.type for row in rows] == ["created", "held"]


def replaced(outcome: Outcome, **changes: Any) -> Outcome:  # noqa: ANN401 - fields of the outcome
    return replace(outcome, **changes)


async def test_a_replay_gives_the_first_answer_even_when_the_task_has_moved_on(ledger: Ledger) -> None:
    task = ident(1)
    created = await ledger.handle(create(task, claim("c")))
    started = await ledger.handle(start(task, claim("s", operation="start")))
    await ledger.handle(complete(task))
    assert await ledger.handle(create(ident(2), claim("c"))) == replaced(created, replayed=True)
    assert await ledger.handle(start(task, claim("s", operation="start"))) == replaced(started, replayed=True)
    assert (await ledger.task(task, account=ACCOUNT)).task.status is Status.COMPLETED


async def test_a_request_that_changed_nothing_is_replayed_as_one_that_changed_nothing(ledger: Ledger) -> None:
    task, key = ident(1), claim("c", operation="cancel")
    await ledger.handle(create(task))
    over = await ledger.handle(complete(task))
    first = await ledger.handle(cancel(task, key))
    assert (first.task, first.appended, first.position) == (over.task, False, over.position)
    assert (await ledger.handle(complete(task))).late
    assert await ledger.handle(cancel(task, key)) == replaced(first, replayed=True)
    key = claim("d", operation="cancel")
    second = await ledger.handle(cancel(task, key))
    assert (second.task.late_reports, second.appended, second.late) == (1, False, False)
    assert await ledger.handle(cancel(task, key)) == replaced(second, replayed=True)


async def test_a_late_report_is_replayed_as_a_late_report(ledger: Ledger) -> None:
    task, key = ident(1), claim("e", operation="event")
    await ledger.handle(create(task))
    await ledger.handle(cancel(task))
    late = await ledger.handle(complete(task, key))
    assert late.late
    assert await ledger.handle(complete(task, key)) == replaced(late, replayed=True)


async def test_a_further_key_of_a_repeated_request_stands_for_its_first_answer_too(ledger: Ledger) -> None:
    own = claim("order", operation="out_task_id")
    first = await ledger.handle(create(ident(1), own))
    again = await ledger.handle(create(ident(2), claim("header"), own))
    assert (again.replayed, again.task.task_id) == (True, first.task.task_id)
    with pytest.raises(KeyReused):
        await ledger.handle(create(ident(3), claim("header", fingerprint="another")))
    third = await ledger.handle(create(ident(4), claim("header")))
    assert (third.replayed, third.task.task_id) == (True, first.task.task_id)


async def test_a_request_one_of_whose_keys_is_anothers_is_refused_whichever_comes_first(ledger: Ledger) -> None:
    await ledger.handle(create(ident(1), claim("a")))
    await ledger.handle(create(ident(2), claim("b", fingerprint="another")))
    for keys in ((claim("a"), claim("b")), (claim("b"), claim("a"))):
        with pytest.raises(KeyReused):
            await ledger.handle(create(ident(3), *keys))


async def test_s37_a_key_that_comes_with_another_request_is_refused_with_the_first_fingerprint(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1), claim("k", fingerprint="f1")))
    with pytest.raises(KeyReused) as refused:
        await ledger.handle(create(ident(2), claim("k", fingerprint="f2")))
    assert (refused.value.operation, refused.value.key) == ("create", "k")
    assert (refused.value.fingerprint, refused.value.task) == ("f1", ident(1))
    assert len(await whole_ledger(watched)) == 2


async def test_s37_the_same_key_twice_in_one_batch_is_one_task_and_a_refusal(ledger: Ledger, watched: Watched) -> None:
    sending = sent(
        ledger,
        create(ident(1), claim("k", fingerprint="f1")),
        create(ident(2), claim("k", fingerprint="f2")),
        create(ident(3), claim("k", fingerprint="f1")),
    )
    first, other, twin = await answers(sending)
    assert isinstance(first, Outcome)
    assert isinstance(other, KeyReused)
    assert other.fingerprint == "f1"
    assert twin == replaced(first, replayed=True)
    assert len(watched.commits) == 1
    assert len(await whole_ledger(watched)) == 2


async def test_a_twin_in_the_batch_of_a_failed_first_fails_with_it_and_may_be_tried_again(
    ledger: Ledger, watched: Watched
) -> None:
    watched.commit_faults.append(StorageError("disk full"))
    failed = await answers(sent(ledger, create(ident(1), claim("k")), create(ident(2), claim("k"))))
    assert [type(outcome) for outcome in failed] == [StorageError, StorageError]
    assert not (await ledger.handle(create(ident(3), claim("k")))).replayed


async def test_keys_are_told_apart_by_account_and_operation(ledger: Ledger, watched: Watched) -> None:
    await ledger.handle(create(ident(1), claim("k")))
    other_account = replace(claim("k"), account=STRANGER)
    assert not (await ledger.handle(create(ident(2), other_account))).replayed
    assert not (await ledger.handle(create(ident(3), claim("k", operation="import")))).replayed
    assert len(await whole_ledger(watched)) == 6


@pytest.mark.parametrize(("later_us", "replayed"), [(0, True), (999, True), (1000, False), (10**9, False)])
async def test_when_its_window_is_over_a_key_is_new(ledger: Ledger, later_us: int, replayed: bool) -> None:  # noqa: FBT001
    key = claim("k", window_us=1000)
    await ledger.handle(create(ident(1), key))
    other = replace(key, fingerprint="f2")
    again = create(ident(2), key if replayed else other, at_us=CREATED_US + later_us)
    assert (await ledger.handle(again)).replayed is replayed
    renewed = create(ident(3), key if replayed else other, at_us=CREATED_US + later_us)
    outcome = await ledger.handle(renewed)
    assert outcome.replayed
    assert outcome.task.task_id == ident(1 if replayed else 2)


async def test_a_request_with_two_keys_is_found_by_either(ledger: Ledger, watched: Watched) -> None:
    header, order = claim("k"), claim("order-1", operation="out_task_id")
    first = await ledger.handle(create(ident(1), header, order))
    for number, keys in enumerate([(header,), (order,), (order, header), (claim("new"), order)], start=2):
        assert await ledger.handle(create(ident(number), *keys)) == replaced(first, replayed=True)
    assert len(await whole_ledger(watched)) == 2
    (created, _) = await watched.engine.streams([ident(1)])
    assert [(taken.operation, taken.key) for taken in created.event.claims] == [
        ("create", "k"),
        ("out_task_id", "order-1"),
    ]


async def test_a_refused_request_does_not_use_up_its_key(ledger: Ledger) -> None:
    key = claim("c", operation="cancel")
    with pytest.raises(TaskNotFound):
        await ledger.handle(cancel(ident(1), key))
    await ledger.handle(create(ident(1)))
    await ledger.handle(start(ident(1)))
    with pytest.raises(NotCancellable):
        await ledger.handle(cancel(ident(1), key, policy=CHUNKR))
    outcome = await ledger.handle(cancel(ident(1), key))
    assert (outcome.replayed, outcome.task.status) == (False, Status.CANCELLED)


# Evidence


async def test_s27_an_unsupported_cancel_is_refused_and_the_wish_recorded_once(
    ledger: Ledger, watched: Watched
) -> None:
    task = ident(1)
    await ledger.handle(create(task, terms=replace(HOLD, cancellable=False)))
    asked = [cancel(task, policy=LEMONDATA) for _ in range(20)]
    refusals = await answers(sent(ledger, *asked[:10]))
    refusals += [*await answers(sent(ledger, *asked[10:]))]
    assert [type(refusal) for refusal in refusals] == [CancelUnsupported] * 20
    assert await tags(watched, task) == ["created", "held", "cancel-requested"]
    assert (await ledger.task(task, account=ACCOUNT)).task.status is Status.QUEUED
    await whole_ledger(watched)


async def test_a_refusal_with_evidence_waits_for_the_commit_like_any_answer(ledger: Ledger, watched: Watched) -> None:
    task = ident(1)
    await ledger.handle(create(task, terms=replace(HOLD, cancellable=False)))
    watched.commit_faults.append(StorageError("disk full"))
    with pytest.raises(StorageError):
        await ledger.handle(cancel(task, policy=LEMONDATA))
    with pytest.raises(CancelUnsupported):
        await ledger.handle(cancel(task, policy=LEMONDATA))


# Races


@pytest.mark.parametrize("seed", range(6))
async def test_of_64_cancels_completions_and_starts_at_once_one_outcome_wins_and_all_see_it(
    watched: Watched, seed: int
) -> None:
    dice = random.Random(seed)
    ledger = await Ledger(watched, batch_max=dice.choice([1, 3, 8, 64])).start()
    task = ident(1)
    await ledger.handle(create(task))
    commands: list[TaskCommand] = [cancel(task)]
    for _ in range(21):
        commands += [cancel(task), complete(task), start(task)]
    dice.shuffle(commands)
    watching = [asyncio.create_task(outcomes_seen(ledger, task)) for _ in range(8)]
    sending = []
    for command in commands:
        sending += sent(ledger, command)
        for _ in range(dice.choice([0, 0, 0, 1, 7])):
            await asyncio.sleep(0)
    answered = await asyncio.gather(*sending)

    rows = await whole_ledger(watched)
    (winner,) = [row.entry.type for row in rows if row.entry.type in {"cancelled", "completed"}]
    assert {outcome.task.status for outcome in answered} <= {Status.QUEUED, Status.RUNNING, Status(winner)}
    assert sum(outcome.appended and not outcome.late and ended(outcome) for outcome in answered) == 1
    assert await asyncio.gather(*watching) == [[Status(winner)]] * 8
    final = (await ledger.task(task, account=ACCOUNT)).task
    assert final.held_micros == 0
    assert final.charged_micros == (HOLD.estimated_micros if winner == "completed" else 0)
    assert final.version == len(rows)
    await ledger.close()


def ended(outcome: Outcome) -> bool:
    return outcome.task.status in {Status.CANCELLED, Status.COMPLETED}


async def outcomes_seen(ledger: Ledger, task: TaskId) -> list[Status]:
    """The outcomes that a reader sees one after the other, until he has seen one a hundred times."""
    seen: list[Status] = []
    same = 0
    while same < 100:
        status = (await ledger.task(task, account=ACCOUNT)).task.status
        await asyncio.sleep(0)
        if status in {Status.QUEUED, Status.RUNNING}:
            assert seen == []
        else:
            same += 1
            seen += [] if status in seen else [status]
    return seen


async def test_queued_only_cannot_be_beaten_by_a_start_that_is_not_yet_durable(
    ledger: Ledger, watched: Watched
) -> None:
    task = ident(1)
    await ledger.handle(create(task))
    watched.commit_gate.shut()
    starting = sent(ledger, start(task))
    await watched.commit_gate.someone_waits()
    cancelling = sent(ledger, cancel(task, policy=LEMONDATA))
    watched.commit_gate.open()
    await asyncio.gather(*starting)
    assert [type(refusal) for refusal in await answers(cancelling)] == [NotCancellable]


# Time


async def test_recorded_time_never_goes_back_although_the_clock_does(ledger: Ledger, watched: Watched) -> None:
    for number, at_us in enumerate([50, 20, 60, 60, 10, 61, 0]):
        await ledger.handle(create(ident(number), at_us=CREATED_US + at_us))
    await asyncio.gather(*sent(ledger, *(start(ident(n), at_us=CREATED_US + 70 - n) for n in range(7))))
    recorded = [row.entry.recorded_at_us - CREATED_US for row in await whole_ledger(watched)]
    assert recorded == [50] * 4 + [60] * 6 + [61] * 4 + [70] * 7
    effective = [row.entry.effective_at_us - CREATED_US for row in await whole_ledger(watched)]
    assert effective[:14] == [50, 50, 20, 20, 60, 60, 60, 60, 10, 10, 61, 61, 0, 0]


@on_engines_that_persist
async def test_nor_does_it_go_back_over_a_restart(store: Store) -> None:
    for number, at_us in enumerate([50, 20]):
        ledger = await Ledger(await store.open()).start()
        await ledger.handle(create(ident(number), at_us=CREATED_US + at_us))
        await ledger.close()
    rows = await whole_ledger(await store.open())
    assert [row.entry.recorded_at_us for row in rows] == [CREATED_US + 50] * 4


# Closing


async def test_closing_carries_out_what_was_taken_in_and_takes_nothing_more(watched: Watched) -> None:
    ledger = await Ledger(watched, batch_max=2).start()
    watched.commit_gate.shut()
    taken = sent(ledger, *(create(ident(n)) for n in range(7)))
    await watched.commit_gate.someone_waits()
    closing = asyncio.create_task(ledger.writer.close())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ledger.handle(create(ident(7)))
    assert not closing.done()
    watched.commit_gate.open()
    await closing
    assert all(task.done() and task.result().appended for task in taken)
    with pytest.raises(Overloaded):
        await ledger.handle(create(ident(8)))
    assert {row.stream for row in await whole_ledger(watched)} == {ident(n) for n in range(7)}


# Several nodes on one log


async def test_what_another_node_was_faster_with_is_decided_again(ledger: Ledger, watched: Watched) -> None:
    await ledger.handle(create(ident(1)))
    watched.stale_commits = 1
    commands = (start(ident(1)), create(ident(2)), cancel(ident(1), policy=CHUNKR))
    started, created, refused = await answers(sent(ledger, *commands))
    assert isinstance(started, Outcome)
    assert isinstance(created, Outcome)
    assert (started.task.status, created.position) == (Status.RUNNING, 5)
    assert isinstance(refused, NotCancellable)
    assert [len(batch) for batch in watched.commits] == [1, 2, 2]
    await whole_ledger(watched)


async def test_a_task_that_keeps_changing_under_a_command_is_a_storage_error_in_the_end(
    ledger: Ledger, watched: Watched
) -> None:
    await ledger.handle(create(ident(1)))
    watched.stale_commits = 10**6
    for command in (start(ident(1)), create(ident(2)), cancel(ident(1))):
        commits = len(watched.commits)
        with pytest.raises(StorageError, match="kept changing"):
            await ledger.handle(command)
        assert 1 < len(watched.commits) - commits < 10
    watched.stale_commits = 0
    assert (await ledger.handle(start(ident(1)))).task.version == 3


async def test_a_key_that_was_not_written_refuses_nobody_and_answers_nobody(ledger: Ledger, watched: Watched) -> None:
    watched.stale_commits = 10**6
    keys = [claim("k", fingerprint=fingerprint) for fingerprint in ("f1", "f2", "f1")]
    outcomes = await answers(sent(ledger, *(create(ident(n), key) for n, key in enumerate(keys))))
    assert [type(outcome) for outcome in outcomes] == [StorageError] * 3


async def test_who_has_left_is_not_decided_again(ledger: Ledger, watched: Watched) -> None:
    await ledger.handle(create(ident(1)))
    watched.stale_commits = 1
    watched.commit_gate.shut()
    leaver, other = sent(ledger, start(ident(1)), create(ident(2)))
    await watched.commit_gate.someone_waits()
    leaver.cancel()
    watched.commit_gate.open()
    await other
    assert await tags(watched, ident(1)) == ["created", "held"]


async def test_two_nodes_decide_on_what_the_log_holds_not_on_what_they_remember() -> None:
    log = MemoryEngine()
    one, two = await Ledger(log).start(), await Ledger(log).start()
    task = ident(1)
    await one.handle(create(task))
    started = await two.handle(start(task))
    with pytest.raises(NotCancellable):
        await one.handle(cancel(task, claim("c"), policy=LEMONDATA))
    assert (await one.task(task, account=ACCOUNT)).position == started.position
    over = await two.handle(complete(task))
    asked = await one.handle(cancel(task, claim("c")))
    assert (asked.task.status, asked.appended) == (Status.COMPLETED, False)
    assert asked.position == over.position
    await two.handle(complete(task))
    unmoved = await one.handle(cancel(task, claim("d")))  # claims alone, decided on a version that is gone
    assert unmoved.task.late_reports == 1
    replay = await two.handle(cancel(task, claim("d")))
    assert replay == replaced(unmoved, replayed=True)
    await whole_ledger(log)
    await one.close()
    await two.close()


async def test_two_nodes_racing_over_one_task_have_one_winner() -> None:
    log = MemoryEngine()
    nodes = [await Ledger(log, batch_max=2).start() for _ in range(3)]
    task = ident(1)
    await nodes[0].handle(create(task))
    starts: list[Start] = [start(task, worker=f"w{n}") for n in range(3)]
    sending = [*sent(nodes[0], starts[0]), *sent(nodes[1], starts[1]), *sent(nodes[2], starts[2])]
    answered = await answers(sending)
    assert Counter(type(outcome) for outcome in answered) == {Outcome: 1, AlreadyStarted: 2}
    ends = [*sent(nodes[0], cancel(task)), *sent(nodes[1], complete(task)), *sent(nodes[2], complete(task))]
    finals = [outcome for outcome in await answers(ends) if isinstance(outcome, Outcome)]
    assert len({outcome.task.status for outcome in finals}) == 1
    rows = await whole_ledger(log)
    assert len([row for row in rows if row.entry.type in {"cancelled", "completed"}]) == 1
    for node in nodes:
        await node.close()

"""Random histories, from seeds: whatever is asked in whatever order, the invariants hold after every step.

A failure names its seed; ``history(school, seed)`` is that history again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import reduce
from random import Random
from typing import NamedTuple, get_args

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from ledger import errors
from ledger.commands import Create, Report, RequestCancel, TaskCommand
from ledger.errors import Refusal
from ledger.event_bytes import decode, encode
from ledger.events import (
    Cancelled,
    Completed,
    Deleted,
    Expired,
    Failed,
    LateReported,
    MoneyEvent,
    School,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.rules import decide
from ledger.settlement import violations
from ledger.task import TERMINAL, Run, Task, evolve, fold
from tests.rules_dsl import (
    ACCOUNT,
    BEATRA,
    BYTESPIKE,
    CHUNKR,
    ID,
    LEMONDATA,
    METERED,
    ON_SUCCESS,
    OPERATOR,
    PREPAID,
    STRANGER,
    at,
    called_back,
    cancel,
    charge,
    complete,
    confirm,
    create,
    delete,
    expire,
    fail,
    given,
    progress,
    refund,
    stall,
    start,
    update,
)

SEEDS, STEPS = 120, 40
TERMS = {School.HOLD: METERED, School.PREPAID: PREPAID, School.ON_SUCCESS: ON_SUCCESS}
POLICIES = [LEMONDATA, BYTESPIKE, CHUNKR, BEATRA, OPERATOR]
OUTCOMES = (Cancelled, Completed, Failed, Expired, UpdateReverted)

as_json = msgspec.json.Encoder().encode
as_task = msgspec.json.Decoder(Task).decode


class Step(NamedTuple):
    """One command of a history: what it found, what came of it, what it left."""

    before: Task
    command: TaskCommand
    events: list[TaskEvent]
    refusal: Refusal | None
    after: Task


def history(school: School, seed: int) -> Iterator[Step]:
    """The history of *seed*: forty commands to one task of *school*."""
    random = Random(f"{school}/{seed}")
    task = given().task
    for number in range(STEPS):
        command = _any_command(random, number) if number else _any_create(random, school)
        if random.random() < 0.05 and number:
            command = replace(command, expected_version=max(task.version - random.randrange(2), 1))
        step = _take(task, command)
        task = step.after
        yield step


def _take(task: Task, command: TaskCommand) -> Step:
    try:
        events, refusal = decide(task, command), None
    except Refusal as no:
        events, refusal = list(no.evidence), no
    return Step(task, command, events, refusal, reduce(evolve, events, task))


def _any_create(random: Random, school: School) -> TaskCommand:
    terms = replace(
        TERMS[school],
        estimated_micros=random.choice([0, 1, 5_000_000, 10_000_000]),
        cancellable=random.random() < 0.7,
        point_of_no_return_percent=random.choice([None, 0, 25, 100]),
    )
    return create(terms, deadline=random.choice([None, 100, 100]))


def _any_command(random: Random, number: int) -> TaskCommand:
    """One command at about the *number*-th second: sometimes early, sometimes far too late, often repeated."""
    second = max(0, 4 * number + random.randint(-12, 4))
    make, weight = zip(*MAKERS, strict=True)
    chosen: Callable[[Random], TaskCommand] = random.choices(make, weight)[0]
    command = replace(chosen(random), at_us=at(second))
    if isinstance(command, Report) and random.random() < 0.3:
        return replace(command, effective_at_us=at(max(0, second + random.randint(-20, 5))))
    return command


def _actual(random: Random) -> int | None:
    return random.choice([None, None, 0, 1, 3, 5, 10, 12])


def _any_cancel(random: Random) -> TaskCommand:
    account = random.choice([ACCOUNT, ACCOUNT, ACCOUNT, None, STRANGER])
    return cancel(random.choice(POLICIES), account=account, reason=random.choice([None, "enough"]))


MAKERS: list[tuple[Callable[[Random], TaskCommand], float]] = [
    (lambda random: start(random.choice(["w1", "w1", "w2", None])), 3),
    (lambda random: progress(random.choice([None, 0, 20, 25, 60, 99]), message=random.choice([None, "m"])), 5),
    (lambda random: complete(_actual(random), output={"n": random.randrange(3)}), 1),
    (lambda random: fail(_actual(random)), 1),
    (lambda random: confirm(_actual(random)), 1),
    (lambda random: charge(random.randint(1, 4), random.choice("abc")), 2),
    (lambda random: refund(random.randint(1, 4), random.choice("abc")), 2),
    (_any_cancel, 1.5),
    (lambda random: update(random.choice("xyz")), 2),
    (lambda random: update(random.choice("xyz"), account=STRANGER), 0.2),
    (lambda random: delete(account=random.choice([ACCOUNT, STRANGER])), 0.15),
    (lambda random: expire(second=random.randrange(200)), 0.5),
    (lambda random: stall(silent_since=random.randrange(50)), 1),
    (lambda random: called_back(random.randint(1, 3), error=random.choice([None, "503"])), 0.5),
]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("school", School)
def test_the_invariants_hold_after_every_step_of_a_history(school: School, seed: int) -> None:
    log: list[TaskEvent] = []
    for number, step in enumerate(history(school, seed)):
        log += step.events
        broken = [*_broken_by(step), *_broken_in(log, step.after)]
        assert not broken, f"{school}, seed {seed}, step {number}, {step.command}: {broken}"


@pytest.mark.parametrize("school", School)
def test_erasing_every_payload_changes_neither_the_status_nor_the_money(school: School) -> None:
    for seed in range(SEEDS):
        steps = list(history(school, seed))
        erased = fold([replace(event, payload=UNSET) for step in steps for event in step.events], ID)
        content = {"metadata": {}, "run": Run(), "updating": None}
        assert replace(erased, **content) == replace(steps[-1].after, **content), f"{school}, seed {seed}"
        assert as_task(as_json(erased)) == erased, f"{school}, seed {seed}"


@pytest.mark.parametrize("school", School)
def test_a_task_that_was_deleted_is_to_the_byte_what_its_events_give_without_their_payloads(school: School) -> None:
    deleted = 0
    for seed in range(SEEDS):
        steps = list(history(school, seed))
        log = [event for step in steps for event in step.events]
        if steps[-1].after.deleted:
            deleted += 1
            erased = fold([replace(event, payload=UNSET) for event in log], ID)
            assert as_json(erased) == as_json(steps[-1].after), f"{school}, seed {seed}"
            after = log[[isinstance(event, Deleted) for event in log].index(True) :]
            assert {event.payload for event in after} == {UNSET}, "content was written after the deletion"
    assert deleted > 3


def _broken_by(step: Step) -> Iterator[str]:
    """What is wrong with this step on its own."""
    before, after = step.before, step.after
    yield from violations(after)
    if before.status in TERMINAL and (after.net_micros > before.net_micros or after.held_micros):
        yield "money was taken after the outcome"
    if as_task(as_json(after)) != after:
        yield "the task does not survive its bytes"
    again = [] if isinstance(step.command, Create) else _take(after, step.command).events
    if any(isinstance(event, MoneyEvent) for event in again):
        yield "the same command again moved money again"
    for event in step.events:
        yield from _broken_event(before, event)
        before = evolve(before, event)


def _broken_event(before: Task, event: TaskEvent) -> Iterator[str]:
    """What is wrong with this event after the task that it happened to."""
    after = evolve(before, event)
    if decode(*encode(event)) != event:
        yield f"{event} does not survive its bytes"
    if after.version != before.version + 1:
        yield f"{event} is not one more version"
    if after.updated_at_us < before.updated_at_us:
        yield f"{event} turned the clock back"
    if event.at_us < before.updated_at_us and not isinstance(event, LateReported):
        yield f"{event} is older than the task"
    fell = (after.run.percent or 0) < (before.run.percent or 0)
    if fell and not isinstance(event, UpdateRequested | UpdateReverted):
        yield f"{event} undid progress"
    changed = before.status in TERMINAL and after.status is not before.status
    if changed and not isinstance(event, UpdateRequested):
        yield f"{event} changed the outcome"


def _broken_in(log: list[TaskEvent], task: Task) -> Iterator[str]:
    """What is wrong with the whole log so far."""
    if fold(log, ID) != task:
        yield "the fold from scratch is another task"
    if task.version != len(log):
        yield "the version is not the number of events"
    if sum(isinstance(event, MoneyEvent) for event in log) != len(task.money_keys):
        yield "a key moved money twice"
    runs, run = Counter[int](), 1
    for event in log:
        run += isinstance(event, UpdateRequested)
        runs[run] += isinstance(event, OUTCOMES)
    if max(runs.values()) > 1:
        yield "a run has more than one outcome"


def test_the_histories_reach_every_event_and_every_refusal_of_the_rules() -> None:
    steps = [step for school in School for seed in range(SEEDS) for step in history(school, seed)]
    assert {type(event) for step in steps for event in step.events} == set(get_args(TaskEvent))
    assert {type(step.refusal) for step in steps if step.refusal} == {
        errors.AlreadyStarted,
        errors.AmountExceeds,
        errors.CancelNotRequested,
        errors.CancelUnsupported,
        errors.KeyReused,
        errors.NotCancellable,
        errors.NotDeletable,
        errors.NotUpdatable,
        errors.TaskNotFound,
        errors.UpdateUnchanged,
        errors.WrongVersion,
    }
    assert {step.command.policy for step in steps if isinstance(step.command, RequestCancel)} == set(POLICIES)
    assert max(step.after.run.number for step in steps) > 3


def test_a_seed_is_the_same_history_every_time() -> None:
    for school in School:
        assert [step.after for step in history(school, 7)] == [step.after for step in history(school, 7)]

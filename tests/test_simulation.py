"""The simulated history: what happens in it, that the real rules have decided it, and that a seed names it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TypeVar, get_args

import pytest

from ledger.catalogue import read
from ledger.commands import Complete, Create, Fail, RequestCancel, TaskCommand
from ledger.events import (
    Cancelled,
    CancelRequested,
    Event,
    LateReported,
    MoneyEvent,
    School,
    Started,
    TaskEvent,
    UpdateReverted,
)
from ledger.memory import MemoryEngine
from ledger.sqlite import open_to_serve
from ledger.task import TERMINAL, Status, Task
from ledger.times import US_PER_DAY, US_PER_HOUR, US_PER_SECOND
from projections.audit.audit import audit
from scripts.simulation import dice_for
from scripts.simulation.arrivals import arrivals
from scripts.simulation.history import history
from scripts.simulation.jobs import Job, job
from scripts.simulation.lives import life
from scripts.simulation.market import market
from tests.simulated import SINCE_US, World, in_memory, setting, world

SMALL = setting(tasks=150)
LARGE = setting(tasks=6000)
"""In which everything has happened that can."""
TAGS = {kind.__struct_config__.tag for kind in get_args(TaskEvent)}

E = TypeVar("E", bound=Event)


@pytest.fixture(scope="module")
def told() -> World:
    return in_memory(LARGE)


def events(told: World, kind: type[E]) -> Iterator[E]:
    return (event for row in told.log if isinstance(event := row.event, kind))


# A seed names a history


async def test_the_same_seed_gives_the_same_log_in_every_store(tmp_path: Path) -> None:
    heads = {(await world(MemoryEngine(), SMALL)).head}
    for name in ("first.db", "second.db"):
        engine = await open_to_serve(tmp_path / name)
        heads.add((await world(engine, SMALL)).head)
        await engine.close()
    assert len(heads) == 1


async def test_another_seed_gives_another_log() -> None:
    logs = [await world(MemoryEngine(), setting(tasks=20, seed=seed)) for seed in (-1, 0, 7, 8)]
    assert len({log.head for log in logs}) == len(logs)


async def test_how_much_is_committed_at_once_changes_nothing() -> None:
    heads = {(await world(MemoryEngine(), SMALL, batch_max=batch_max)).head for batch_max in (1, 10, 1024)}
    assert len(heads) == 1


@pytest.mark.parametrize("tasks", [0, 1, 2])
async def test_small_histories_are_whole(tasks: int) -> None:
    small = await world(MemoryEngine(), setting(tasks=tasks))
    assert len(small.tasks) == small.played.providers.total() == tasks
    assert all(task.status in TERMINAL for task in small.tasks.values())
    assert (await audit(small.engine)).found == 0


# The real rules have decided it


async def test_the_audit_finds_nothing(told: World) -> None:
    report = await audit(told.engine)
    assert (report.found, report.events, report.tasks) == (0, len(told.log), LARGE.tasks)


async def test_the_audit_finds_nothing_in_a_file_either(tmp_path: Path) -> None:
    engine = await open_to_serve(tmp_path / "ledger.db")
    made = await world(engine, SMALL)
    report = await audit(engine)
    await engine.close()
    assert (report.found, report.head) == (0, made.head)


def test_it_is_recorded_at_the_times_of_its_commands(told: World) -> None:
    recorded = [row.entry.recorded_at_us for row in told.log]
    asked = {command.at_us for command in history(LARGE, read())}
    assert recorded == sorted(recorded)
    assert set(recorded) <= asked
    assert all(row.entry.effective_at_us <= row.entry.recorded_at_us for row in told.log)


def test_lives_run_beside_each_other() -> None:
    busy = in_memory(setting(tasks=500, days=1))
    changes = sum(one.stream != other.stream for one, other in pairwise(busy.log))
    assert changes > 1.5 * len(busy.tasks)


# What happens in it


def test_every_event_of_the_vocabulary_occurs(told: World) -> None:
    assert {row.entry.type for row in told.log} == TAGS


def test_every_school_contract_model_and_status_occurs(told: World) -> None:
    tasks = told.tasks.values()
    assert {task.terms.school for task in tasks} == set(School)
    assert {(task.contract, task.model) for task in tasks} == set(read().models)
    assert {task.status for task in tasks} == set(Status) - {Status.ABSENT, Status.QUEUED}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_so_it_is_with_other_seeds(seed: int) -> None:
    other = await world(MemoryEngine(), setting(seed=seed))
    assert {row.entry.type for row in other.log} == TAGS
    assert {task.contract for task in other.tasks.values()} == {contract for contract, _ in read().models}
    assert {task.terms.school for task in other.tasks.values()} == set(School)


def test_tasks_are_created_as_the_catalogue_prices_them(told: World) -> None:
    catalogue = read()
    for task in told.tasks.values():
        model = catalogue.models[task.contract, task.model]
        prices = {model.price_of(variant) for variant in model.variants or (model.capability,)}
        assert task.terms.estimated_micros in prices
        assert task.terms.rate_version == catalogue.version
        assert task.capability in model.capabilities
        made_by = catalogue.models[task.contract, task.resolved_model or task.model]
        assert (task.provider, task.estimated_seconds) == (made_by.provider, made_by.estimated_seconds)


def test_cancels_come_in_every_way(told: World) -> None:
    assert {event.confirmed for event in events(told, Cancelled)} == {True, False}
    assert {event.unsupported for event in events(told, CancelRequested)} == {True, False}
    assert {event.cause for event in events(told, UpdateReverted)} == {"failed", "cancelled"}
    cancelled = [task for task in told.tasks.values() if task.status is Status.CANCELLED]
    assert {task.run.started_at_us is None for task in cancelled} == {True, False}
    assert told.played.refused["NotCancellable"] > 0


@pytest.mark.parametrize(
    ("school", "moved"),
    [
        (
            School.HOLD,
            {
                ("held", "created"),
                ("charged", "charged"),
                ("charged", "completed"),
                ("charged", "failed"),
                ("charged", "cancelled"),
                ("released", "completed"),
                ("released", "cancelled"),
                ("released", "failed"),
                ("released", "expired"),
                ("refunded", "refunded"),
            },
        ),
        (
            School.PREPAID,
            {
                ("charged", "created"),
                ("refunded", "completed"),
                ("refunded", "failed"),
                ("refunded", "cancelled"),
                ("refunded", "expired"),
                ("refunded", "refunded"),
            },
        ),
        (School.ON_SUCCESS, {("charged", "completed"), ("refunded", "refunded")}),
    ],
)
def test_money_moves_in_every_way_of_its_school(told: World, school: School, moved: set[tuple[str, str]]) -> None:
    of_school = {task.task_id for task in told.tasks.values() if task.terms.school is school}
    money = ((row, row.event) for row in told.log if row.stream in of_school)
    assert {(row.entry.type, event.cause) for row, event in money if isinstance(event, MoneyEvent)} == moved


def test_a_cancel_past_the_point_of_no_return_is_charged_in_part() -> None:
    told = in_memory(setting(tasks=6000, seed=3))
    parts = [task for task in told.tasks.values() if "charge:settle:1" in task.money_keys and _stopped_at_once(task)]
    assert parts
    assert all(0 < task.net_micros < task.terms.estimated_micros for task in parts)


def _stopped_at_once(task: Task) -> bool:
    return task.status is Status.CANCELLED and task.terms.point_of_no_return_percent is not None


def test_further_runs_are_paid_one_by_one_and_a_reverted_one_puts_everything_back(told: World) -> None:
    again = [task for task in told.tasks.values() if "charge:settle:2" in task.money_keys]
    assert again
    assert all(task.status is Status.COMPLETED and task.updating is None for task in again)
    reverted = {row.stream for row in told.log if row.entry.type == "update-reverted"}
    assert {task.status for task in told.tasks.values() if task.task_id in reverted} <= {
        Status.COMPLETED,
        Status.FAILED,
    }


def test_reports_come_late_and_repeated(told: World) -> None:
    late = {event.reported for event in events(told, LateReported)}
    assert {"started", "progressed", "completed", "failed"} <= late
    assert told.played.replayed > 0
    assert told.played.refused["KeyReused"] > 0
    assert any(event.implied for event in events(told, Started))


def test_what_would_be_a_break_by_itself_never_happens(told: World) -> None:
    """Money kept for a task that is never heard of again; one that completes although it was asked to stop."""
    for task in told.tasks.values():
        assert task.status in TERMINAL or task.net_micros == 0
        assert task.status is not Status.COMPLETED or task.run.cancel_requested_at_us is None
    unended = [task for task in told.tasks.values() if task.status not in TERMINAL]
    assert {task.terms.school for task in unended} == set(School)
    assert any(task.held_micros for task in unended)


async def test_no_api_key_is_issued(told: World) -> None:
    assert await told.engine.keys(None) == []


# Who orders, and when


def test_a_few_accounts_order_most(told: World) -> None:
    shares = sorted(Counter(task.account for task in told.tasks.values()).values(), reverse=True)
    assert len(shares) > 200
    assert sum(shares[:10]) > 1000
    assert shares[0] > 50 * median(shares)


def test_there_are_no_more_accounts_than_are_asked_for() -> None:
    told = in_memory(setting(tasks=200, accounts=3))
    assert {task.account for task in told.tasks.values()} == {"account-001", "account-002", "account-003"}
    assert len({task.contract for task in told.tasks.values()}) == 4


def test_tasks_arrive_within_the_days_in_order() -> None:
    times = arrivals(dice_for(1), tasks=5000, since_us=SINCE_US, days=3)
    assert times == sorted(times)
    assert {(at_us - SINCE_US) // US_PER_DAY for at_us in times} == {0, 1, 2}


def test_nights_and_week_ends_are_quieter() -> None:
    times = arrivals(dice_for(1), tasks=20_000, since_us=SINCE_US, days=28)
    moments = [datetime.fromtimestamp(at_us // US_PER_SECOND, UTC) for at_us in times]
    hours = Counter(moment.hour for moment in moments)
    weekdays = Counter(moment.weekday() for moment in moments)
    assert max(hours[hour] for hour in range(6)) * 2 < min(hours[hour] for hour in range(9, 18))
    assert max(weekdays[5], weekdays[6]) * 1.3 < min(weekdays[day] for day in range(5))


# One life


def lives(count: int) -> Iterator[tuple[Job, list[TaskCommand]]]:
    marketplace = market(read(), dice_for(1), accounts=5)
    for number in range(1, count + 1):
        dice = dice_for(1, number)
        at_us = SINCE_US + number * US_PER_HOUR
        ordered = job(dice, number=number, at_us=at_us, who=marketplace.order(dice), worker_key="w")
        yield ordered, life(ordered, dice)


def test_a_life_is_the_same_for_the_same_dice() -> None:
    assert list(lives(200)) == list(lives(200))


def test_a_life_begins_with_its_create_and_goes_on_in_order_of_time() -> None:
    for ordered, commands in lives(500):
        times = [command.at_us for command in commands]
        first, *rest = commands
        assert isinstance(first, Create)
        assert (first.task_id, first.at_us) == (ordered.task_id, ordered.at_us)
        assert times == sorted(times)
        assert all(command.task_id == ordered.task_id or isinstance(command, Create) for command in rest)


def test_most_lives_end_and_each_is_its_accounts_own() -> None:
    ended = 0
    for ordered, commands in lives(500):
        ended += any(isinstance(command, Complete | Fail | RequestCancel) for command in commands)
        accounts = {command.account for command in commands if isinstance(command, Create | RequestCancel)}
        assert accounts <= {ordered.account.name, None}
    assert ended > 475

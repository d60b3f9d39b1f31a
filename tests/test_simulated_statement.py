"""A provider's statement of a simulated history: honest lines agree with the ledger, the others are those listed."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from ledger.events import BreakKind
from ledger.memory import MemoryEngine
from ledger.money import credits_text
from ledger.task import TERMINAL, Status
from ledger.times import US_PER_DAY, parse_rfc3339
from projections.reconciliation.statement_format import COLUMNS
from scripts.simulation.faults import LEAST
from scripts.simulation.statement import Stated, faults_path, state
from tests.simulated import World, breaks, in_memory, lines_of, listed, micros, planted_in, provider_ids, setting, world

LARGEST = "volcengine"
PROVIDERS = ("alibaba", "beatra", "chunkr", "google", "minimax", "openai", "suno", "tripo", "volcengine")
every_provider = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(scope="module")
def told() -> World:
    return in_memory(setting())


async def stated(told: World, path: Path, *, provider: str = LARGEST, share: float = 0.0) -> Stated:
    return await state(told.engine, path, provider=provider, seed=7, share=share)


@pytest.fixture
async def honest(told: World, tmp_path: Path) -> list[dict[str, Any]]:
    await stated(told, tmp_path / "honest.csv")
    return lines_of(tmp_path / "honest.csv")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "provider.csv"


# Honest lines


def test_every_provider_is_looked_at(told: World) -> None:
    assert {task.provider for task in told.tasks.values()} == set(PROVIDERS)


@every_provider
async def test_an_honest_statement_reconciles_without_a_break(told: World, path: Path, provider: str) -> None:
    made = await stated(told, path, provider=provider)
    assert breaks(lines_of(path), told, provider) == []
    assert made.faults == {}
    assert faults_path(path).read_bytes() == b""


@every_provider
async def test_its_sum_is_what_the_ledger_has_charged(told: World, path: Path, provider: str) -> None:
    made = await stated(told, path, provider=provider)
    charged = sum(task.net_micros for task in told.of(provider).values())
    assert sum(map(micros, lines_of(path))) == charged > 0
    assert made.total_credits == credits_text(charged)


def test_some_tasks_have_several_lines_that_add_up(told: World, honest: list[dict[str, Any]]) -> None:
    amounts = defaultdict(list)
    for line in honest:
        amounts[line["our_task_id"] or provider_ids(told)[line["provider_task_id"]]].append(micros(line))
    assert {len(some) for some in amounts.values()} == {1, 2, 3}
    assert all(len(set(some)) == len(some) for some in amounts.values())
    assert all(sum(some) == told.tasks[name].net_micros for name, some in amounts.items())


def test_some_lines_have_only_one_of_the_ids(honest: list[dict[str, Any]]) -> None:
    having = Counter((line["our_task_id"] is None, line["provider_task_id"] is None) for line in honest)
    assert set(having) == {(False, False), (True, False), (False, True)}
    assert having[False, False] > 0.8 * len(honest)


def test_what_came_to_nothing_is_listed_at_nothing_or_not_at_all(told: World, honest: list[dict[str, Any]]) -> None:
    listed_at_nothing = Counter(line["status"] for line in honest if not micros(line))
    in_vain = [task for task in told.of(LARGEST).values() if task.status in TERMINAL and not task.net_micros]
    assert listed_at_nothing["failed"]
    assert listed_at_nothing["cancelled"]
    assert listed_at_nothing.total() < len(in_vain)


def test_each_is_billed_soon_after_it_has_ended(honest: list[dict[str, Any]]) -> None:
    for line in honest:
        started, finished, billed = (parse_rfc3339(line[name]) for name in ("started_at", "finished_at", "billed_at"))
        assert started is not None
        assert finished is not None
        assert billed is not None
        assert started <= finished <= billed < finished + 2 * US_PER_DAY


def test_lines_are_in_the_order_of_their_billing_and_have_ids_of_their_own(honest: list[dict[str, Any]]) -> None:
    billed = [parse_rfc3339(line["billed_at"]) or 0 for line in honest]
    assert billed == sorted(billed)
    assert len({line["line_id"] for line in honest}) == len(honest)


async def test_csv_and_json_lines_say_the_same(told: World, tmp_path: Path) -> None:
    paths = [tmp_path / "provider.csv", tmp_path / "provider.jsonl"]
    for path in paths:
        await stated(told, path, share=0.01)
    assert lines_of(paths[0]) == lines_of(paths[1])
    assert [tuple(line) for line in lines_of(paths[1])] == [COLUMNS] * len(lines_of(paths[0]))
    assert paths[0].read_text().splitlines()[0] == ",".join(COLUMNS)


# Planted faults


@every_provider
@pytest.mark.parametrize("share", [0.002, 0.2])
async def test_what_does_not_reconcile_is_exactly_what_was_planted(
    told: World, path: Path, provider: str, share: float
) -> None:
    await stated(told, path, provider=provider, share=share)
    assert listed(path)
    assert breaks(lines_of(path), told, provider) == listed(path)


@pytest.mark.parametrize("provider", ["beatra", "suno", "volcengine"])
async def test_there_are_two_of_every_kind_however_small_the_share(told: World, path: Path, provider: str) -> None:
    """Of the providers that have the most tasks; the others may have too few that were stopped or never ended."""
    made = await stated(told, path, provider=provider, share=0.0001)
    assert made.faults == dict.fromkeys(BreakKind, LEAST)
    assert Counter(one["kind"] for one in planted_in(path)) == made.faults


@pytest.mark.parametrize("share", [0.05, 0.1])
async def test_there_are_as_many_as_the_share_says(told: World, path: Path, share: float) -> None:
    common = (
        BreakKind.MISSING_HERE,
        BreakKind.MISSING_THERE,
        BreakKind.AMOUNT,
        BreakKind.DUPLICATE,
        BreakKind.LATE,
        BreakKind.CURRENCY,
    )
    honest = (await stated(told, path)).lines
    made = await stated(told, path, share=share)
    assert all(made.faults[kind] == round(share * honest / len(BreakKind)) for kind in common)


async def test_the_same_seed_gives_the_same_statement_and_another_one_another(told: World, tmp_path: Path) -> None:
    texts = set()
    for name, seed in (("first.csv", 7), ("second.csv", 7), ("third.csv", 8)):
        await state(told.engine, tmp_path / name, provider=LARGEST, seed=seed, share=0.01)
        texts.add((tmp_path / name).read_bytes() + faults_path(tmp_path / name).read_bytes())
    assert len(texts) == 2


async def test_each_fault_is_in_a_task_of_its_own(told: World, path: Path) -> None:
    await stated(told, path, share=0.2)
    tasks = [one["task"] for one in planted_in(path) if one["task"] is not None]
    ids = [line for one in planted_in(path) for line in one["line_ids"]]
    assert len(set(tasks)) == len(tasks)
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {line["line_id"] for line in lines_of(path)}


async def test_at_stake_is_the_difference_or_all_that_is_billed_or_charged(told: World, path: Path) -> None:
    await stated(told, path, share=0.2)
    lines = {line["line_id"]: line for line in lines_of(path)}
    for one in planted_in(path):
        at_stake, some = micros({"amount": one["amount_credits"]}), [lines[name] for name in one["line_ids"]]
        match BreakKind(one["kind"]):
            case BreakKind.AMOUNT:
                assert at_stake == abs(micros(some[0]) - told.tasks[one["task"]].net_micros) >= 50_000
            case BreakKind.MISSING_THERE:
                assert at_stake == told.tasks[one["task"]].net_micros
            case _:
                assert at_stake == micros(some[0])


async def test_a_status_conflicts_in_both_directions(told: World, path: Path) -> None:
    await stated(told, path, share=0.0001)
    conflicts = [one["task"] for one in planted_in(path) if one["kind"] == BreakKind.STATUS_CONFLICT]
    assert {told.tasks[task].status for task in conflicts} == {Status.COMPLETED, Status.FAILED}


@pytest.mark.parametrize("tasks", [0, 1, 2])
async def test_of_few_tasks_there_are_as_many_faults_as_they_bear(path: Path, tasks: int) -> None:
    small = await world(MemoryEngine(), setting(tasks=tasks))
    provider = next(iter(small.played.providers), "nobody")
    made = await stated(small, path, provider=provider, share=0.002)
    assert sum(made.faults.values()) <= tasks
    assert breaks(lines_of(path), small, provider) == listed(path)

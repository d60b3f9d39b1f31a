"""A simulated history, and a plain comparison of a provider's statement with it: written anew, from the words."""

import asyncio
import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ledger.catalogue import read
from ledger.engine import Engine
from ledger.events import Started
from ledger.ids import Spelling, TaskId
from ledger.memory import MemoryEngine
from ledger.money import parse_credits
from ledger.records import Recorded, TaskFilter
from ledger.task import TERMINAL, Status, Task
from ledger.times import US_PER_DAY, US_PER_SECOND, parse_rfc3339, rfc3339
from ledger.views import seen_of
from scripts.simulation.history import Setting, history
from scripts.simulation.play import Played, ledger_over, play
from scripts.simulation.statement import faults_path

SINCE_US = parse_rfc3339("2026-10-01T00:00:00Z") or 0
EVERYTHING = 10_000_000
ROWS_OF_A_LEDGER = 8192

Break: TypeAlias = tuple[str, str | None, frozenset[str]]
"""What is wrong, with which task, and in which lines."""


def setting(*, seed: int = 7, tasks: int = 2000, accounts: int = 300, days: int = 42) -> Setting:
    return Setting(seed=seed, tasks=tasks, accounts=accounts, since_us=SINCE_US, days=days)


class World(NamedTuple):
    """A history as it was played, and all that came of it."""

    engine: Engine
    played: Played
    log: list[Recorded]
    tasks: dict[str, Task]
    """By id, as the native API spells it."""

    @property
    def head(self) -> str:
        return self.log[-1].hash.hex()

    def of(self, provider: str) -> dict[str, Task]:
        return {name: task for name, task in self.tasks.items() if task.provider == provider}


async def world(engine: Engine, wanted: Setting, *, batch_max: int = 1024) -> World:
    """The history that is *wanted*, played to an empty engine."""
    ledger = await ledger_over(engine, wanted, batch_max=batch_max).start()
    played = await play(ledger, history(wanted, read()), made=lambda _: None)
    await ledger.writer.close()
    rows = await engine.page(TaskFilter(limit=EVERYTHING))
    tasks = {Spelling.UUID.spell(row.row.task_id): seen_of(row).task for row in rows}
    return World(engine, played, await engine.after(0, EVERYTHING), tasks)


def in_memory(wanted: Setting) -> World:
    return asyncio.run(world(MemoryEngine(), wanted))


# Statements


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a statement; what is not known is None."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(text.splitlines())]


def planted_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in faults_path(path).read_text().splitlines()]


def listed(path: Path) -> list[Break]:
    """The faults that were planted in the statement, as `breaks` would name them."""
    return sorted_breaks((one["kind"], one["task"], frozenset(one["line_ids"])) for one in planted_in(path))


def micros(line: dict[str, Any]) -> int:
    amount = parse_credits(line["amount"])
    assert amount is not None, line
    return amount


def breaks(lines: list[dict[str, Any]], told: World, provider: str) -> list[Break]:
    """Everything in which the statement and the ledger disagree."""
    theirs = provider_ids(told)
    billed: dict[str, list[dict[str, Any]]] = {}
    found: list[Break] = []
    for line in lines:
        task = line["our_task_id"] or theirs.get(line["provider_task_id"])
        if task in told.tasks:
            billed.setdefault(task, []).append(line)
        else:
            found.append(("missing-here", None, frozenset({line["line_id"]})))
    for name, some in billed.items():
        kind = _wrong_with(some, told.tasks[name])
        if kind is not None:
            found.append((kind, name, frozenset(line["line_id"] for line in some)))
    for name, task in told.of(provider).items():
        if task.status in TERMINAL and task.net_micros and name not in billed:
            found.append(("missing-there", name, frozenset()))
    return sorted_breaks(found)


def sorted_breaks(found: Iterable[Break]) -> list[Break]:
    return sorted(found, key=lambda one: (one[0], one[1] or "", sorted(one[2])))


def provider_ids(told: World) -> dict[str, str]:
    """Our id of every task, by every id that its provider gave it."""
    starts = ((row, row.event) for row in told.log if row.entry.type == "started")
    return {
        event.provider_task_id: Spelling.UUID.spell(TaskId(row.stream))
        for row, event in starts
        if isinstance(event, Started) and event.provider_task_id is not None
    }


def _wrong_with(lines: list[dict[str, Any]], task: Task) -> str | None:
    amount = sum(map(micros, lines))
    if len({tuple(value for name, value in line.items() if name != "line_id") for line in lines}) < len(lines):
        return "duplicate"
    if any(line["currency"] != "credits" for line in lines):
        return "currency"
    if task.status not in TERMINAL:
        return "unsettled"
    asked_us = task.run.cancel_requested_at_us
    if asked_us is not None and amount and any(line["finished_at"] > rfc3339(asked_us) for line in lines):
        return "avoidable-cost"
    if any((line["status"] == "completed") != (task.status is Status.COMPLETED) for line in lines):
        return "status-conflict"
    if any(_days_after_the_month(line, task) > 5 for line in lines):
        return "late"
    return "amount" if amount != task.net_micros else None


def _days_after_the_month(line: dict[str, Any], task: Task) -> float:
    """How long after the end of the month in which the task ended the line was billed; less than 0: within it."""
    assert task.run.finished_at_us is not None, "it has ended"
    ended = datetime.fromtimestamp(task.run.finished_at_us / US_PER_SECOND, UTC)
    month_end = datetime(ended.year + ended.month // 12, ended.month % 12 + 1, 1, tzinfo=UTC)
    billed_us = parse_rfc3339(line["billed_at"])
    assert billed_us is not None, line
    return (billed_us - month_end.timestamp() * US_PER_SECOND) / US_PER_DAY

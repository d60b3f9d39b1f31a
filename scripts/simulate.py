"""`task-ledger simulate`: a made-up history in a new store, decided by the real rules, and a provider's statement.

For trying out, for measuring, and for tests of whatever reads a ledger: the same seed gives the same log, hash by hash.
Only the store's own name and pepper differ, and nothing in the log depends on them: no API keys are issued, since what
is stored of one does. A hundred thousand tasks are about 600,000 events, and took one core a minute.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from ledger.catalogue import Catalogue, read
from ledger.ledger import Ledger
from ledger.times import parse_rfc3339
from projections.follow import Progress
from scripts import stores
from scripts.printed import JsonOption, json_line
from scripts.progress import bar
from scripts.simulation.history import Setting, history
from scripts.simulation.market import Portion
from scripts.simulation.play import Played, ledger_over, play
from scripts.simulation.statement import FORMATS, Stated, state

TASKS_MAX, ACCOUNTS_MAX, DAYS_MAX = 10_000_000, 100_000, 3660
FIRST_DAY, LAST_DAY = "1970-01-01", "2999-12-31"
FAULTS_MAX = 0.5
"""A statement with more of them is none of this ledger's."""


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What was made. *head* names the log: equal heads are equal logs."""

    tasks: int
    events: int
    head: str
    commands: int
    replayed: int
    refused: Mapping[str, int]
    providers: Mapping[str, int]
    """How many tasks each has."""
    statement: Stated | None


class _Wanted(NamedTuple):
    """Of whom a statement is wanted, where, and how faulty."""

    path: Path
    provider: str | None
    share: float


def simulate(
    *,
    tasks: Annotated[int, typer.Option(min=0, max=TASKS_MAX, help="How many tasks.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same history.")] = 0,
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Over how many days they arrive.")] = 42,
    since: Annotated[str, typer.Option("--from", metavar="DATE", help="The first of them.")] = "2026-10-01",
    accounts: Annotated[int, typer.Option(min=1, max=ACCOUNTS_MAX, help="How many accounts order.")] = 300,
    statement: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write a provider's statement here: .csv or .jsonl."),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose; else of the one with the most tasks.")
    ] = None,
    portion: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="The share of all tasks that --provider makes."),
    ] = None,
    faults: Annotated[
        float, typer.Option(min=0, max=FAULTS_MAX, help="The share of its lines with a fault planted; 0: none.")
    ] = 0.002,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Make a history of tasks and their money, as if a gateway had run for weeks."""
    catalogue = read()
    wanted = None if statement is None else _Wanted(statement, provider, faults)
    if wanted is not None:
        _check_path(wanted.path)
    elif provider is not None and portion is None:
        raise typer.BadParameter("there is a provider, and no --statement", param_hint="'--provider'")
    known = sorted({model.provider for model in catalogue.models.values()})
    if provider is not None and provider not in known:
        raise typer.BadParameter(f"no such provider; there are {', '.join(known)}", param_hint="'--provider'")
    setting = Setting(seed, tasks, accounts, _midnight(since), days, _portion(provider, portion))
    simulated = asyncio.run(_simulate(store, setting, catalogue, wanted))
    if as_json:
        json_line(simulated)
    else:
        _tell(simulated)


def _portion(provider: str | None, share: float | None) -> Portion | None:
    if share is None:
        return None
    if provider is None:
        raise typer.BadParameter("it is a provider's: name it with --provider", param_hint="'--portion'")
    return Portion(provider, share)


def _midnight(day: str) -> int:
    at_us = parse_rfc3339(f"{day}T00:00:00Z") if FIRST_DAY <= day <= LAST_DAY else None
    if at_us is None:
        raise typer.BadParameter(f"a date from {FIRST_DAY} to {LAST_DAY}", param_hint="'--from'")
    return at_us


def _check_path(path: Path) -> None:
    """Refuse, before the work, what could not be written after it."""
    if path.suffix not in FORMATS:
        raise _wrong_path(f"a statement's name ends in {' or '.join(FORMATS)}")
    if not os.access(path.parent, os.W_OK):
        raise _wrong_path(f"there is no folder {path.parent} to write to")


def _wrong_path(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--statement'")


async def _simulate(store: str, setting: Setting, catalogue: Catalogue, wanted: _Wanted | None) -> Simulated:
    async with stores.to_fill(store) as engine:
        with bar("simulate") as move:
            played = await _play(ledger_over(engine, setting), setting, catalogue, move)
        stated = None
        if wanted is not None:
            provider = wanted.provider or _largest(played.providers)
            stated = await state(engine, wanted.path, provider=provider, seed=setting.seed, share=wanted.share)
        head = await engine.head()
        return Simulated(
            tasks=played.providers.total(),
            events=head.position,
            head=head.hash.hex(),
            commands=played.commands,
            replayed=played.replayed,
            refused=played.refused,
            providers=played.providers,
            statement=stated,
        )


async def _play(ledger: Ledger, setting: Setting, catalogue: Catalogue, move: Progress) -> Played:
    """Play the history; the ledger's engine stays open."""
    await ledger.writer.start()
    try:
        told = history(setting, catalogue)
        return await play(ledger, told, made=lambda tasks: move(tasks, setting.tasks))
    finally:
        await ledger.writer.close()


def _largest(providers: Mapping[str, int]) -> str:
    """The provider with the most tasks; of several the first by name, and of none nobody."""
    return min(providers, key=lambda name: (-providers[name], name), default="nobody")


def _tell(made: Simulated) -> None:
    print(f"{made.events} events of {made.tasks} tasks, head {made.head}")
    refused = ", ".join(f"{name} {count}" for name, count in sorted(made.refused.items())) or "none"
    print(f"{made.commands} commands: {made.replayed} answered as before, refused: {refused}")
    if made.statement is not None:
        told = made.statement
        print(f"{told.path}: {told.lines} lines of {told.provider}, {told.total_credits} credits")
        print(f"{told.faults_path}: {sum(told.faults.values())} planted faults")


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(simulate)

"""The deadlines: what a follower knows of live tasks is what a fold of the log says, wherever its pages end."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from ledger.commands import Expire, MarkStalled, Progress, RequestUpdate, TaskCommand
from ledger.engine import Engine
from ledger.errors import DamagedError, Refusal
from ledger.heard import Heard
from ledger.ids import TaskId
from ledger.ledger import Ledger
from ledger.records import Recorded
from ledger.task import LIVE, Status
from ledger.times import US_PER_SECOND
from ledger.views import seen_of
from projections import follow
from projections.deadlines.deadlines import Deadlines, Kind, open_deadlines
from projections.follow import catch_up
from tests.builders import CREATED_US, ident
from tests.money_logs import money_log
from tests.rules_dsl import charge, complete, fail, start

FOREVER_US = 2**62


@pytest.fixture
async def deadlines(engine: Engine, tmp_path: Path) -> AsyncIterator[Deadlines]:
    opened = await open_deadlines(tmp_path / "deadlines", engine)
    yield opened
    await opened.close()


async def busy_log(ledger: Ledger, *, seed: int, tasks: int = 120) -> None:
    """Tasks at every stage: with deadlines and without, silent and heard again, updated and reverted."""
    made = await money_log(ledger, seed=seed, tasks=tasks)
    random = Random(seed)
    for _ in range(4 * tasks):
        task = random.choice(made)
        found = (await ledger.task(task, account=None)).task
        at_us = found.updated_at_us + random.randrange(1, 900) * US_PER_SECOND
        makers: list[TaskCommand] = [
            start(),
            Progress(task_id=task, at_us=at_us, actor="w", percent=random.randrange(100)),
            MarkStalled(task_id=task, at_us=at_us, actor="sweep", silent_since_us=found.updated_at_us),
            charge(1, key=f"c{at_us}"),
            fail(),
            complete(),
            RequestUpdate(task_id=task, at_us=at_us, actor="k", account=found.account, input={"n": at_us}),
        ]
        try:
            (command,) = random.choices(makers, (3, 4, 4, 1, 1, 1, 2))
            await ledger.handle(replace(command, task_id=task, at_us=at_us))
        except Refusal:
            continue


async def kept(deadlines: Deadlines) -> dict[TaskId, tuple[object, ...]]:
    rows = await deadlines.ask(
        "SELECT task, contract, model, version, state, expires_at, heard_at FROM live JOIN kinds USING (kind)"
    )
    return {TaskId(row[0]): tuple(row[1:]) for row in rows}


async def folded(engine: Engine) -> dict[TaskId, tuple[object, ...]]:
    """The same from the tasks' own rows, and from the log when each was last heard."""
    log = await engine.after(0, 1_000_000)
    placed = await engine.tasks([TaskId(row.stream) for row in log if row.entry.type == "created"])
    told: dict[TaskId, tuple[object, ...]] = {}
    for task, one in placed.items():
        found = seen_of(one).task
        if found.status in LIVE:
            state = "stalled" if found.run.stalled_since_us is not None else str(found.status)
            heard_at_us = _heard(log, task, since_us=found.run.queued_at_us) if found.status is Status.RUNNING else None
            told[task] = (found.contract, found.model, found.version, state, found.expires_at_us, heard_at_us)
    return told


def _heard(log: list[Recorded], task: TaskId, *, since_us: int) -> int:
    said = [
        row.entry.recorded_at_us
        for row in log
        if row.stream == task
        and (
            row.entry.type in {"started", "progressed"}
            or (row.entry.type == "charged" and b'"cause":"charged"' in row.entry.facts)
        )
        and row.entry.effective_at_us >= since_us
    ]
    return said[-1]


@pytest.mark.parametrize("page", [1, 3, 1000])
async def test_what_is_kept_is_what_a_fold_of_the_log_says_wherever_pages_end(
    ledger: Ledger, deadlines: Deadlines, engine: Engine, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(follow, "PAGE", page)
    await busy_log(ledger, seed=page)
    await catch_up(engine, deadlines)
    found = await kept(deadlines)
    assert found == await folded(engine)
    assert {row[3] for row in found.values()} == {"queued", "running", "stalled"}


async def test_a_dropped_file_is_built_anew_and_comes_to_the_same(
    ledger: Ledger, deadlines: Deadlines, engine: Engine, tmp_path: Path
) -> None:
    await busy_log(ledger, seed=11)
    await catch_up(engine, deadlines)
    anew = await open_deadlines(tmp_path / "anew", engine)
    await catch_up(engine, anew)
    assert await kept(anew) == await kept(deadlines) != {}
    await anew.close()


async def test_a_page_that_is_not_saved_leaves_nothing_behind(
    ledger: Ledger, deadlines: Deadlines, engine: Engine
) -> None:
    await busy_log(ledger, seed=5, tasks=10)
    rows = await engine.after(0, 1_000_000)
    at = await deadlines.checkpoint()
    created = next(row for row in rows if row.entry.type == "created")
    broken = replace(created, entry=replace(created.entry, facts=b"{"))
    with pytest.raises(DamagedError, match="position"):
        await deadlines.apply([broken], after=at)
    assert (await kept(deadlines), await deadlines.checkpoint()) == ({}, at)
    assert await deadlines.apply(rows, after=at)
    assert not await deadlines.apply(rows, after=at), "another has been here"
    assert await kept(deadlines) == await folded(engine)


async def test_what_is_due_comes_in_order_and_bounded(ledger: Ledger, deadlines: Deadlines, engine: Engine) -> None:
    await busy_log(ledger, seed=7)
    await ledger.handle(
        Expire(task_id=ident(0), at_us=FOREVER_US, actor="sweep")  # it has no deadline: nothing comes of it
    )
    await catch_up(engine, deadlines)
    running = {task: row for task, row in (await folded(engine)).items() if row[3] == "running"}
    silent = await deadlines.silent(lambda _: FOREVER_US, limit=1000)
    assert {one.task: (one.version, one.heard_at_us) for one in silent} == {
        task: (row[2], row[5]) for task, row in running.items()
    }
    assert len(await deadlines.silent(lambda _: FOREVER_US, limit=2)) == 2
    assert await deadlines.silent(lambda _: CREATED_US - 1, limit=1000) == []
    assert await deadlines.silent(lambda _: None, limit=1000) == []
    of_one_kind = await deadlines.silent(
        lambda kind: FOREVER_US if kind == Kind("beatra", "suno-5.5") else None, limit=99
    )
    assert {one.task for one in of_one_kind} == {task for task, row in running.items() if row[0] == "beatra"}


async def test_the_stalled_are_listed_page_by_page_in_either_order(
    ledger: Ledger, deadlines: Deadlines, engine: Engine
) -> None:
    await busy_log(ledger, seed=7)
    await catch_up(engine, deadlines)
    stalled = sorted(task for task, row in (await folded(engine)).items() if row[3] == "stalled")
    assert len(stalled) > 2
    for oldest_first, wanted in ((True, stalled), (False, stalled[::-1])):
        listed: list[TaskId] = []
        while page := await deadlines.stalled(
            beyond=listed[-1] if listed else None, oldest_first=oldest_first, limit=2
        ):
            listed += page
        assert listed == wanted


async def test_who_was_heard_without_news_is_silent_from_then_on_and_never_earlier(
    ledger: Ledger, deadlines: Deadlines, engine: Engine
) -> None:
    await busy_log(ledger, seed=3)
    await catch_up(engine, deadlines)
    first, *others = await deadlines.silent(lambda _: FOREVER_US, limit=1000)
    await deadlines.hear([(first.task, first.heard_at_us + 5), (others[0].task, others[0].heard_at_us - 5)])
    after = await deadlines.silent(lambda _: FOREVER_US, limit=1000)
    assert {*after} == {first._replace(heard_at_us=first.heard_at_us + 5), *others}


def test_what_is_remembered_of_reports_without_news_is_bounded_and_the_latest() -> None:
    heard = Heard(heard_max=2)
    for number, at_us in ((1, 10), (2, 20), (1, 30), (3, 40)):
        heard.note(ident(number), at_us)
    assert [heard.take(ident(number)) for number in (1, 2, 3, 1)] == [30, None, 40, None]

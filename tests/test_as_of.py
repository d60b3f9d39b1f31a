"""Time travel: tasks as they stood at a position, at a time as it was known, and at a time as it had happened."""

from itertools import groupby

import pytest
from msgspec.structs import replace

from ledger.cursors import place
from ledger.engine import Engine
from ledger.ids import Spelling, TaskId
from ledger.ledger import Ledger, fold_rows
from ledger.records import Recorded, TaskFilter
from ledger.streams import is_task_stream
from ledger.times import US_PER_SECOND, rfc3339
from projections.books.books import Clock
from projections.places import NoSuchPlaceError
from projections.reports import as_of
from projections.reports.as_of import Moment, Stood, moment_of, task_as_of, tasks_as_of
from tests import stored
from tests.builders import CREATED_US, complete, create, ident, start, whole_ledger


@pytest.fixture
async def lives(engine: Engine) -> dict[TaskId, list[Recorded]]:
    """The histories of a filled ledger, by task."""
    await stored.fill(engine)
    rows = sorted(await whole_ledger(engine), key=lambda row: row.stream)
    return {TaskId(one): [*told] for one, told in groupby(rows, key=lambda row: row.stream) if is_task_stream(one)}


async def moment(engine: Engine, at: object, clock: Clock = Clock.RECORDED) -> Moment:
    found = await moment_of(engine, {"at": str(at), "clock": clock})
    assert found is not None
    return found


async def test_at_every_position_a_task_is_the_fold_of_what_came_before(
    engine: Engine, lives: dict[TaskId, list[Recorded]]
) -> None:
    for task, rows in lives.items():
        for number, row in enumerate(rows):
            seen = await task_as_of(engine, task, await moment(engine, row.position))
            assert seen == Stood(fold_rows(task, rows[: number + 1]), row.position)
        assert await task_as_of(engine, task, await moment(engine, rows[0].position - 1)) is None


async def test_at_every_position_a_list_is_what_one_by_one_the_tasks_were(
    engine: Engine, lives: dict[TaskId, list[Recorded]]
) -> None:
    end = (await engine.head()).position
    for position in range(0, end + 1, 7):
        at = await moment(engine, position)
        each = [one for task in sorted(lives) if (one := await task_as_of(engine, task, at)) is not None]
        assert await tasks_as_of(engine, TaskFilter(oldest_first=True, limit=100), at) == (each, None)
        assert await tasks_as_of(engine, TaskFilter(limit=100), at) == (each[::-1], None)
        queued = [one for one in each if one.task.status == "queued"]
        wanted = TaskFilter(oldest_first=True, status="queued", limit=100)
        assert await tasks_as_of(engine, wanted, at) == (queued, None)


async def test_a_list_goes_on_where_a_page_ended(
    engine: Engine, lives: dict[TaskId, list[Recorded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_of, "CHUNK", 2)
    monkeypatch.setattr(as_of, "LOOKED_AT_MAX", 4)
    at = await moment(engine, (await engine.head()).position)
    for wanted in (TaskFilter(limit=3), TaskFilter(limit=3, oldest_first=True), TaskFilter(limit=1, status="failed")):
        whole, _ = await tasks_as_of(engine, replace(wanted, limit=100), at)
        found: list[Stood] = []
        page, beyond = await tasks_as_of(engine, wanted, at)
        found += page
        while beyond is not None:
            on = replace(wanted, after=beyond) if wanted.oldest_first else replace(wanted, before=beyond)
            page, beyond = await tasks_as_of(engine, on, at)
            assert len(page) <= wanted.limit
            found += page
        assert found[: len(whole)] == whole
        assert len(found) >= min(len(lives), len(whole))


async def test_by_recorded_time_it_is_what_had_been_written_down_by_then(
    engine: Engine, lives: dict[TaskId, list[Recorded]]
) -> None:
    for task, rows in lives.items():
        for row in rows[::3]:
            seen = await task_as_of(engine, task, await moment(engine, rfc3339(row.entry.recorded_at_us)))
            known = [one for one in rows if one.entry.recorded_at_us <= row.entry.recorded_at_us]
            assert seen is not None
            assert seen.task == fold_rows(task, known)


async def test_by_effective_time_it_is_what_had_happened_by_then(
    engine: Engine, lives: dict[TaskId, list[Recorded]]
) -> None:
    differs = 0
    for task, rows in lives.items():
        for row in rows:
            at_us = row.entry.effective_at_us
            seen = await task_as_of(engine, task, await moment(engine, rfc3339(at_us), Clock.EFFECTIVE))
            had = [one for one in rows if one.entry.effective_at_us <= at_us]
            assert seen is not None
            assert seen.task == fold_rows(task, had)
            differs += seen != await task_as_of(engine, task, await moment(engine, rfc3339(at_us)))
    assert differs, "both clocks tell the same everywhere: nothing was reported late"


async def test_a_late_report_of_a_time_before_its_task_makes_no_task_of_that_time(ledger: Ledger) -> None:
    task = ident(700)
    for command in (create(task), start(task), complete(task)):
        await ledger.handle(command)
    early_us = CREATED_US - US_PER_SECOND
    await ledger.handle(replace(complete(task), effective_at_us=early_us))
    rows = await ledger.engine.streams([task])
    assert (rows[-1].entry.type, rows[-1].entry.effective_at_us) == ("late-reported", early_us)
    at = await moment(ledger.engine, rfc3339(early_us), Clock.EFFECTIVE)
    assert await task_as_of(ledger.engine, task, at) is None
    assert at.shown(rows) == []


@pytest.mark.parametrize(
    ("at", "clock"),
    [("x", "recorded"), ("-1", "recorded"), ("9" * 18, "recorded"), ("1", "effective"), ("x", "effective")],
)
async def test_what_names_no_moment_is_refused(engine: Engine, at: str, clock: str) -> None:
    with pytest.raises(NoSuchPlaceError):
        await moment_of(engine, {"at": at, "clock": clock})


async def test_a_list_of_another_moment_has_cursors_of_its_own_log(engine: Engine) -> None:
    assert place(engine.log_id, Spelling.UUID.spell(ident(1))) is None
    assert await moment_of(engine, {}) is None

"""Lists of an account's tasks: in order, no gaps or repeats while tasks are added, and never a look at everything."""

import asyncio

import pytest
from msgspec.structs import replace

from ledger.commands import Delete
from ledger.ids import TaskId
from ledger.ledger import CHUNK, CHUNK_MAX_BYTES, LOOKED_AT_MAX, Ledger, Page, Wanted
from ledger.records import Placed, TaskFilter
from ledger.task import Status, Task
from tests.builders import ACCOUNT, CREATED_US, STRANGER, Watched, cancel, create, ident


async def make(ledger: Ledger, *numbers: int, account: str = ACCOUNT) -> None:
    await asyncio.gather(*(ledger.handle(create(ident(number), account=account)) for number in numbers))


def ids(page: Page) -> list[TaskId]:
    return [task.task_id for task in page.tasks]


async def walk(ledger: Ledger, *, limit: int, oldest_first: bool = False) -> list[TaskId]:
    """Every page, one after the other."""
    found: list[TaskId] = []
    beyond: TaskId | None = None
    while True:
        wanted = Wanted(account=ACCOUNT, limit=limit, oldest_first=oldest_first)
        page = await ledger.browse(replace(wanted, after=beyond) if oldest_first else replace(wanted, before=beyond))
        found += ids(page)
        if page.beyond is None:
            return found
        beyond = page.beyond


@pytest.mark.parametrize("limit", [1, 2, 7, 200])
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_hold_every_task_once_in_order(ledger: Ledger, limit: int, *, oldest_first: bool) -> None:
    await make(ledger, *range(1, 8))
    await make(ledger, 8, account=STRANGER)
    wanted = [ident(number) for number in range(1, 8)]
    assert await walk(ledger, limit=limit, oldest_first=oldest_first) == (wanted if oldest_first else wanted[::-1])


async def test_tasks_added_meanwhile_shift_no_page(ledger: Ledger) -> None:
    await make(ledger, 1, 2, 3, 4)
    first = await ledger.browse(Wanted(account=ACCOUNT, limit=2))
    await make(ledger, 5, 6)
    second = await ledger.browse(Wanted(account=ACCOUNT, limit=2, before=first.beyond))
    assert (ids(first), ids(second)) == ([ident(4), ident(3)], [ident(2), ident(1)])
    assert second.beyond is None


async def test_deleted_and_gone_tasks_are_left_out_and_what_does_not_fit(ledger: Ledger) -> None:
    await make(ledger, 1, 2, 3, 4)
    await ledger.handle(cancel(ident(3)))
    await ledger.handle(Delete(task_id=ident(3), at_us=CREATED_US, actor="k", account=ACCOUNT))
    await ledger.handle(cancel(ident(2)))

    def queued(task: Task) -> bool:
        return task.status is Status.QUEUED

    everything = await ledger.browse(Wanted(account=ACCOUNT, limit=9))
    assert ids(everything) == [ident(4), ident(2), ident(1)]
    assert ids(await ledger.browse(Wanted(account=ACCOUNT, limit=9, fits=queued))) == [ident(4), ident(1)]
    gone = await ledger.browse(Wanted(account=ACCOUNT, limit=9), gone=lambda task: task.task_id == ident(4))
    assert ids(gone) == [ident(2), ident(1)]


async def test_pages_can_be_counted(ledger: Ledger) -> None:
    await make(ledger, *range(1, 6))
    pages = [await ledger.browse(Wanted(account=ACCOUNT, limit=2, skip=skip)) for skip in (0, 2, 4, 6)]
    assert [ids(page) for page in pages] == [[ident(5), ident(4)], [ident(3), ident(2)], [ident(1)], []]
    assert [page.beyond is None for page in pages] == [False, False, True, True]


async def test_a_page_looks_at_a_bounded_number_of_tasks_and_goes_on_from_there(ledger: Ledger) -> None:
    many = LOOKED_AT_MAX + CHUNK
    await make(ledger, *range(1, many + 1))

    def oldest(task: Task) -> bool:
        return task.task_id == ident(1)

    first = await ledger.browse(Wanted(account=ACCOUNT, limit=5, fits=oldest))
    assert (first.tasks, first.beyond) == ([], ident(many - LOOKED_AT_MAX + 1))
    second = await ledger.browse(Wanted(account=ACCOUNT, limit=5, fits=oldest, before=first.beyond))
    assert (ids(second), second.beyond) == ([ident(1)], None)


# However large


async def test_no_more_is_read_than_is_wanted_and_more_at_once_only_when_little_of_it_fits(
    ledger: Ledger, watched: Watched
) -> None:
    await make(ledger, *range(1, 100))
    for limit in (1, 5):
        watched.pages.clear()
        assert len((await ledger.browse(Wanted(account=ACCOUNT, limit=limit))).tasks) == limit
        assert [page.limit for page in watched.pages] == [limit + 1]
    watched.pages.clear()
    await ledger.browse(Wanted(account=ACCOUNT, limit=5, fits=lambda _: False))
    assert [page.limit for page in watched.pages] == [6, 12, 24, 48, 96]


BIG = {"text": "x" * 1_000_000}
EIGHT = CHUNK_MAX_BYTES // 1_000_000 + 1
"""So many big tasks fill a page."""


async def make_big(ledger: Ledger, count: int) -> None:
    for number in range(1, count + 1):
        await ledger.handle(create(ident(number), input=BIG))


async def test_a_page_of_large_tasks_is_short_and_goes_on_after_it(ledger: Ledger, watched: Watched) -> None:
    await make_big(ledger, 2 * EIGHT + 1)
    numbers = [ident(number) for number in range(2 * EIGHT + 1, 0, -1)]
    first = await ledger.browse(Wanted(account=ACCOUNT, limit=50))
    assert ids(first) == numbers[:EIGHT]
    assert first.beyond == numbers[EIGHT - 1]
    second = await ledger.browse(Wanted(account=ACCOUNT, limit=50, before=first.beyond))
    assert ids(second) == numbers[EIGHT : 2 * EIGHT]
    third = await ledger.browse(Wanted(account=ACCOUNT, limit=50, before=second.beyond))
    assert (ids(third), third.beyond) == (numbers[2 * EIGHT :], None)
    assert {page.bytes_max for page in watched.pages} == {CHUNK_MAX_BYTES}


async def test_large_tasks_that_are_skipped_or_do_not_fit_hide_none_behind_them(ledger: Ledger) -> None:
    await make_big(ledger, 2 * EIGHT)
    skipping = await ledger.browse(Wanted(account=ACCOUNT, limit=1, skip=2 * EIGHT - 1))
    assert (ids(skipping), skipping.beyond) == ([ident(1)], None)

    def oldest(task: Task) -> bool:
        return task.task_id == ident(1)

    first = await ledger.browse(Wanted(account=ACCOUNT, limit=1, fits=oldest))
    assert (first.tasks, first.beyond) == ([], ident(EIGHT + 1))
    second = await ledger.browse(Wanted(account=ACCOUNT, limit=1, fits=oldest, before=first.beyond))
    assert (ids(second), second.beyond) == ([ident(1)], None)


async def test_others_have_their_turn_while_large_tasks_are_read(
    ledger: Ledger, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_big(ledger, 4)
    rows = await watched.engine.page(TaskFilter())
    assert len(rows) == 4

    async def at_hand(_: TaskFilter) -> list[Placed]:
        return rows

    monkeypatch.setattr(watched, "page", at_hand)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    seen, more = await ledger.page(TaskFilter(limit=10))
    running.cancel()
    assert (len(seen), more) == (4, False)
    assert turns >= 3

"""The books: every movement once, in double entry, as known at any place of the log, on every engine."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ledger.commands import Refund
from ledger.engine import Engine
from ledger.errors import CannotOpenError, DamagedError
from ledger.events import School
from ledger.ids import TaskId
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.money import AMOUNT_MAX_MICROS, parse_credits
from ledger.records import Recorded
from ledger.sqlite import open_to_serve
from ledger.times import rfc3339
from projections.books.books import Books, Clock, Period, books_of, open_books
from projections.books.movements import Book, Kind, Sums, posting
from projections.follow import PAGE, Checkpoint, catch_up
from projections.places import NoSuchPlaceError, place_of
from projections.reports.report import By, Report, Wanted, draw
from tests.builders import CREATED_US, Watched, create, ident
from tests.money_logs import ACCOUNTS, HOUR_US, money_log
from tests.rules_dsl import HOLD

TASKS = 60


@pytest.fixture
async def books(engine: Engine, tmp_path: Path) -> AsyncIterator[Books]:
    opened = await open_books(tmp_path / "books", engine)
    yield opened
    await opened.close()


@pytest.fixture
async def reopened(books: Books, engine: Engine, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Books]]]:
    """Closes the books, and opens them again."""
    opened = []

    async def again() -> Books:
        await books.close()
        opened.append(await open_books(tmp_path / "books", engine))
        return opened[-1]

    yield again
    for one in opened:
        await one.close()


async def everything(books: Books, engine: Engine) -> dict[str, Sums]:
    """Sums by account, as of the end of the log."""
    head = await catch_up(engine, books)
    sums: dict[str, Sums] = {}
    for (purpose, _), moved in (await books.totals(Period(head.position))).items():
        sums[purpose.account] = sums.get(purpose.account, Sums()).plus(moved)
    return sums


async def of_the_rows(engine: Engine) -> dict[str, Counter[str]]:
    """The same amounts, added up from the log's rows alone."""
    sums: dict[str, Counter[str]] = {}
    for row in await engine.after(0, 1_000_000):
        if row.entry.amount_micros is not None:
            sums.setdefault(row.account, Counter())[row.entry.type] += row.entry.amount_micros
    return sums


def by_kind(sums: Sums) -> dict[str, int]:
    named = {"held": sums.held_micros, "released": sums.released_micros}
    named |= {"charged": sums.charged_micros, "refunded": sums.refunded_micros}
    return {kind: micros for kind, micros in named.items() if micros}


# Double entry


@pytest.mark.parametrize(
    ("kind", "school", "debit", "credit"),
    [
        (Kind.HELD, School.HOLD, Book.CUSTOMER, Book.HELD),
        (Kind.RELEASED, School.HOLD, Book.HELD, Book.CUSTOMER),
        (Kind.CHARGED, School.HOLD, Book.HELD, Book.REVENUE),
        (Kind.CHARGED, School.PREPAID, Book.CUSTOMER, Book.REVENUE),
        (Kind.CHARGED, School.ON_SUCCESS, Book.CUSTOMER, Book.REVENUE),
        (Kind.REFUNDED, School.HOLD, Book.REVENUE, Book.CUSTOMER),
        (Kind.REFUNDED, School.PREPAID, Book.REVENUE, Book.CUSTOMER),
        (Kind.REFUNDED, School.ON_SUCCESS, Book.REVENUE, Book.CUSTOMER),
        (Kind.BILLED, "", Book.COST, Book.PAYABLE),
        (Kind.CREDITED, "", Book.PAYABLE, Book.COST),
    ],
)
def test_each_movement_leaves_one_account_for_another(kind: Kind, school: str, debit: Book, credit: Book) -> None:
    assert posting(kind, school) == (debit, credit)


def test_what_the_books_hold_is_what_their_postings_come_to() -> None:
    sums = Sums(held_micros=10, released_micros=3, charged_micros=9, captured_micros=5, refunded_micros=2)
    sums = sums.plus(Sums(billed_micros=6, credited_micros=1))
    balance: Counter[Book] = Counter()
    for kind, school, micros in (
        (Kind.HELD, School.HOLD, 10),
        (Kind.RELEASED, School.HOLD, 3),
        (Kind.CHARGED, School.HOLD, 5),
        (Kind.CHARGED, School.PREPAID, 4),
        (Kind.REFUNDED, School.PREPAID, 2),
        (Kind.BILLED, "", 6),
        (Kind.CREDITED, "", 1),
    ):
        debit, credit = posting(kind, school)
        balance[debit] -= micros
        balance[credit] += micros
    assert balance[Book.REVENUE] == sums.net_micros
    assert balance[Book.HELD] == sums.open_micros
    assert balance[Book.CUSTOMER] == sums.customer_micros
    assert -balance[Book.COST] == balance[Book.PAYABLE] == sums.cost_micros
    assert sums.margin_micros == sums.net_micros - sums.cost_micros
    assert sum(balance.values()) == 0


# Following


@pytest.mark.parametrize("seed", range(5))
async def test_every_movement_is_in_the_books_once(ledger: Ledger, engine: Engine, books: Books, seed: int) -> None:
    await money_log(ledger, seed=seed, tasks=TASKS)
    expected = await of_the_rows(engine)
    assert set(expected) == set(ACCOUNTS), "the log is worth following"
    for _ in range(2):
        found = await everything(books, engine)
        assert {account: by_kind(sums) for account, sums in found.items()} == expected


async def test_the_books_agree_with_the_rows_of_the_tasks(ledger: Ledger, engine: Engine, books: Books) -> None:
    tasks = await money_log(ledger, seed=1, tasks=TASKS)
    placed = (await engine.tasks(tasks)).values()
    for account, sums in (await everything(books, engine)).items():
        rows = [one.row for one in placed if one.row.account == account]
        assert sums.net_micros == sum(row.charged_micros - row.refunded_micros for row in rows)
        assert sums.open_micros == sum(row.held_micros for row in rows)


async def test_a_follower_goes_on_where_it_was(
    ledger: Ledger, engine: Engine, books: Books, reopened: Callable[[], Awaitable[Books]]
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    head = await catch_up(engine, books)
    assert await books.checkpoint() == Checkpoint(head.position, head.hash)
    await money_log(ledger, seed=2, tasks=TASKS, first=TASKS)
    books = await reopened()
    assert await books.checkpoint() == Checkpoint(head.position, head.hash)
    found = await everything(books, engine)
    assert {account: by_kind(sums) for account, sums in found.items()} == await of_the_rows(engine)


async def test_two_processes_that_follow_into_one_file_post_nothing_twice(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    other = await open_books(tmp_path / "books", engine)
    rows = await engine.after(0, PAGE)
    start = await books.checkpoint()
    assert await books.apply(rows, after=start)
    assert not await other.apply(rows, after=start)
    await money_log(ledger, seed=2, tasks=TASKS, first=TASKS)
    assert await everything(other, engine) == await everything(books, engine)
    assert {account: by_kind(sums) for account, sums in (await everything(books, engine)).items()} == await of_the_rows(
        engine
    )
    await other.close()


async def test_a_page_that_cannot_be_posted_is_not_posted_in_part(ledger: Ledger, engine: Engine, books: Books) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    rows = await engine.after(0, PAGE)
    stray = replace(rows[-1], entry=replace(rows[1].entry, type="held", amount_micros=1), stream=bytes(16))
    with pytest.raises(DamagedError, match="never created"):
        await books.apply([*rows[:-1], stray], after=await books.checkpoint())
    assert (await books.checkpoint()).position == 0
    assert {account: by_kind(sums) for account, sums in (await everything(books, engine)).items()} == await of_the_rows(
        engine
    )


async def test_what_is_not_posted_whole_is_not_seen(
    ledger: Ledger, engine: Engine, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    rows, post, begun, gate = await engine.after(0, PAGE), books._post, asyncio.Event(), asyncio.Event()

    async def slowly(rows: Sequence[Recorded]) -> None:
        begun.set()
        await gate.wait()
        await post(rows)

    monkeypatch.setattr(books, "_post", slowly)
    applying = asyncio.create_task(books.apply(rows, after=await books.checkpoint()))
    await begun.wait()
    reading = [asyncio.create_task(one) for one in (books.checkpoint(), books.totals(Period(PAGE)))]
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in reading)
    gate.set()
    assert await applying
    at, totals = await asyncio.gather(*reading)
    assert (at, totals) == (Checkpoint(rows[-1].position, rows[-1].hash), await books.totals(Period(PAGE)))


async def test_what_was_undone_is_forgotten(ledger: Ledger, engine: Engine, books: Books, tmp_path: Path) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    rows = await engine.after(0, PAGE)
    backwards = [row for row in reversed(rows) if row.entry.type == "created"]
    stray = replace(rows[-1], entry=replace(rows[1].entry, type="held", amount_micros=1), stream=bytes(16))
    with pytest.raises(DamagedError, match="never created"):
        await books.apply([*backwards, stray], after=await books.checkpoint())
    other = await open_books(tmp_path / "books", engine)
    expected = await everything(other, engine)
    await other.close()
    assert await everything(books, engine) == expected, "purposes have other numbers now"


async def test_of_two_that_begin_books_at_once_neither_undoes_what_the_other_has_done(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    both = await asyncio.gather(*(open_books(tmp_path / "books", engine) for _ in range(2)))
    found = await asyncio.gather(*(everything(one, engine) for one in both))
    await asyncio.gather(*(one.follow_only(engine) for one in both))
    assert (await both[0].checkpoint()).position == (await engine.head()).position
    for one in both:
        await one.close()
    assert found[0] == found[1]


async def test_amounts_beyond_64_bits_are_added_up_too(ledger: Ledger, engine: Engine, books: Books) -> None:
    terms = replace(HOLD, estimated_micros=AMOUNT_MAX_MICROS)
    for number in range(12):
        await ledger.handle(create(ident(number), terms=terms, expires_at_us=None))
    (sums,) = (await everything(books, engine)).values()
    assert sums.held_micros == 12 * AMOUNT_MAX_MICROS > 2**63
    report = await draw(engine, books, Wanted())
    assert report.total.open_credits == str(12 * 10**12)


class _Holed(Watched):
    """A log in which one event cannot be seen."""

    def __init__(self, engine: Engine, *, missing: int) -> None:
        super().__init__(engine)
        self._missing = missing

    async def after(self, position: int, limit: int) -> list[Recorded]:
        return [row for row in await super().after(position, limit) if row.position != self._missing]


@pytest.mark.parametrize("missing", [1, 7])
async def test_a_hole_in_the_log_is_a_fault(ledger: Ledger, engine: Engine, books: Books, missing: int) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    with pytest.raises(DamagedError, match="hole"):
        await catch_up(_Holed(engine, missing=missing), books)


# Whose books


async def test_books_of_another_log_are_begun_anew(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    await catch_up(engine, books)
    await books.close()
    anew = await open_books(tmp_path / "books", MemoryEngine())
    assert (await anew.checkpoint()).position == 0
    assert await anew.totals(Period(10**6)) == {}
    await anew.close()


async def test_books_of_a_history_that_was_undone_are_begun_anew(
    ledger: Ledger, engine: Engine, books: Books, reopened: Callable[[], Awaitable[Books]]
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    await catch_up(engine, books)
    await books._file.execute("UPDATE checkpoint SET hash = zeroblob(32)")
    books = await reopened()
    assert (await books.checkpoint()).position == 0
    found = await everything(books, engine)
    assert {account: by_kind(sums) for account, sums in found.items()} == await of_the_rows(engine)


async def test_a_file_that_is_no_database_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(b"no database, but long enough to look at" * 100)
    with pytest.raises(CannotOpenError, match="does not hold books"):
        await open_books(tmp_path / "foreign", engine)


async def test_a_ledger_is_not_taken_for_books(engine: Engine, tmp_path: Path) -> None:
    await (await open_to_serve(tmp_path / "other.db")).close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(CannotOpenError, match="does not hold books"):
        await open_books(tmp_path / "other.db", engine)
    assert (tmp_path / "other.db").read_bytes() == before


async def test_newer_books_are_refused(engine: Engine, books: Books, tmp_path: Path) -> None:
    await books._file.execute("PRAGMA user_version = 999")
    with pytest.raises(CannotOpenError, match="schema 999"):
        await open_books(tmp_path / "books", engine)


def test_the_books_are_beside_the_ledger() -> None:
    assert books_of(Path("data/ledger.db")) == Path("data/ledger.db.books")


# Reports


def as_bytes(report: Report) -> bytes:
    return msgspec.json.encode(report)


async def test_a_report_says_what_it_rests_on(ledger: Ledger, engine: Engine, books: Books) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    head = await engine.head()
    report = await draw(engine, books, Wanted())
    assert (report.position, report.head) == (head.position, head.hash.hex())


@pytest.mark.parametrize("by", By)
async def test_every_way_to_draw_a_report_has_the_same_total(
    ledger: Ledger, engine: Engine, books: Books, by: By
) -> None:
    await money_log(ledger, seed=1, tasks=TASKS)
    report = await draw(engine, books, Wanted(by=by))
    assert report.total == (await draw(engine, books, Wanted())).total
    assert len(report.lines) > 1
    assert [line.key for line in report.lines] == sorted({line.key for line in report.lines})
    assert sum(line.movements for line in report.lines) == report.total.movements


async def test_a_month_as_known_then_is_the_same_for_ever_and_as_known_now_differs_by_the_corrections(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    tasks = await money_log(ledger, seed=1, tasks=TASKS)
    until_us = CREATED_US + TASKS * HOUR_US
    closed = await engine.head()
    month = Wanted(until_us=until_us)
    then = await draw(engine, books, month)
    charged = [
        one.row for one in (await engine.tasks(tasks)).values() if one.row.charged_micros > one.row.refunded_micros
    ]
    corrected = charged[0]
    await ledger.handle(_correction(corrected.task_id, at_us=until_us + HOUR_US, effective_at_us=until_us - 1))
    again = await draw(engine, books, month._replace(at=str(closed.position)))
    assert as_bytes(again) == as_bytes(then)
    assert as_bytes(await draw(engine, books, month._replace(at=rfc3339(until_us)))) == as_bytes(then)
    now = await draw(engine, books, month)
    changed = [(old, new) for old, new in zip(then.lines, now.lines, strict=True) if old != new]
    ((old, new),) = changed
    assert new.key == corrected.account
    assert new.movements == old.movements + 1
    assert msgspec.structs.replace(
        new, movements=0, refunded_credits="", net_credits="", margin_credits=""
    ) == msgspec.structs.replace(old, movements=0, refunded_credits="", net_credits="", margin_credits="")
    by_record = await draw(engine, books, month._replace(clock=Clock.RECORDED))
    assert by_record.lines == then.lines, "by the other clock the correction belongs to the next month"


def _correction(task: bytes, *, at_us: int, effective_at_us: int) -> Refund:
    return Refund(
        task_id=TaskId(task),
        at_us=at_us,
        actor="w",
        effective_at_us=effective_at_us,
        amount_micros=1,
        key="correction",
    )


async def test_the_parts_of_a_period_add_up_to_it(ledger: Ledger, engine: Engine, books: Books) -> None:
    await money_log(ledger, seed=3, tasks=TASKS)
    middle_us = CREATED_US + TASKS // 2 * HOUR_US
    whole = await draw(engine, books, Wanted())
    parts = [
        await draw(engine, books, Wanted(until_us=middle_us)),
        await draw(engine, books, Wanted(since_us=middle_us)),
    ]
    assert all(part.total.movements for part in parts)
    for name in ("held_credits", "released_credits", "charged_credits", "refunded_credits"):
        micros = [parse_credits(getattr(part.total, name)) or 0 for part in parts]
        assert sum(micros) == parse_credits(getattr(whole.total, name))


# Places


async def test_a_place_is_a_position_a_time_or_the_end(ledger: Ledger, engine: Engine) -> None:
    await money_log(ledger, seed=1, tasks=5)
    rows = await engine.after(0, PAGE)
    assert (await place_of(engine, None)).position == len(rows)
    for row in rows:
        assert await place_of(engine, str(row.position)) == (row.position, row.hash)
        last = max(one.position for one in rows if one.entry.recorded_at_us <= row.entry.recorded_at_us)
        assert (await place_of(engine, rfc3339(row.entry.recorded_at_us))).position == last
    assert await place_of(engine, rfc3339(CREATED_US - 1)) == (0, b"")


@pytest.mark.parametrize("text", ["yesterday", "-1", "1e3", "", "999999", "2026-13-01T00:00:00Z", "\u0661"])
async def test_what_names_no_place_is_refused(ledger: Ledger, engine: Engine, text: str) -> None:
    await money_log(ledger, seed=1, tasks=5)
    with pytest.raises(NoSuchPlaceError):
        await place_of(engine, text)

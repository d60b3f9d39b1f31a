"""Reconciliation: the ledger against itself and against a provider's statement, and what it leaves in the log."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from api.contracts import parse_any
from ledger.break_log import CHUNK_MAX, BreakLog
from ledger.breaks import CorrectBreak, ExplainBreak, Life, OpenBreak
from ledger.commands import CancelPolicy, Fail, Refund, RequestCancel, RequestUpdate, Start
from ledger.engine import Engine
from ledger.errors import DamagedError, Refusal, StorageError
from ledger.events import BreakKind, School, Terms
from ledger.ids import Spelling
from ledger.ledger import Ledger
from ledger.records import AccountRow, Append, Outcome, Recorded
from ledger.task import Status
from ledger.times import US_PER_SECOND, parse_rfc3339
from ledger.views import seen_of
from projections.audit.audit import audit
from projections.books import booked
from projections.books.booked import Booked, by_end, by_ids, by_provider_ids
from projections.books.books import Books, open_books
from projections.books.break_rows import Wanted, count_breaks, list_breaks
from projections.follow import PAGE, catch_up
from projections.reconciliation.balances import LOOKS_MAX, Balance, account_balances, apart, task_balances
from projections.reconciliation.comparison import Billed, side_of
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.reconcile import Clerk, Tally, Told
from projections.reconciliation.self_check import settlement
from projections.reconciliation.statement_format import PeriodLength, StatementFormat
from projections.reconciliation.statement_records import NotAStatementError
from projections.reconciliation.statements import read_statement
from projections.reports import report
from tests.billing import MINUTE_US, PROVIDER, begin, ended_us, finish, row, run, statement
from tests.builders import CREATED_US, Watched, ident
from tests.money_logs import money_log
from tests.rules_dsl import BEATRA, BYTESPIKE, HOLD, LEMONDATA, ON_SUCCESS, terms

OURS = StatementFormat()
UNCANCELLABLE = terms(School.HOLD, cancellable=False)
NOW_US = CREATED_US + 40 * 86_400 * US_PER_SECOND
UUID = Spelling.UUID.spell


@pytest.fixture
async def books(engine: Engine, tmp_path: Path) -> AsyncIterator[Books]:
    opened = await open_books(tmp_path / "books", engine)
    yield opened
    await opened.close()


class Found(NamedTuple):
    tally: Tally
    told: list[Told]

    @property
    def kinds(self) -> list[str]:
        return sorted(one.found.kind for one in self.told)


async def compare(
    engine: Engine,
    books: Books,
    data: bytes,
    *,
    form: StatementFormat = OURS,
    writes: bool = True,
    since_us: int | None = None,
    until_us: int | None = None,
) -> Found:
    read = read_statement(data, form, task_in=parse_any)
    billed = Billed(PROVIDER, read, form, since_us, until_us)
    await catch_up(engine, books)
    told: list[Told] = []
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=writes, tell=told.append)
    await clerk.read(billed, CostLog(engine, books))
    await catch_up(engine, books)
    return Found(clerk.tally, told)


async def types(engine: Engine) -> list[str]:
    return [one.entry.type for one in await engine.after(0, PAGE)]


# S43


async def test_s43_a_statement_of_nine_lines_against_a_ledger_of_eight_is_one_missing_here(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(8))
    stray = row(8, provider_task_id="prov-unknown", our_task_id="", amount="2.25")
    found = await compare(engine, books, statement([*map(row, range(8)), stray]))
    (told,) = found.told
    difference = told.found
    assert (difference.kind, difference.at_stake_micros, told.life) == (BreakKind.MISSING_HERE, 2_250_000, Life.OPEN)
    assert NOW_US - difference.since_us == NOW_US - ended_us(8), "its age"
    assert difference.task == UUID(ident(7)), "the candidate: of its model, and nearest in time"
    assert (difference.lines, difference.line_ids) == ((10,), ("L8",))
    total = (await report.draw(engine, books, report.Wanted())).total
    assert (total.cost_credits, total.net_credits) == ("14.25", "12"), "and the books know what was billed in all"


async def test_s43_equal_totals_do_not_pass_the_check(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(8))
    lines = [row(number) for number in range(8)]
    lines[2]["amount"], lines[5]["amount"] = "1", "2"
    lines[7] = row(7, provider_task_id="prov-unknown", our_task_id="", model="another")
    found = await compare(engine, books, statement(lines))
    assert found.kinds == ["amount", "amount", "missing-here", "missing-there"]
    assert found.tally.found[BreakKind.AMOUNT] == (2, 1_000_000)


# What it leaves in the log


async def faulty(ledger: Ledger) -> bytes:
    """Six tasks, and a statement with a break of each of four kinds."""
    await run(ledger, range(6))
    rows = [row(0), row(1, amount="2"), row(2), row(2), row(4, status="failed"), row(5, provider_task_id="prov-4")]
    return statement(rows)


async def test_what_differs_becomes_breaks_that_the_audit_accepts(ledger: Ledger, engine: Engine, books: Books) -> None:
    found = await compare(engine, books, await faulty(ledger))
    assert found.kinds == ["amount", "duplicate", "missing-there", "missing-there", "status-conflict"]
    rows = [one for one in await engine.after(0, PAGE) if one.entry.type == "break-opened"]
    assert len(rows) == len(found.told) == sum(count.breaks for count in found.tally.new.values())
    assert {(one.account, one.version, one.entry.amount_micros) for one in rows} == {("", 1, None)}
    assert (await types(engine))[-1] == "statement-read"
    report = await audit(engine)
    assert report.findings == ()
    listed = await list_breaks(books, Wanted())
    assert sorted(one.found.kind for one in listed) == found.kinds
    assert await count_breaks(books, life=Life.OPEN) == found.tally.open


async def test_a_bill_and_its_credit_note_are_read_again_in_any_order_and_change_nothing(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, [0])
    bill, credit_note = statement([row(0)]), statement([row(0, line_id="C0", amount="-1.5")])
    assert (await compare(engine, books, bill)).told == []
    back = Refund(task_id=ident(0), at_us=ended_us(1), actor="w", amount_micros=1_500_000, key="goodwill")
    await ledger.handle(back)
    assert (await compare(engine, books, credit_note)).told == [], "charged nothing, and billed nothing in all"
    end = (await engine.head()).position
    for again in (credit_note, bill, bill, credit_note):
        assert (await compare(engine, books, again)).told == []
    assert (await engine.head()).position == end


async def test_the_same_statement_twice_appends_nothing(ledger: Ledger, engine: Engine, books: Books) -> None:
    data = await faulty(ledger)
    once = await compare(engine, books, data)
    position = (await engine.head()).position
    again = await compare(engine, books, data)
    assert (await engine.head()).position == position
    assert again.tally.found == once.tally.found == again.tally.open
    assert again.tally.new == {}


async def test_a_trial_appends_nothing(ledger: Ledger, engine: Engine, books: Books) -> None:
    data = await faulty(ledger)
    position = (await engine.head()).position
    found = await compare(engine, books, data, writes=False)
    assert (await engine.head()).position == position
    assert found.tally.new == found.tally.found != {}


async def test_a_statement_that_is_corrected_in_part_opens_nothing_new(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(3))
    first = await compare(engine, books, statement([row(0), row(1, amount="2"), row(2)]))
    corrected = await compare(engine, books, statement([row(0), row(1, amount="1.7"), row(2)]))
    assert (first.kinds, corrected.kinds, corrected.tally.new) == (["amount"], ["amount"], {})
    (known,) = await list_breaks(books, Wanted(life=Life.OPEN))
    assert known.found.at_stake_micros == 500_000, "as it was opened"
    assert (await types(engine)).count("statement-read") == 2


async def breaks_of(books: Books) -> list[tuple[str, Life, int]]:
    """Every break: its kind, where it is, and micro-credits at stake."""
    listed = await list_breaks(books, Wanted())
    return sorted((one.found.kind.value, one.life, one.found.at_stake_micros) for one in listed)


# What goes away by itself, and what comes back

SETTLING: list[tuple[str, list[dict[str, str]], list[dict[str, str]], str, int]] = [
    ("the rest comes a month later", [row(1, amount="0.5")], [row(1, line_id="N1", amount="1")], "amount", 1_000_000),
    ("the line is corrected", [row(1, amount="2")], [row(1)], "amount", 500_000),
    ("what was too much is credited", [row(1, amount="2")], [row(1, line_id="N1", amount="-0.5")], "amount", 500_000),
    ("the line comes later", [row(0)], [row(1)], "missing-there", 1_500_000),
    ("and has no ids", [row(0)], [row(1, provider_task_id="", our_task_id="")], "missing-there", 1_500_000),
]


@pytest.mark.parametrize(
    ("first", "then", "kind", "at_stake"), [case[1:] for case in SETTLING], ids=[case[0] for case in SETTLING]
)
async def test_a_break_is_corrected_by_the_statement_with_which_task_and_bills_agree(  # noqa: PLR0917 - a table
    ledger: Ledger,
    engine: Engine,
    books: Books,
    first: list[dict[str, str]],
    then: list[dict[str, str]],
    kind: str,
    at_stake: int,
) -> None:
    await begin(ledger, 1, provider_task_id="" if not then[0]["provider_task_id"] else None)
    await finish(ledger, 1)
    await run(ledger, [0])
    first = [row(0), *[one for one in first if one["line_id"] != "L0"]]
    assert (await compare(engine, books, statement(first))).kinds == [kind]
    trial = await compare(engine, books, statement(then), writes=False)
    assert ([one for one in trial.kinds if one != "missing-there"], trial.tally.closed) == ([], {})
    assert await breaks_of(books) == [(kind, Life.OPEN, at_stake)]
    settled = await compare(engine, books, statement(then))
    assert settled.told == []
    assert settled.tally.closed == {BreakKind(kind): (1, at_stake)}
    assert await breaks_of(books) == [(kind, Life.CORRECTED, at_stake)]
    (known,) = await list_breaks(books, Wanted())
    assert "agree" in (known.reason or "")
    assert (await audit(engine)).findings == ()
    assert (await compare(engine, books, statement(then))).tally.closed == {}, "once"


async def test_what_has_gone_and_comes_back_is_a_new_break(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    halves = [statement([row(0, line_id=name, amount=amount)]) for name, amount in (("O", "0.5"), ("N", "1"))]
    for half in halves:
        await compare(engine, books, half)
    third = await compare(engine, books, statement([row(0, line_id="D", amount="1")]))
    assert (third.kinds, third.told[0].life, third.told[0].known) == (["amount"], Life.OPEN, None)
    assert await breaks_of(books) == [("amount", Life.CORRECTED, 1_000_000), ("amount", Life.OPEN, 1_000_000)]
    again = await compare(engine, books, statement([row(0, line_id="D", amount="1")]))
    assert (again.tally.new, again.tally.open) == ({}, third.tally.open), "and once only"
    assert (await audit(engine)).findings == ()


@pytest.mark.parametrize("life", [Life.EXPLAINED, Life.CORRECTED])
async def test_what_was_said_of_one_amount_is_not_said_of_a_larger_one(
    ledger: Ledger, engine: Engine, books: Books, life: Life
) -> None:
    await run(ledger, range(1))
    (first,) = (await compare(engine, books, statement([row(0, amount="2")]))).told
    log, name = BreakLog(engine), first.found.break_id
    if life is Life.EXPLAINED:
        await log.explain(ExplainBreak(at_us=NOW_US, break_id=name, reason="a fee"), by="test")
    else:
        await log.correct(CorrectBreak(at_us=NOW_US, break_id=name, reason="given back"), by="test")
    assert (await compare(engine, books, statement([row(0, amount="2")]))).told[0].life is life
    (more,) = (await compare(engine, books, statement([row(0, amount="900")]))).told
    assert (more.life, more.known, more.found.at_stake_micros) == (Life.OPEN, None, 898_500_000)
    assert await breaks_of(books) == sorted([("amount", life, 500_000), ("amount", Life.OPEN, 898_500_000)])


async def test_a_late_report_that_contradicts_a_task_is_not_settled_by_a_bill_that_agrees(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    (told,) = (await compare(engine, books, statement([row(0, amount="2")]), writes=False)).told
    await BreakLog(engine).open([OpenBreak(at_us=NOW_US, found=told.found)], by="sweep")
    assert (await compare(engine, books, statement([row(0)]))).tally.closed == {}
    assert await breaks_of(books) == [("amount", Life.OPEN, 500_000)]


async def test_explained_and_corrected_breaks_stay_so_when_they_are_found_again(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    data = await faulty(ledger)
    once = await compare(engine, books, data)
    log, (first, second) = BreakLog(engine), [told.found.break_id for told in once.told[:2]]
    await log.explain(ExplainBreak(at_us=NOW_US, break_id=first, reason="known"), by="test")
    await log.correct(CorrectBreak(at_us=NOW_US, break_id=second, reason="refunded", position=3), by="test")
    again = await compare(engine, books, data)
    lives = {told.found.break_id: told.life for told in again.told}
    assert Counter(lives.values()) == {Life.OPEN: 3, Life.EXPLAINED: 1, Life.CORRECTED: 1}
    assert (lives[first], lives[second]) == (Life.EXPLAINED, Life.CORRECTED)
    assert (await audit(engine)).findings == ()


class _Dying(Watched):
    """A log whose store takes so many commits and no more."""

    commits_left = 1_000_000

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        if self.commits_left == 0:
            raise StorageError("killed")
        self.commits_left -= 1
        return await super().commit(batch)


@pytest.mark.parametrize("commits", [0, 1, 2])
async def test_a_reconciliation_killed_between_chunks_is_carried_on_by_the_next(
    ledger: Ledger, engine: Engine, books: Books, commits: int
) -> None:
    await run(ledger, range(1))
    count = 2 * CHUNK_MAX + 10
    strays = [row(n, provider_task_id=f"stray-{n}", our_task_id="", line_id=f"S{n}") for n in range(1, count + 1)]
    data = statement([row(0), *strays])
    dying = _Dying(engine)
    dying.commits_left = commits
    with pytest.raises(StorageError):
        await compare(dying, books, data)
    opened = (await types_of_all(engine))["break-opened"]
    assert opened == commits * CHUNK_MAX
    assert (await types_of_all(engine))["statement-read"] == 0
    found = await compare(engine, books, data)
    assert sum(one.breaks for one in found.tally.new.values()) == count - opened
    assert await types_of_all(engine) >= Counter({"break-opened": count, "statement-read": 1})
    assert (await types_of_all(engine))["break-opened"] == count
    assert (await audit(engine)).findings == ()


class _Beset(Watched):
    """A log that somebody else reads the statement into when it is first asked what is known of a break."""

    def __init__(self, engine: Engine, meanwhile: Callable[[], Awaitable[Found]]) -> None:
        super().__init__(engine)
        self._meanwhile = meanwhile
        self.found: list[Found] = []

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        if not self.found:
            self.found.append(await self._meanwhile())
        return await super().streams(names)


async def test_a_statement_that_two_processes_read_at_once_is_found_to_be_the_same_by_both(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(4))
    bare = [row(number, provider_task_id="", our_task_id="") for number in (1, 2, 3)]
    data = statement([row(0), row(0), *bare])
    other = await open_books(tmp_path / "books", engine)
    beset = _Beset(engine, lambda: compare(engine, other, data))
    found = await compare(beset, books, data)
    await other.close()
    assert found.kinds == ["duplicate"]
    assert [one.kinds for one in beset.found] == [found.kinds], "read as a whole in the middle of the other reading"
    assert (await types(engine)).count("provider-billed") == 5
    assert (await types(engine)).count("break-opened") == (await types(engine)).count("statement-read") == 1
    assert (await report.draw(engine, books, report.Wanted())).total.cost_credits == "7.5"
    assert (await audit(engine)).findings == ()


async def types_of_all(engine: Engine) -> Counter[str]:
    counted: Counter[str] = Counter()
    position = 0
    while rows := await engine.after(position, PAGE):
        counted.update(one.entry.type for one in rows)
        position = rows[-1].position
    return counted


# Periods


@pytest.mark.parametrize(
    ("length", "since", "until"),
    [
        (PeriodLength.MONTH, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        (PeriodLength.DAY, "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
    ],
)
def test_without_a_word_the_period_is_the_one_in_which_the_lines_lie(
    length: PeriodLength, since: str, until: str
) -> None:
    form = StatementFormat(period=length)
    read = read_statement(statement([row(0), row(5)]), form, task_in=parse_any)
    side = side_of(Billed(PROVIDER, read, form))
    assert (side.since_us, side.until_us) == (parse_rfc3339(since), parse_rfc3339(until))
    assert side_of(Billed(PROVIDER, read, form, since_us=7)).since_us == 7


def test_a_statement_that_tells_no_period_is_refused() -> None:
    read = read_statement(statement([]), OURS, task_in=parse_any)
    with pytest.raises(NotAStatementError, match="period"):
        side_of(Billed(PROVIDER, read))
    assert side_of(Billed(PROVIDER, read, OURS, 1, 2)).until_us == 2


async def test_only_tasks_of_the_period_are_missed(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(4))
    found = await compare(engine, books, statement([]), since_us=ended_us(1), until_us=ended_us(3))
    assert sorted(told.found.task or "" for told in found.told) == [UUID(ident(1)), UUID(ident(2))]


async def test_only_the_providers_own_tasks_are_held_against_its_statement(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await money_log(ledger, seed=1, tasks=30, first=100)
    await run(ledger, range(3))
    rows = statement([*map(row, range(3))])
    assert (await compare(engine, books, rows, since_us=CREATED_US, until_us=ended_us(3))).told == []


# What the books know of a task


async def task_in(books: Books, number: int) -> Booked:
    return (await by_ids(books, [ident(number)]))[ident(number)]


async def test_the_books_know_each_task_as_its_row_does(ledger: Ledger, engine: Engine, books: Books) -> None:
    tasks = await money_log(ledger, seed=2, tasks=80)
    await catch_up(engine, books)
    known = await by_ids(books, tasks)
    placed = await engine.tasks(tasks)
    assert len(known) == len(placed) == 80
    for task, one in placed.items():
        stands = known[task]
        task_itself = seen_of(one).task
        assert (stands.purpose.account, stands.status) == (one.row.account, one.row.status)
        assert stands.model == task_itself.resolved_model != task_itself.model
        assert stands.finished_at_us == task_itself.run.finished_at_us
        assert stands.held_micros == one.row.held_micros
        assert (stands.charged_micros, stands.refunded_micros) == (one.row.charged_micros, one.row.refunded_micros)
        assert stands.created_at_us == one.row.created_at_us


async def test_each_run_of_a_task_may_have_its_own_id_at_the_provider(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1), terms=ON_SUCCESS)
    task = ident(0)
    at_us = ended_us(0) + MINUTE_US
    await ledger.handle(
        RequestUpdate(task_id=task, at_us=at_us, actor="w", account="acme", input={"prompt": "another"})
    )
    await catch_up(engine, books)
    assert ((await task_in(books, 0)).status, (await task_in(books, 0)).finished_at_us) == ("queued", None)
    await start_again(ledger, 0, at_us, "prov-second")
    await ledger.handle(Fail(task_id=task, at_us=at_us + 2, actor="w", code="broke", message="", retryable=False))
    await catch_up(engine, books)
    found = await by_provider_ids(books, PROVIDER, ["prov-0", "prov-second", "prov-third"])
    assert {name: [one.task for one in tasks] for name, tasks in found.items()} == {
        "prov-0": [task],
        "prov-second": [task],
    }
    stands = await task_in(books, 0)
    assert (stands.status, stands.finished_at_us) == ("completed", ended_us(0)), "a failed update is put back"
    assert await by_provider_ids(books, "another", ["prov-0"]) == {}


async def start_again(ledger: Ledger, number: int, at_us: int, provider_task_id: str) -> None:
    await ledger.handle(
        Start(task_id=ident(number), at_us=at_us + 1, actor="w", worker="w", provider_task_id=provider_task_id)
    )


@pytest.mark.parametrize(
    ("policy", "terms", "asked_at_us"),
    [(BEATRA, HOLD, ended_us(0)), (BYTESPIKE, HOLD, ended_us(0)), (LEMONDATA, UNCANCELLABLE, None)],
)
async def test_a_wish_that_the_provider_cannot_do_is_no_cancel(
    ledger: Ledger, books: Books, policy: CancelPolicy, terms: Terms, asked_at_us: int | None
) -> None:
    await begin(ledger, 0, terms=terms)
    cancel = RequestCancel(task_id=ident(0), at_us=ended_us(0), actor="w", account=None, policy=policy)
    with suppress(Refusal):
        await ledger.handle(cancel)
    assert "cancel-requested" in await types(ledger.engine)
    await catch_up(ledger.engine, books)
    assert (await task_in(books, 0)).cancel_requested_at_us == asked_at_us


async def test_tasks_go_by_in_the_order_of_their_ends_over_many_pages(
    ledger: Ledger, engine: Engine, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booked, "PAGE_MAX", 3)
    await run(ledger, range(10))
    await catch_up(engine, books)
    pages = [page async for page in by_end(books, PROVIDER, since_us=ended_us(1), until_us=ended_us(9))]
    assert [len(page) for page in pages] == [3, 3, 2]
    assert [one.task for page in pages for one in page] == [ident(number) for number in range(1, 9)]


# The ledger against itself


async def unsettled(engine: Engine, books: Books, *, now_us: int, stuck_hours: int = 24) -> list[tuple[str, int, str]]:
    await catch_up(engine, books)
    pages = [page async for page in settlement(books, now_us=now_us, stuck_hours=stuck_hours)]
    return [(one.kind, one.at_stake_micros, one.task or "") for page in pages for one in page]


HOUR_US = 60 * MINUTE_US
STUCK = [("unsettled", 10_000_000, UUID(ident(0)))]


@pytest.mark.parametrize(
    ("age_us", "stuck_hours", "found"),
    [
        (24 * HOUR_US, 24, []),
        (24 * HOUR_US + 1, 24, STUCK),
        (HOUR_US + 1, 1, STUCK),
        (0, 0, []),
        (1, 0, STUCK),
    ],
)
async def test_a_hold_is_stuck_after_so_many_hours(
    ledger: Ledger, books: Books, age_us: int, stuck_hours: int, found: list[tuple[str, int, str]]
) -> None:
    await begin(ledger, 0)
    await run(ledger, range(1, 5))
    assert await unsettled(ledger.engine, books, now_us=CREATED_US + age_us, stuck_hours=stuck_hours) == found


async def test_a_history_by_the_rules_leaves_nothing_unsettled(ledger: Ledger, engine: Engine, books: Books) -> None:
    await money_log(ledger, seed=3, tasks=80)
    assert await unsettled(engine, books, now_us=CREATED_US) == []


@pytest.mark.parametrize(
    ("wrong", "at_stake_micros"),
    [
        ("held_micros = 7", 7),
        ("held_micros = -7", 7),
        ("refunded_micros = charged_micros + 7", 7),
    ],
)
async def test_what_breaks_an_invariant_of_money_is_unsettled(
    ledger: Ledger, engine: Engine, books: Books, wrong: str, at_stake_micros: int
) -> None:
    await run(ledger, range(3))
    await catch_up(engine, books)
    await books._file.execute(f"UPDATE tasks SET {wrong} WHERE task = ?", (ident(1),))  # noqa: S608 - the cases above
    found = await unsettled(engine, books, now_us=CREATED_US)
    assert found == [("unsettled", at_stake_micros, UUID(ident(1)))]


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_and_the_rows_of_tasks_and_accounts_balance(
    ledger: Ledger, engine: Engine, books: Books, seed: int
) -> None:
    await money_log(ledger, seed=seed, tasks=80)
    assert await task_balances(engine, books, now_us=NOW_US) == []
    assert await account_balances(engine, books, now_us=NOW_US) == ([], 0)
    rows = (await engine.accounts(None)).values()
    assert all(any(getattr(row, name) for row in rows) for name in Balance._fields)


MOVED = [
    ("UPDATE movements SET amount_micros = amount_micros + 5 WHERE kind = 'charged'", True),
    ("UPDATE movements SET amount_micros = amount_micros + 5 WHERE kind = 'refunded'", True),
    ("UPDATE movements SET amount_micros = amount_micros + 5 WHERE kind = 'held'", True),
    ("UPDATE tasks SET expected_micros = expected_micros + 5 WHERE expected_micros > 0", False),
]


@pytest.mark.parametrize(("fault", "in_tasks"), MOVED)
async def test_an_account_that_does_not_balance_is_a_break(
    ledger: Ledger, engine: Engine, books: Books, fault: str, *, in_tasks: bool
) -> None:
    await money_log(ledger, seed=4, tasks=80)
    await catch_up(engine, books)
    changed = await books._file.execute(fault)
    assert changed.rowcount
    tasks = await task_balances(engine, books, now_us=NOW_US)
    accounts, moving = await account_balances(engine, books, now_us=NOW_US)
    assert (bool(tasks), bool(accounts), moving) == (in_tasks, True, 0)
    for found, whose in ((tasks, "the rows of its tasks"), (accounts, "its own row")):
        assert {one.about for one in found} <= {f"account {name} by {whose}" for name in ("acme", "globex", "initech")}
        assert {one.kind for one in found} <= {BreakKind.AMOUNT}
        assert all(one.at_stake_micros % 5 == 0 and one.at_stake_micros for one in found)


def test_any_keeper_of_balances_is_held_against_the_books() -> None:
    books = {"a": Balance(1, 2), "b": Balance(0, 5), "c": Balance(), "e": Balance(0, 0, 1, 2)}
    other = {"a": Balance(1, 2), "b": Balance(1, 3), "d": Balance(4, 0), "e": Balance(0, 0, 2, 1)}
    found = list(apart(books, other, whose="another", at_us=1))
    assert [(one.about, one.at_stake_micros) for one in found] == [
        ("account b by another", 3),
        ("account d by another", 4),
        ("account e by another", 2),
    ]
    assert found[0].detail == "account b: 0.000005 charged in the books, 0.000001 held, 0.000003 charged by another"
    assert found[1].detail == "account d: nothing in the books, 0.000004 held by another"


class _Busy(Watched):
    """A log on which somebody orders something whenever the accounts have been read, so many times."""

    ledger: Ledger
    orders = 0

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        rows = await super().accounts(names)
        if names is None and self.orders:
            self.orders -= 1
            await begin(self.ledger, 1000 + self.orders)
        return rows


@pytest.mark.parametrize(("orders", "moving"), [(0, 0), (1, 0), (2 * LOOKS_MAX - 2, 0), (2 * LOOKS_MAX, 1)])
async def test_accounts_are_compared_while_others_move_them_and_those_never_at_rest_are_counted(
    ledger: Ledger, engine: Engine, books: Books, orders: int, moving: int
) -> None:
    await money_log(ledger, seed=4, tasks=80)
    busy = _Busy(engine)
    busy.ledger, busy.orders = ledger, orders
    assert await account_balances(busy, books, now_us=NOW_US) == ([], moving)


async def test_of_accounts_on_the_move_those_at_rest_are_compared(ledger: Ledger, engine: Engine, books: Books) -> None:
    await money_log(ledger, seed=4, tasks=80)
    await catch_up(engine, books)
    await books._file.execute("UPDATE movements SET amount_micros = amount_micros + 5 WHERE kind = 'charged'")
    busy = _Busy(engine)
    busy.ledger, busy.orders = ledger, 2 * LOOKS_MAX
    found, moving = await account_balances(busy, books, now_us=NOW_US)
    assert ([one.about for one in found], moving) == (
        ["account globex by its own row", "account initech by its own row"],
        1,
    )


# Scenarios by number


async def test_s10_tasks_whose_provider_has_gone_stay_as_they_are_and_their_holds_show(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    for number in range(50):
        await begin(ledger, number)
    position = (await engine.head()).position
    found = await unsettled(engine, books, now_us=NOW_US)
    assert len(found) == 50
    assert (await engine.head()).position == position
    assert {(await task_in(books, number)).status for number in range(50)} == {"running"}


async def test_s12_what_was_charged_and_later_proven_failed_is_a_conflict_until_a_refund_stands_in_the_log(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    data = statement([row(0, status="failed", amount="0")])
    (told,) = (await compare(engine, books, data)).told
    assert (told.found.kind, told.found.at_stake_micros) == (BreakKind.STATUS_CONFLICT, 1_500_000)
    refund = Refund(task_id=ident(0), at_us=NOW_US, actor="op", amount_micros=1_500_000, key="correction")
    position = (await ledger.handle(refund)).position
    command = CorrectBreak(at_us=NOW_US, break_id=told.found.break_id, reason="refunded", position=position)
    known = await BreakLog(engine).correct(command, by="op")
    assert (known.life, known.corrected_by) == (Life.CORRECTED, position)
    again = await compare(engine, books, data)
    assert again.tally.open == {}, "and it is not opened again"


async def test_s18_one_response_in_two_rows_is_one_charge_and_a_duplicate(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    (told,) = (await compare(engine, books, statement([row(0), row(0, line_id="adapter")]))).told
    assert (told.found.kind, told.found.at_stake_micros) == (BreakKind.DUPLICATE, 1_500_000)
    assert told.found.line_ids == ("L0", "adapter")


async def test_s25_what_is_spent_after_the_stop_is_avoidable_cost(ledger: Ledger, engine: Engine, books: Books) -> None:
    await begin(ledger, 0)
    stop = RequestCancel(task_id=ident(0), at_us=ended_us(0) - 1, actor="w", account=None, policy=BYTESPIKE)
    await ledger.handle(stop)
    (told,) = (await compare(engine, books, statement([row(0, amount="2.5")]))).told
    assert told.found.kind == BreakKind.STATUS_CONFLICT, "the provider says that it completed"
    (told,) = (await compare(engine, books, statement([row(0, amount="2.5", status="cancelled")]))).told
    assert (told.found.kind, told.found.at_stake_micros) == (BreakKind.AVOIDABLE_COST, 2_500_000)


async def test_s30_a_task_that_the_provider_has_finished_and_we_have_not_heard_of_is_unsettled_until_it_is(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await begin(ledger, 0)
    (told,) = (await compare(engine, books, statement([row(0)]))).told
    assert (told.found.kind, told.found.at_stake_micros) == (BreakKind.UNSETTLED, 1_500_000)
    await finish(ledger, 0)
    assert (await compare(engine, books, statement([row(0)]))).told == []


async def test_s31_a_word_that_nobody_knows_is_a_break_with_the_word_and_a_mapping_resolves_it(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    data = statement([row(0, status="finito")])
    (told,) = (await compare(engine, books, data)).told
    assert told.found.kind == BreakKind.STATUS_CONFLICT
    assert "'finito'" in told.found.detail
    form = StatementFormat(statuses={"finito": Status.COMPLETED})
    assert (await compare(engine, books, data, form=form)).told == []


async def test_s38_a_line_that_is_delivered_twice_counts_once(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    data = statement([row(0), row(0)])
    once = await compare(engine, books, data)
    position = (await engine.head()).position
    again = await compare(engine, books, data)
    assert (once.kinds, again.kinds) == (["duplicate"], ["duplicate"])
    assert (await engine.head()).position == position


async def test_amounts_without_measure_are_kept_exactly(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    largest = "1000000000000"
    rows = [
        row(0, line_id=f"L{number}", amount=largest, finished_at="", status=f"done {number}") for number in range(20)
    ]
    rows += [row(9, line_id=f"S{n}", provider_task_id=f"stray-{n}", our_task_id="", amount=largest) for n in range(20)]
    statuses = {f"done {number}": Status.COMPLETED for number in range(20)}
    found = await compare(engine, books, statement(rows), form=StatementFormat(statuses=statuses))
    (amount,) = [told.found for told in found.told if told.found.kind == BreakKind.AMOUNT]
    assert amount.at_stake_micros == 20 * 10**18 - 1_500_000
    assert (await BreakLog(engine).known([amount.break_id]))[amount.break_id].found == amount
    counted = await count_breaks(books, life=Life.OPEN)
    assert counted[BreakKind.MISSING_HERE] == (20, 20 * 10**18)
    assert amount in [known.found for known in await list_breaks(books, Wanted(kind=BreakKind.AMOUNT))]


# Damage


@pytest.mark.parametrize("kind", ["started", "cancel-requested", "break-opened"])
async def test_an_event_that_cannot_be_read_is_a_fault_and_books_nothing(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path, kind: str
) -> None:
    await begin(ledger, 0)
    await ledger.handle(RequestCancel(task_id=ident(0), at_us=ended_us(0), actor="w", account=None, policy=BEATRA))
    await compare(engine, books, statement([row(1)]))
    rows = await engine.after(0, PAGE)
    spoilt = [
        replace(one, entry=replace(one.entry, facts=b'{"type')) if one.entry.type == kind else one for one in rows
    ]
    assert spoilt != rows
    fresh = await open_books(tmp_path / "fresh", engine)
    with pytest.raises(DamagedError, match="cannot be read"):
        await fresh.apply(spoilt, after=await fresh.checkpoint())
    assert (await fresh.checkpoint()).position == 0
    await fresh.close()


async def test_books_of_an_older_version_are_made_anew(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(2))
    await catch_up(engine, books)
    await books._file.execute("DROP TABLE provider_tasks")
    await books._file.execute("PRAGMA user_version = 1")
    await books.close()
    anew = await open_books(tmp_path / "books", engine)
    assert (await anew.checkpoint()).position == 0
    await catch_up(engine, anew)
    assert set(await by_provider_ids(anew, PROVIDER, ["prov-0", "prov-1"])) == {"prov-0", "prov-1"}
    await anew.close()

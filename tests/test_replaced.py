"""A statement that replaces another: what only the other billed is given back, and what only it showed is corrected."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from api.contracts import parse_any
from ledger.break_log import NOBODY, BreakLog
from ledger.breaks import ExplainBreak, Life, replaced_stream, statement_stream
from ledger.engine import Engine
from ledger.errors import NotReplaceable, Refusal, StatementSuperseded, UnknownProvider
from ledger.events import BreakKind, StatementRead, StatementReplaced
from ledger.ledger import Ledger
from ledger.records import Append, Outcome, entry
from ledger.statement_log import StatementLog
from ledger.statement_rules import Replaced, decide_replaced, refuse_superseded, replaced_violation
from projections.audit.audit import audit
from projections.books.books import Books, open_books
from projections.books.break_rows import Wanted, list_breaks
from projections.follow import catch_up
from projections.reconciliation.comparison import Billed
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.reconcile import Clerk, Told
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statements import Statement, read_statement
from projections.reports.report import Wanted as Drawn
from projections.reports.report import draw
from tests.billing import PROVIDER, row, run, statement
from tests.builders import CREATED_US, Watched

NOW_US = CREATED_US + 40 * 86_400 * 1_000_000
OLD, NEW, OTHER = "aa" * 32, "bb" * 32, "cc" * 32
EUROS = StatementFormat(currency="EUR")
Rows = Sequence[dict[str, str]]


@pytest.fixture
async def books(engine: Engine, tmp_path: Path) -> AsyncIterator[Books]:
    opened = await open_books(tmp_path / "books", engine)
    yield opened
    await opened.close()


# Deciding


def replaced(statement: str = OLD, *, by: str = NEW) -> StatementReplaced:
    return StatementReplaced(at_us=1, statement=statement, provider=PROVIDER, by=by)


def was_read(statement: str = OLD) -> StatementRead:
    return StatementRead(
        at_us=1, statement=statement, provider=PROVIDER, lines=1, malformed=0, billed_micros=1, breaks=0, position=0
    )


REPLACED = {OLD: NEW}
DECIDED: list[tuple[str, Replaced, StatementReplaced, type[Refusal] | None, str]] = [
    ("one that was read is replaced", {}, replaced(), None, ""),
    ("the one that stands for another is", REPLACED, replaced(NEW, by=OTHER), None, ""),
    ("one that was replaced by another", REPLACED, replaced(by=OTHER), NotReplaceable, f"has been replaced by {NEW}"),
    ("itself", {}, replaced(by=OLD), NotReplaceable, "does not replace itself"),
    ("by one that it replaces", REPLACED, replaced(NEW, by=OLD), StatementSuperseded, f"{OLD} has been replaced"),
    ("by one that was replaced", REPLACED, replaced(OTHER, by=OLD), StatementSuperseded, f"{OLD} has been replaced"),
    ("itself, when it was", REPLACED, replaced(by=OLD), StatementSuperseded, f"{OLD} has been replaced"),
    (
        "once more by one that was replaced since",
        {OLD: NEW, NEW: OTHER},
        replaced(),
        StatementSuperseded,
        f"{NEW} has been replaced by {OTHER}",
    ),
]


@pytest.mark.parametrize(
    ("known", "order", "refusal", "told"), [case[1:] for case in DECIDED], ids=[case[0] for case in DECIDED]
)
def test_a_statement_is_replaced_once_and_by_one_that_stands(
    known: Replaced, order: StatementReplaced, refusal: type[Refusal] | None, told: str
) -> None:
    if refusal is None:
        assert decide_replaced(known, order, is_read=True) == [order]
    else:
        with pytest.raises(refusal, match=told):
            decide_replaced(known, order, is_read=True)
    assert (replaced_violation(known, order, is_read=True) is None) is (refusal is None), "the audit says the same"


def test_the_same_again_changes_nothing() -> None:
    assert decide_replaced(REPLACED, replaced(), is_read=True) == []


def test_one_that_was_never_read_is_not_replaced() -> None:
    with pytest.raises(NotReplaceable, match=f"of {PROVIDER} has not been read"):
        decide_replaced({}, replaced(), is_read=False)


def test_what_was_replaced_is_not_read_again() -> None:
    refuse_superseded({}, OLD)
    refuse_superseded(REPLACED, NEW)
    with pytest.raises(StatementSuperseded, match=f"{OLD} has been replaced by {NEW}"):
        refuse_superseded(REPLACED, OLD)


# In the log


def parsed(rows: Rows, form: StatementFormat | None = None) -> Statement:
    return read_statement(statement(rows), form or StatementFormat(), task_in=parse_any)


async def read(
    engine: Engine,
    books: Books,
    rows: Rows,
    *,
    replaces: Rows | None = None,
    form: StatementFormat | None = None,
    writes: bool = True,
) -> list[Told]:
    """Reconcile a statement as the command line does; what it found."""
    await catch_up(engine, books)
    told: list[Told] = []
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=writes, tell=told.append)
    old = None if replaces is None else parsed(replaces).digest
    billed = Billed(PROVIDER, parsed(rows, form), form or StatementFormat(), replaces=old)
    await clerk.read(billed, CostLog(engine, books))
    await catch_up(engine, books)
    return told


async def kinds(books: Books, life: Life = Life.OPEN) -> list[str]:
    return sorted(one.found.kind for one in await list_breaks(books, Wanted(life=life)))


async def cost(engine: Engine, books: Books, at: str | None = None) -> str:
    return (await draw(engine, books, Drawn(at=at))).total.cost_credits


STRAY = row(8, provider_task_id="stray", our_task_id="", amount="2")
WRONG = row(1, amount="9")
FIRST = [row(0), WRONG, STRAY]
SECOND = [row(0), row(1), row(9, provider_task_id="other", our_task_id="", amount="4")]


async def test_what_only_the_old_one_billed_is_given_back_and_what_only_it_showed_is_corrected(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(3))
    assert sorted(told.found.kind for told in await read(engine, books, FIRST)) == [
        "amount",
        "missing-here",
        "missing-there",
    ]
    assert await cost(engine, books) == "12.5"
    before = (await engine.head()).position
    told = await read(engine, books, [row(0), WRONG], replaces=FIRST)
    assert sorted((one.found.kind, one.known is None) for one in told) == [("amount", False), ("missing-there", False)]
    assert await cost(engine, books) == "10.5"
    assert await kinds(books) == ["amount", "missing-there"]
    (gone,) = await list_breaks(books, Wanted(life=Life.CORRECTED))
    assert (gone.found.line_ids, gone.agrees) == (("L8",), True)
    types = [one.entry.type for one in await engine.after(before, 100)]
    assert types == ["statement-replaced", "provider-credited", "break-corrected", "statement-read"]
    assert (await audit(engine)).findings == ()
    assert await cost(engine, books, at=str(before)) == "12.5", "what was known then"


async def test_without_being_told_a_line_that_is_left_out_stays_billed(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await read(engine, books, FIRST)
    await read(engine, books, [row(0), row(1)])
    assert await cost(engine, books) == "5"
    await read(engine, books, [row(0), row(1)], replaces=FIRST)
    assert await cost(engine, books) == "3", "and is given back when it is told later"


async def test_the_same_run_twice_changes_nothing(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(3))
    await read(engine, books, FIRST)
    new = [row(0), row(1), row(2)]
    await read(engine, books, new, replaces=FIRST)
    position = (await engine.head()).position
    assert await kinds(books) == []
    for old in (FIRST, None):
        await read(engine, books, new, replaces=old)
        assert (await engine.head()).position == position


async def test_a_correction_of_a_correction_gives_back_what_the_first_one_billed(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    second = [row(0), row(1), STRAY]
    await read(engine, books, FIRST)
    await read(engine, books, second, replaces=FIRST)
    assert await cost(engine, books) == "5"
    assert await kinds(books) == ["missing-here"]
    await read(engine, books, [row(0), row(1)], replaces=second)
    assert await cost(engine, books) == "3", "a line that the second one only said again is gone with it"
    assert await kinds(books) == []
    assert (await audit(engine)).findings == ()


async def test_a_task_is_compared_with_what_the_new_one_bills_alone(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    old, new = [row(0), row(1)], [row(0, line_id="N0"), row(1, line_id="N1")]
    await read(engine, books, old)
    assert await read(engine, books, new, replaces=old) == []
    assert await cost(engine, books) == "3"


async def test_what_another_statement_bills_stays_billed(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, [row(1)])
    old, new = [row(0, amount="2")], [row(0)]
    await read(engine, books, old)
    await read(engine, books, new, replaces=old)
    assert await cost(engine, books) == "3"


async def test_a_line_in_a_currency_that_nobody_agreed_to_bills_nothing_and_what_it_billed_is_given_back(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    old = [row(0), row(1)]
    await read(engine, books, old)
    told = await read(engine, books, [row(0, currency="EUR"), row(1)], replaces=old, form=EUROS)
    assert [one.found.kind for one in told] == ["currency"]
    assert await cost(engine, books) == "1.5"


async def test_breaks_that_somebody_explained_stay_as_they_are(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, FIRST)
    (stray,) = await list_breaks(books, Wanted(kind=BreakKind.MISSING_HERE))
    await BreakLog(engine).explain(ExplainBreak(at_us=NOW_US, break_id=stray.break_id, reason="a trial"), by="test")
    await read(engine, books, [row(0), row(1)], replaces=FIRST)
    assert await kinds(books) == []
    assert await kinds(books, Life.EXPLAINED) == ["missing-here"]


async def test_a_task_without_a_line_that_ended_outside_the_new_period_is_missing_still(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    old = [row(0)]
    await read(engine, books, old)
    assert await kinds(books) == ["missing-there"]
    later = {"finished_at": "2026-03-03T00:00:00Z", "billed_at": "2026-03-03T00:00:00Z", "started_at": ""}
    await read(engine, books, [row(0, **later)], replaces=old)
    assert "missing-there" in await kinds(books)


# Refused


async def test_what_cannot_be_replaced_or_read_again_writes_nothing(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(3))
    new = [row(0), row(1)]
    await read(engine, books, FIRST)
    await read(engine, books, new, replaces=FIRST)
    position = (await engine.head()).position
    third = [row(0), row(1), row(2)]
    wrong: list[tuple[Rows, Rows | None, type[Refusal]]] = [
        (third, FIRST, NotReplaceable),
        (third, third, NotReplaceable),
        (third, [row(7)], NotReplaceable),
        (FIRST, None, StatementSuperseded),
        (FIRST, new, StatementSuperseded),
    ]
    for rows, old, refusal in wrong:
        for writes in (True, False):
            with pytest.raises(refusal):
                await read(engine, books, rows, replaces=old, writes=writes)
    assert (await engine.head()).position == position


async def test_a_trial_gives_nothing_back(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, FIRST)
    position = (await engine.head()).position
    assert await read(engine, books, [row(0), row(1)], replaces=FIRST, writes=False) == []
    assert (await engine.head()).position == position


async def test_a_provider_that_nobody_knows_is_refused(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    await catch_up(engine, books)
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=True, tell=lambda _: None)
    position = (await engine.head()).position
    for name, others in (("volcengin", ()), ("volcengin", ("alibaba",))):
        with pytest.raises(UnknownProvider, match=r"'volcengin'; known are .*volcengine"):
            await clerk.read(Billed(name, parsed([row(0)]), providers=others), CostLog(engine, books))
    assert (await engine.head()).position == position
    await clerk.read(Billed(PROVIDER, parsed([row(0)]), providers=()), CostLog(engine, books))
    await clerk.read(Billed("new", parsed([row(0)]), providers=("new",)), CostLog(engine, books))


# Killed, raced, rebuilt


async def test_a_run_that_was_killed_is_carried_on_by_the_same_statement_and_no_other(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    new = [row(0), row(1)]
    await read(engine, books, FIRST)
    order = StatementReplaced(at_us=NOW_US, statement=parsed(FIRST).digest, provider=PROVIDER, by=parsed(new).digest)
    await StatementLog(engine).replace(order, by="test")
    with pytest.raises(NotReplaceable):
        await read(engine, books, [row(0)], replaces=FIRST)
    await read(engine, books, new)
    assert await cost(engine, books) == "3"
    assert await kinds(books) == []


class Abreast(Watched):
    """Another engine, of which the first commit waits until that of its fellow is decided as well."""

    def __init__(self, engine: Engine, start: asyncio.Barrier) -> None:
        super().__init__(engine)
        self._start = start

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        if not self.commits:
            await self._start.wait()
        return await super().commit(batch)


def abreast(engine: Engine) -> tuple[Abreast, Abreast]:
    start = asyncio.Barrier(2)
    return Abreast(engine, start), Abreast(engine, start)


async def test_of_two_that_replace_a_statement_at_once_one_is_refused(engine: Engine) -> None:
    await StatementLog(engine).read(was_read(), by="test")
    position = (await engine.head()).position
    ended = await asyncio.gather(
        *(
            StatementLog(one).replace(replaced(by=by), by="test")
            for one, by in zip(abreast(engine), (NEW, OTHER), strict=True)
        ),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in ended) == ["NoneType", "NotReplaceable"]
    assert (await engine.head()).position == position + 1


async def test_of_two_that_replace_each_other_at_once_one_stands_and_the_other_is_refused(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(2))
    for rows in (FIRST, SECOND):
        await read(engine, books, rows)
    other = await open_books(tmp_path / "others", engine)
    here, there = abreast(engine)
    ended = await asyncio.gather(
        read(here, books, FIRST, replaces=SECOND),
        read(there, other, SECOND, replaces=FIRST),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in ended) == ["StatementSuperseded", "list"]
    stands, void = (FIRST, SECOND) if isinstance(ended[1], Refusal) else (SECOND, FIRST)
    position = (await engine.head()).position
    for own in (books, other):
        await read(engine, own, stands, replaces=void)
        for old in (stands, None):
            with pytest.raises(StatementSuperseded):
                await read(engine, own, void, replaces=old)
        assert await cost(engine, own) == ("12.5" if stands is FIRST else "7")
    assert (await engine.head()).position == position
    assert (await audit(engine)).findings == ()
    await same_as_built_anew(engine, books, tmp_path)
    await other.close()


async def test_of_three_that_replace_each_other_in_a_ring_one_is_left(engine: Engine) -> None:
    log = StatementLog(engine)
    for name in (OLD, NEW, OTHER):
        await log.read(was_read(name), by="test")
    await log.replace(replaced(OLD, by=NEW), by="test")
    await log.replace(replaced(NEW, by=OTHER), by="test")
    with pytest.raises(StatementSuperseded):
        await log.replace(replaced(OTHER, by=OLD), by="test")
    with pytest.raises(StatementSuperseded):
        await log.replace(replaced(OLD, by=NEW), by="test")


async def same_as_built_anew(engine: Engine, books: Books, folder: Path) -> None:
    """Check that books that follow the log from its beginning come to the same."""
    anew = await open_books(folder / "anew", engine)
    await catch_up(engine, anew)
    for table in ("billed_lines", "replaced_statements", "breaks", "tasks"):
        asked = f"SELECT * FROM {table} ORDER BY 1, 2"  # noqa: S608 - our own names
        assert await anew.ask(asked) == await books.ask(asked) != []
    await anew.close()


async def test_books_built_anew_know_what_was_replaced(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(2))
    await read(engine, books, FIRST)
    await read(engine, books, [row(0), row(1)], replaces=FIRST)
    await same_as_built_anew(engine, books, tmp_path)


# The audit

READ, REPLACE = statement_stream(PROVIDER, OLD), replaced_stream(PROVIDER)
Written = Sequence[tuple[bytes, StatementRead | StatementReplaced]]
NEW_READ = statement_stream(PROVIDER, NEW), was_read(NEW)
FALSE: dict[str, tuple[Written, str | None]] = {
    "as it should be": ([(READ, was_read()), (REPLACE, replaced())], None),
    "a correction of a correction": (
        [(READ, was_read()), NEW_READ, (REPLACE, replaced()), (REPLACE, replaced(NEW, by=OTHER))],
        None,
    ),
    "what was never read": ([(REPLACE, replaced())], "was never read"),
    "what was read later": ([(REPLACE, replaced()), (READ, was_read())], "was never read"),
    "read twice": ([(READ, was_read()), (READ, was_read())], "was read before"),
    "replaced twice": ([(READ, was_read()), (REPLACE, replaced()), (REPLACE, replaced(by=OTHER))], "has been replaced"),
    "by itself": ([(READ, was_read()), (REPLACE, replaced(by=OLD))], "replaced by itself"),
    "by each other": (
        [(READ, was_read()), NEW_READ, (REPLACE, replaced()), (REPLACE, replaced(NEW, by=OLD))],
        "by one that has been replaced",
    ),
    "in the stream of the statement": ([(READ, was_read()), (READ, replaced())], "does not stand in the stream"),
    "read in another's stream": ([(REPLACE, was_read())], "does not stand in the stream"),
}


@pytest.mark.parametrize("case", FALSE)
async def test_the_audit_finds_a_replacement_that_cannot_be(engine: Engine, case: str) -> None:
    written, problem = FALSE[case]
    versions = Counter[bytes]()
    for stream, event in written:
        entries = (entry(event, actor="test", recorded_at_us=NOW_US),)
        await engine.commit([Append(stream=stream, account=NOBODY, expected=versions[stream], entries=entries)])
        versions[stream] += 1
    found = (await audit(engine)).findings
    if problem is None:
        assert found == ()
    else:
        assert any(problem in one.detail for one in found), found

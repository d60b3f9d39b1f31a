"""Statements that bill the same lines: the latest has the say, whichever is read again, so all comes to rest."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from itertools import chain, permutations
from pathlib import Path

import pytest

from api.contracts import parse_any
from ledger.break_log import BreakLog
from ledger.breaks import Life
from ledger.commands import Refund
from ledger.costs import Known, Owed, Source, Whose, decide_cost
from ledger.engine import Engine
from ledger.ledger import Ledger
from ledger.statement_rules import Turn
from projections.audit.audit import audit
from projections.books.books import Books, open_books
from projections.books.break_rows import Wanted, list_breaks
from projections.books.statement_rows import turn_of
from projections.follow import catch_up
from projections.reconciliation.comparison import Billed, Comparison
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.reconcile import Clerk, Told
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statements import Statement, read_statement
from projections.reports.report import Wanted as Drawn
from projections.reports.report import draw
from tests.billing import MODEL, PROVIDER, begin, ended_us, finish, row, run, statement
from tests.builders import CREATED_US, ident

NOW_US = CREATED_US + 40 * 86_400 * 1_000_000
Rows = Sequence[dict[str, str]]


@pytest.fixture
async def books(engine: Engine, tmp_path: Path) -> AsyncIterator[Books]:
    opened = await open_books(tmp_path / "books", engine)
    yield opened
    await opened.close()


# The rule

CAME = 10
TURNS: list[tuple[str, Turn, int, bool, bool]] = [
    ("a new one moves what was never moved", Turn(), 0, True, True),
    ("a new one moves what any other has moved", Turn(), 99, True, True),
    ("one moves its own lines again", Turn(CAME, is_read=True), CAME, True, True),
    ("one moves what an earlier one has moved", Turn(CAME, is_read=True), CAME - 1, True, True),
    ("one moves what nobody has moved", Turn(CAME, is_read=True), 0, True, True),
    ("one that was read has no say in what a later one has moved", Turn(CAME, is_read=True), CAME + 1, False, False),
    ("one that was killed has none either, but tells of its tasks", Turn(CAME), CAME + 1, False, True),
]


@pytest.mark.parametrize(("turn", "came", "moves", "tells"), [case[1:] for case in TURNS], ids=[c[0] for c in TURNS])
def test_the_statement_that_came_last_has_the_say(turn: Turn, came: int, *, moves: bool, tells: bool) -> None:
    assert (turn.has_say(came), turn.tells_of(came)) == (moves, tells)
    whose = Whose(model=MODEL)
    before, owed = Known(Owed("line L1", whose, 5, 1), came), Owed("line L1", whose, 7, 1)
    assert bool(list(decide_cost(before, owed, Source(PROVIDER, "ab" * 32), turn))) is moves


# In the log


def parsed(rows: Rows) -> Statement:
    return read_statement(statement(rows), StatementFormat(), task_in=parse_any)


async def read(engine: Engine, books: Books, rows: Rows, *, replaces: Rows | None = None) -> list[Told]:
    """Reconcile a statement as the command line does; what it found."""
    await catch_up(engine, books)
    told: list[Told] = []
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=True, tell=told.append)
    old = None if replaces is None else parsed(replaces).digest
    await clerk.read(Billed(PROVIDER, parsed(rows), replaces=old), CostLog(engine, books))
    await catch_up(engine, books)
    return told


async def kill(engine: Engine, books: Books, rows: Rows, *, after: int) -> None:
    """Read a statement up to its first lines, of which the costs are posted, and no further."""
    await catch_up(engine, books)
    told: list[Told] = []
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=True, tell=told.append)
    billed = Billed(PROVIDER, parsed(rows))
    comparison = Comparison(books, billed)
    async for found in comparison.differences():
        await clerk.take(found, billed=billed)
    await CostLog(engine, books).post(list(comparison.owed())[:after], billed.source, by="test", now_us=NOW_US)
    await catch_up(engine, books)


async def cost(engine: Engine, books: Books) -> str:
    return (await draw(engine, books, Drawn())).total.cost_credits


async def head(engine: Engine) -> int:
    return (await engine.head()).position


async def open_kinds(books: Books) -> list[str]:
    return sorted(one.found.kind for one in await list_breaks(books, Wanted(life=Life.OPEN)))


A, B = [row(0, amount="2"), row(1)], [row(0)]
C = [row(0, amount="1.25"), row(1)]
SEQUENCES: list[tuple[str, list[Rows], str, list[str]]] = [
    ("A and B", [A, B], "3", []),
    ("A again", [A, B, A], "3", []),
    ("A and B again", [A, B, A, B], "3", []),
    ("night after night", [A, B, A, B, A, B], "3", []),
    ("in the other order A is the later one", [B, A, B, A], "3.5", ["amount"]),
    ("three, of which the last one has the say", [A, B, C, A, B, A], "2.75", ["amount"]),
    ("one that says what is known moves nothing", [A, C, [row(1)], A, C], "2.75", ["amount"]),
]


@pytest.mark.parametrize(
    ("readings", "then", "left"), [case[1:] for case in SEQUENCES], ids=[case[0] for case in SEQUENCES]
)
async def test_what_was_corrected_stays_corrected_whichever_is_read_again(  # noqa: PLR0917 - a table
    ledger: Ledger, engine: Engine, books: Books, readings: list[Rows], then: str, left: list[str]
) -> None:
    await run(ledger, range(2))
    seen: list[Rows] = []
    for rows in readings:
        position = await head(engine)
        await read(engine, books, rows)
        assert (await head(engine) == position) is (rows in seen)
        seen.append(rows)
    assert (await cost(engine, books), await open_kinds(books)) == (then, left)
    assert (await audit(engine)).findings == ()


async def test_a_run_that_was_killed_is_finished_and_takes_nothing_back(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(3))
    first = [row(0, amount="2"), row(1, amount="2"), row(2)]
    second = [row(0), row(1)]
    await kill(engine, books, first, after=1)
    assert await cost(engine, books) == "2"
    await read(engine, books, second)
    assert await cost(engine, books) == "3"
    await read(engine, books, first)
    assert await cost(engine, books) == "4.5", (
        "the third line, which nobody had moved; the second is B's, who came later"
    )
    position = await head(engine)
    for rows in (second, first, second):
        await read(engine, books, rows)
    assert (await head(engine), await open_kinds(books)) == (position, [])


async def test_one_that_replaces_another_comes_anew_even_where_it_was_read_first(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await read(engine, books, B)
    await read(engine, books, A)
    assert await cost(engine, books) == "3.5"
    await read(engine, books, B, replaces=A)
    assert (await cost(engine, books), await open_kinds(books)) == ("1.5", ["missing-there"]), "A's second line is gone"
    position = await head(engine)
    await read(engine, books, B)
    await read(engine, books, B, replaces=A)
    assert await head(engine) == position


async def test_one_that_replaces_another_is_read_again_after_a_third_and_closes_nothing_of_what_that_tells(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    old = [row(0, amount="2"), row(1, amount="2")]
    await read(engine, books, old)
    await read(engine, books, [row(0, amount="1.75"), row(1)], replaces=old)
    assert await open_kinds(books) == ["amount"]
    third = [row(0, amount="9")]
    await read(engine, books, third)
    position = await head(engine)
    for rows in ([row(0, amount="1.75"), row(1)], third):
        await read(engine, books, rows)
    assert (await head(engine), await open_kinds(books)) == (position, ["amount"])


async def test_a_line_that_is_nobodys_is_told_by_the_one_that_corrected_it(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    stray = row(8, line_id="", provider_task_id="stray", our_task_id="", amount="2")
    first, second = [row(0), stray, stray | {"amount": "1"}], [row(0), stray | {"amount": "1"}]
    await read(engine, books, first)
    await read(engine, books, second)
    position = await head(engine)
    for rows in (first, second, first):
        await read(engine, books, rows)
    assert await head(engine) == position


async def test_of_a_task_that_a_later_one_bills_another_kind_of_difference_is_not_told_by_the_earlier_one(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    first, second = [row(0)], [row(0, line_id="N0", status="failed")]
    await read(engine, books, first)
    await read(engine, books, second)
    assert await open_kinds(books) == ["status-conflict"]
    assert await read(engine, books, first) == []
    assert await open_kinds(books) == ["status-conflict"]


async def test_of_a_line_that_turns_up_by_its_id_the_one_that_has_the_say_tells_whose_it_is(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await begin(ledger, 0, provider_task_id="")
    await finish(ledger, 0)
    first, second = [row(0, our_task_id="", amount="2")], [row(0, our_task_id="")]
    await read(engine, books, first)
    await read(engine, books, second)
    await begin(ledger, 1, provider_task_id="prov-0")
    await finish(ledger, 1)
    position = await head(engine)
    await read(engine, books, first)
    assert await head(engine) == position
    await read(engine, books, second)
    assert {line.key: line.cost_credits for line in (await draw(engine, books, Drawn())).lines} == {
        "": "0",
        "acme": "1.5",
    }


async def test_two_that_are_read_at_once_come_to_rest_at_the_next_reading(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(2))
    other = await open_books(tmp_path / "others", engine)
    await asyncio.gather(read(engine, books, A), read(engine, other, B))
    for rows in (A, B):
        await read(engine, books, rows)
    position, then = await head(engine), await cost(engine, books)
    assert then in {"3", "3.5"}
    for rows in (B, A, A, B):
        await read(engine, other, rows)
    assert (await head(engine), await cost(engine, books)) == (position, then)
    assert (await audit(engine)).findings == ()
    await other.close()


async def test_books_built_anew_know_when_each_came(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(2))
    for rows, old in ((A, None), (B, None), (C, A)):
        await read(engine, books, rows, replaces=old)
    anew = await open_books(tmp_path / "anew", engine)
    await catch_up(engine, anew)
    came = {}
    for name, rows in (("A", A), ("B", B), ("C", C)):
        came[name] = await turn_of(anew, PROVIDER, parsed(rows).digest)
        assert came[name] == await turn_of(books, PROVIDER, parsed(rows).digest)
    assert [name for name, _ in sorted(came.items(), key=lambda one: one[1].came)] == ["A", "B", "C"]
    assert all(one.is_read for one in came.values())
    everything = "SELECT * FROM tasks ORDER BY task"
    assert await anew.ask(everything) == await books.ask(everything)
    await anew.close()


# Whatever there is in a folder

TASKS = 4


def any_statement(rng: random.Random) -> list[dict[str, str]]:
    """Some lines, with ids and without, of tasks here and of none, at one of a few amounts; some twice."""
    rows = []
    for _ in range(rng.randint(1, 5)):
        number = rng.randrange(TASKS + 1)
        other = {"amount": rng.choice(["1.5", "0.5", "1", "2", "-0.5", "0"])}
        other |= rng.choice(
            [{}, {}, {"line_id": ""}, {"line_id": f"L{rng.randrange(TASKS)}"}, {"line_id": f"N{number}"}]
        )
        other |= rng.choice([{}, {}, {"provider_task_id": "", "our_task_id": ""}, {"provider_task_id": "stray"}])
        other |= rng.choice([{}, {}, {}, {"status": "failed"}, {"currency": "EUR"}])
        rows.append(row(number, **other))
    return rows


@pytest.mark.parametrize("seed", range(60))
async def test_a_folder_that_is_read_a_second_time_in_any_order_appends_nothing(
    ledger: Ledger, engine: Engine, books: Books, seed: int
) -> None:
    rng = random.Random(seed)
    await run(ledger, range(TASKS - 1))
    await begin(ledger, TASKS - 1, provider_task_id="")  # known by our id alone
    await finish(ledger, TASKS - 1)
    folder = [any_statement(rng) for _ in range(rng.randint(2, 4))]
    for rows in rng.choices(folder, k=2) + folder:
        await read(engine, books, rows)
    position, then = await head(engine), await cost(engine, books)
    orders = list(permutations(folder))
    for rows in chain.from_iterable(rng.sample(orders, k=2)):
        await read(engine, books, rows)
    new = [one.event for one in await engine.after(position, 100)]
    assert (new, await cost(engine, books)) == ([], then)
    assert (await audit(engine)).findings == ()


# Lines without ids

NAMELESS = row(0, line_id="", provider_task_id="", our_task_id="")


async def test_a_line_that_was_matched_stays_with_its_task_when_that_is_refunded(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    assert await read(engine, books, [NAMELESS]) == []
    back = Refund(task_id=ident(0), at_us=ended_us(1), actor="w", amount_micros=1_500_000, key="goodwill")
    await ledger.handle(back)
    (told,) = await read(engine, books, [NAMELESS])
    assert (told.found.kind, told.found.detail) == ("amount", "billed 1.5, charged 0")
    assert [(line.key, line.cost_credits) for line in (await draw(engine, books, Drawn())).lines] == [("acme", "1.5")]
    assert await read(engine, books, [NAMELESS | {"amount": "0"}]) == [], "nor does it when it is corrected"
    assert await cost(engine, books) == "0"


async def test_a_line_that_was_matched_goes_where_its_own_ids_say_when_it_is_corrected(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await read(engine, books, [NAMELESS | {"line_id": "X"}])
    (told,) = await read(engine, books, [row(1, line_id="X")])
    assert told.found.kind == "missing-there"
    assert await cost(engine, books) == "1.5"
    (told, *_) = await read(engine, books, [row(9, line_id="X")])
    assert told.found.kind == "missing-there"
    assert {line.key: line.cost_credits for line in (await draw(engine, books, Drawn())).lines} == {
        "": "1.5",
        "acme": "0",
    }

"""What providers bill: each line of a statement once, as a fact of the log, and as cost in the books."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from api.contracts import parse_any
from ledger.break_log import NOBODY, BreakLog
from ledger.breaks import Life, provider_stream
from ledger.commands import Delete, Start
from ledger.costs import NOTHING, Known, Owed, Source, Whose, decide_cost, signed_micros
from ledger.engine import Engine
from ledger.events import CostEvent, ProviderBilled, ProviderCredited, tag_of
from ledger.ids import Spelling
from ledger.ledger import Ledger
from ledger.money import AMOUNT_MAX_MICROS, credits_text
from ledger.records import Append, entry
from ledger.statement_rules import Turn
from projections.audit.audit import audit
from projections.books.booked import by_ids
from projections.books.books import Books, open_books
from projections.books.cost_rows import lines_known, positions_of_costs
from projections.follow import PAGE, catch_up
from projections.reconciliation.comparison import Billed
from projections.reconciliation.cost_log import CHUNK_MAX, CostLog
from projections.reconciliation.line_names import amount_key, names_of
from projections.reconciliation.reconcile import Clerk, Told
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statements import Line, read_statement
from projections.reports.report import By, Report, Wanted, draw
from projections.reports.rows import csv_text
from tests.billing import MODEL, PROVIDER, begin, ended_us, finish, row, run, statement
from tests.builders import CREATED_US, ident

NOW_US = CREATED_US + 40 * 86_400 * 1_000_000
SOURCE = Source(PROVIDER, "ab" * 32)
ACME = Whose("019b4e5a-7000-8000-8000-000000000001", "acme", "lemondata", MODEL)
GLOBEX = Whose("019b4e5a-7000-8000-8000-000000000002", "globex", "lemondata", MODEL)
UUID = Spelling.UUID.spell
EUROS = StatementFormat(currency="EUR")


@pytest.fixture
async def books(engine: Engine, tmp_path: Path) -> AsyncIterator[Books]:
    opened = await open_books(tmp_path / "books", engine)
    yield opened
    await opened.close()


# Deciding


def owed(micros: int, whose: Whose = ACME) -> Owed:
    return Owed("line L1", whose, micros, CREATED_US)


LINES: list[tuple[str, Owed, Owed, list[tuple[str, int, int, Whose]]]] = [
    ("a new line is billed", NOTHING, owed(5), [("provider-billed", 5, 5, ACME)]),
    ("a credit note gives back what was never billed", NOTHING, owed(-5), [("provider-credited", 5, -5, ACME)]),
    ("a line at nothing is no fact", NOTHING, owed(0), []),
    ("the same again changes nothing", owed(5), owed(5), []),
    ("a line that was corrected up moves the difference", owed(5), owed(7), [("provider-billed", 2, 7, ACME)]),
    ("a line that was corrected down moves the difference", owed(5), owed(3), [("provider-credited", 2, 3, ACME)]),
    ("a line that was taken back comes to nothing", owed(5), owed(0), [("provider-credited", 5, 0, ACME)]),
    (
        "a line that is another task's is given back for the one and billed for the other",
        owed(5),
        owed(6, GLOBEX),
        [("provider-credited", 5, 0, ACME), ("provider-billed", 6, 6, GLOBEX)],
    ),
    ("whose a line at nothing was is of no account", owed(0), owed(6, GLOBEX), [("provider-billed", 6, 6, GLOBEX)]),
]


@pytest.mark.parametrize(("known", "says", "then"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_a_line_moves_by_what_it_says_beyond_what_is_known(
    known: Owed, says: Owed, then: list[tuple[str, int, int, Whose]]
) -> None:
    events = list(decide_cost(Known(known), says, SOURCE, Turn()))
    assert [(tag_of(one), one.amount_micros, one.line_micros, whose_of(one)) for one in events] == then
    assert {(one.provider, one.statement, one.line) for one in events} <= {(*SOURCE[:2], "line L1")}
    if says.whose == known.whose or not known.micros:
        assert sum(map(signed_micros, events)) == says.micros - known.micros


def whose_of(event: CostEvent) -> Whose:
    return Whose(event.task, event.account, event.contract, event.model)


def test_a_line_is_known_by_its_id_or_by_what_it_names_and_when_whatever_it_bills() -> None:
    bare = {"line_id": ""}
    rows = [row(1), row(1, amount="9"), row(2, **bare), row(2, **bare, amount="9"), row(2, **bare, billed_at="")]
    names = names_of(read_statement(statement(rows), StatementFormat(), task_in=parse_any).lines)
    assert names[:2] == ["line L1", "line L1 again 1"]
    assert names[3] == f"{names[2]} again 1"
    assert len(set(names)) == 5


def test_no_two_lines_are_known_by_one_name_whatever_their_ids_are() -> None:
    rows = [row(number, line_id=name) for number, name in enumerate(["L1 again 1", "L1", "L1", "L1 again 1", "L1"])]
    names = names_of(read_statement(statement(rows), StatementFormat(), task_in=parse_any).lines)
    assert len(set(names)) == 5


SLASHES = [  # no two of them are the same line
    {"provider_task_id": "a/b", "our_task_id": "c", "model": "m"},
    {"provider_task_id": "a", "our_task_id": "b/c", "model": "m"},
    {"provider_task_id": "a", "our_task_id": "b", "model": "c/m"},
    {"provider_task_id": "a/b", "our_task_id": "", "model": "c/m"},
    {"line_id": "of a/b/c/m"},
    {"line_id": '["a/b","c","m"]'},
    {"line_id": ': ["of a/b/c/m"]'},
]


@pytest.mark.parametrize("name", [lambda line: names_of([line])[0], amount_key], ids=["its name", "of its break"])
def test_lines_whose_ids_have_slashes_share_no_name_across_statements(name: Callable[[Line], str]) -> None:
    told = [
        name(line)
        for other in SLASHES
        for line in read_statement(statement([row(2, line_id="") | other]), StatementFormat(), task_in=parse_any).lines
    ]
    assert len(set(told)) == len(SLASHES)


NAMES: list[tuple[dict[str, str], str]] = [
    ({}, "line L1"),
    ({"line_id": "of 1/2"}, 'line: ["of 1/2"]'),
    ({"line_id": "a/b"}, "line a/b"),
    ({"line_id": "", "our_task_id": "", "billed_at": ""}, "line of prov-1//seedance-2.0/1/2/None"),
    ({"line_id": "", "our_task_id": "o/1", "billed_at": ""}, 'line: ["prov-1","o/1","seedance-2.0",1,2,null]'),
]


@pytest.mark.parametrize(("other", "name"), NAMES)
def test_names_are_as_they_stand_in_the_log(other: dict[str, str], name: str) -> None:
    (line,) = read_statement(statement([row(1) | other]), StatementFormat(), task_in=parse_any).lines
    assert names_of([replace(line, started_at_us=1, finished_at_us=2)]) == [name]


def test_a_line_that_was_rounded_is_recorded_with_what_it_says_and_a_line_that_comes_to_nothing_is_not() -> None:
    third, half = Owed("line L1", ACME, 333_333, CREATED_US, "1"), Owed("line L1", GLOBEX, 166_667, CREATED_US, "0.5")
    assert [one.rounded_from for one in decide_cost(Known(), third, SOURCE, Turn())] == ["1"]
    assert [one.rounded_from for one in decide_cost(Known(third), half, SOURCE, Turn())] == ["", "0.5"]


# In the log


async def read(
    engine: Engine, books: Books, data: bytes, *, form: StatementFormat | None = None, writes: bool = True
) -> list[Told]:
    """Reconcile a statement as the command line does; what it found."""
    form = form or StatementFormat()
    await catch_up(engine, books)
    told: list[Told] = []
    clerk = Clerk(BreakLog(engine), by="test", now_us=NOW_US, writes=writes, tell=told.append)
    billed = Billed(PROVIDER, read_statement(data, form, task_in=parse_any), form)
    await clerk.read(billed, CostLog(engine, books))
    await catch_up(engine, books)
    return told


async def costs(engine: Engine) -> list[CostEvent]:
    """What the log says of them, in order."""
    events = [one.event for one in await engine.streams([provider_stream(PROVIDER)])]
    assert all(isinstance(one, ProviderBilled | ProviderCredited) for one in events)
    return events  # type: ignore[return-value]


async def cost_of(engine: Engine, books: Books, by: By = By.ACCOUNT) -> dict[str, tuple[str, str]]:
    """Cost and margin, by whatever."""
    drawn = await draw(engine, books, Wanted(by=by))
    assert drawn.total.cost_credits == credits_text(sum(map(signed_micros, await costs(engine))))
    return {line.key: (line.cost_credits, line.margin_credits) for line in drawn.lines}


async def test_each_line_of_a_statement_is_a_fact_about_its_task(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    assert await read(engine, books, statement([row(0), row(1, provider_task_id="")])) == []
    rows = await engine.streams([provider_stream(PROVIDER)])
    assert [(one.account, one.version, one.entry.amount_micros) for one in rows] == [
        (NOBODY, 1, 1_500_000),
        (NOBODY, 2, 1_500_000),
    ]
    assert [one.entry.effective_at_us for one in rows] == [ended_us(0), ended_us(1)], "the work's own day"
    events = await costs(engine)
    assert [(one.line, one.line_micros) for one in events] == [("line L0", 1_500_000), ("line L1", 1_500_000)]
    assert [whose_of(one) for one in events] == [Whose(UUID(ident(n)), "acme", "lemondata", MODEL) for n in range(2)]
    assert (await audit(engine)).findings == ()


async def test_cost_and_margin_are_in_every_report(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, statement([row(0, amount="0.5"), row(1, amount="0.25")]))
    expected = ("0.75", "2.25")
    assert await cost_of(engine, books) == {"acme": expected}
    assert await cost_of(engine, books, By.MODEL) == {f"lemondata/{MODEL}": expected}
    assert await cost_of(engine, books, By.CONTRACT) == {"lemondata": expected}
    assert await cost_of(engine, books, By.PROVIDER) == {PROVIDER: expected}
    assert await cost_of(engine, books, By.DAY) == {"2026-01-02": expected}


async def test_what_is_billed_for_no_task_of_ours_is_cost_of_no_account(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(1))
    stray = row(1, provider_task_id="stray", our_task_id="", amount="2.25", model="a-model")
    (told,) = await read(engine, books, statement([row(0), stray]))
    assert told.found.kind == "missing-here"
    assert await cost_of(engine, books) == {"": ("2.25", "-2.25"), "acme": ("1.5", "0")}
    assert (await cost_of(engine, books, By.MODEL))["/a-model"] == ("2.25", "-2.25")
    assert whose_of((await costs(engine))[1]) == Whose(model="a-model")
    assert (await audit(engine)).findings == ()


async def test_the_same_statement_twice_posts_nothing(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(3))
    bare = [row(number, line_id="") for number in range(3)]
    data = statement([*bare, row(0, line_id="", amount="-0.1"), row(1), row(1)])
    await read(engine, books, data)
    position, once = (await engine.head()).position, await cost_of(engine, books)
    await read(engine, books, data)
    assert (await engine.head()).position == position
    assert await cost_of(engine, books) == once == {"acme": ("7.4", "-2.9")}, "all that the statement bills"


async def test_a_corrected_statement_posts_the_difference(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(4))
    await read(engine, books, statement([*(row(number) for number in range(3)), row(3, line_id="", amount="2")]))
    before = len(await costs(engine))
    corrected = [row(0), row(1, amount="1.75"), row(2, amount="1"), row(3, line_id="", amount="1.5")]
    await read(engine, books, statement(corrected))
    moved = [(tag_of(one), one.line[:7], one.amount_micros) for one in (await costs(engine))[before:]]
    assert moved == [
        ("provider-billed", "line L1", 250_000),
        ("provider-credited", "line L2", 500_000),
        ("provider-credited", "line of", 500_000),
    ]
    assert await cost_of(engine, books) == {"acme": ("5.75", "0.25")}
    assert (await audit(engine)).findings == ()


async def test_a_line_whose_task_turns_up_later_is_billed_for_it_then(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await begin(ledger, 0, provider_task_id="")
    await finish(ledger, 0)
    line = statement([row(0, our_task_id="", model="another")])
    assert [told.found.kind for told in await read(engine, books, line)] == ["missing-there", "missing-here"]
    await begin(ledger, 1, provider_task_id="prov-0")
    await finish(ledger, 1)
    await read(engine, books, line)
    moved = [(tag_of(one), one.task) for one in await costs(engine)]
    assert moved == [("provider-billed", None), ("provider-credited", None), ("provider-billed", UUID(ident(1)))]
    assert await cost_of(engine, books) == {"": ("0", "0"), "acme": ("1.5", "1.5")}
    assert (await audit(engine)).findings == ()


async def test_what_is_billed_in_a_currency_that_nobody_agreed_to_has_no_amount_that_could_be_cost(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    data = statement([row(0), row(1, currency="EUR")])
    assert [told.found.kind for told in await read(engine, books, data, form=EUROS)] == ["currency"]
    assert [one.line for one in await costs(engine)] == ["line L1"]


async def test_a_line_that_is_corrected_to_a_currency_nobody_agreed_to_is_given_back_and_its_break_stands(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await read(engine, books, statement([row(0), row(1)]))
    for _ in range(2):
        (told,) = await read(engine, books, statement([row(0), row(1, currency="EUR")]))
        assert (told.found.kind, told.life) == ("currency", Life.OPEN)
    assert [(tag_of(one), one.line, one.line_micros) for one in await costs(engine)][2:] == [
        ("provider-credited", "line L1", 0)
    ]
    assert await cost_of(engine, books) == {"acme": ("1.5", "1.5")}
    await read(engine, books, statement([row(0), row(1, billed_at="")]))
    assert await cost_of(engine, books) == {"acme": ("3", "0")}, "until it is corrected once more"
    assert (await audit(engine)).findings == ()


async def test_a_trial_posts_nothing(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, statement([row(0), row(1)]), writes=False)
    assert await costs(engine) == []


async def test_amounts_beyond_64_bits_are_cost_too(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    most = credits_text(AMOUNT_MAX_MICROS)
    await read(engine, books, statement([row(0, line_id=f"L{number}", amount=most) for number in range(12)]))
    assert (await draw(engine, books, Wanted())).total.cost_credits == str(12 * 10**12)
    assert (await by_ids(books, [ident(0)]))[ident(0)].billed_micros == 12 * AMOUNT_MAX_MICROS


async def test_what_was_billed_beyond_64_bits_comes_back_exactly(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    for amount in ("", "-"):
        most = amount + credits_text(AMOUNT_MAX_MICROS)
        lines = [row(0), *(row(0, line_id=f"M{number}", amount=most) for number in range(12))]
        await read(engine, books, statement(lines))
        micros = 1_500_000 + int(f"{amount}{12 * AMOUNT_MAX_MICROS}")
        assert (await by_ids(books, [ident(0)]))[ident(0)].billed_micros == micros
    assert (
        await read(engine, books, statement([row(0), *(row(0, line_id=f"M{n}", amount="0") for n in range(12))])) == []
    )


# Two months


async def test_a_task_that_is_billed_in_two_months_is_compared_with_both_together(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    october = statement([row(0, amount="0.5"), row(1)])
    november = statement([row(0, line_id="N0", amount="1")])
    (told,) = await read(engine, books, october)
    assert (told.found.kind, told.found.at_stake_micros) == ("amount", 1_000_000)
    assert await read(engine, books, november) == [], "half of it was billed before"
    assert await read(engine, books, october) == [], "and the other half is known now"
    assert await cost_of(engine, books) == {"acme": ("3", "0")}


async def test_what_is_billed_too_much_over_two_months_is_a_break_that_says_so(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    assert await read(engine, books, statement([row(0), row(1)])) == []
    (told,) = await read(engine, books, statement([row(0, line_id="N0")]))
    assert (told.found.kind, told.found.at_stake_micros) == ("amount", 1_500_000)
    assert told.found.detail == "billed 3 (1.5 of it before), charged 1.5"


async def test_a_task_that_was_billed_before_is_neither_missed_nor_matched_again(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await read(engine, books, statement([row(0), row(1)]))
    stray = row(0, line_id="N", provider_task_id="", our_task_id="")
    (told,) = await read(engine, books, statement([stray]))
    assert (told.found.kind, told.found.line_ids) == ("missing-here", ("N",))


async def test_the_rest_of_a_task_is_matched_by_what_is_due_yet(ledger: Ledger, engine: Engine, books: Books) -> None:
    await begin(ledger, 0, provider_task_id="")
    await finish(ledger, 0)
    await read(engine, books, statement([row(0, amount="0.5")]))
    rest = row(0, line_id="N", provider_task_id="", our_task_id="", amount="1")
    assert await read(engine, books, statement([rest])) == []
    assert (await costs(engine))[-1].task == UUID(ident(0))


async def test_a_month_that_is_closed_is_printed_as_it_was_known_then_however_it_is_corrected_later(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(3))
    first = statement([row(0), row(1, amount="2"), row(8, provider_task_id="stray", our_task_id="", amount="0.25")])
    await read(engine, books, first)
    closed = Wanted(since_us=CREATED_US, until_us=NOW_US, at=str((await engine.head()).position))
    printed = {by: csv_text(await draw(engine, books, closed._replace(by=by))) for by in By}
    await read(engine, books, statement([row(0, currency="EUR"), row(1), row(2)]))
    await read(engine, books, first)
    now = csv_text(await draw(engine, books, closed._replace(at=None)))
    assert now.split(",")[:-2] != printed[By.ACCOUNT].split(",")[:-2]
    anew = await open_books(tmp_path / "anew", engine)
    await catch_up(engine, anew)
    for by in By:
        for one in (books, anew):
            assert csv_text(await draw(engine, one, closed._replace(by=by))) == printed[by]
    await anew.close()


# Rebuilt, killed, raced


async def test_books_built_anew_from_the_log_are_the_same(
    ledger: Ledger, engine: Engine, books: Books, tmp_path: Path
) -> None:
    await run(ledger, range(3))
    await read(engine, books, statement([row(0), row(1), row(2, provider_task_id="stray", our_task_id="")]))
    await read(engine, books, statement([row(0), row(1, amount="1")]))
    other = await open_books(tmp_path / "others", engine)
    await catch_up(engine, other)
    for by in By:
        assert await draw(engine, other, Wanted(by=by)) == await draw(engine, books, Wanted(by=by))
    for asked in (lines_of, tasks_of):
        assert await asked(other) == await asked(books) != []
    await other.close()


async def lines_of(books: Books) -> list[object]:
    return await books.ask("SELECT * FROM billed_lines ORDER BY line")


async def tasks_of(books: Books) -> list[object]:
    return await books.ask("SELECT * FROM tasks ORDER BY task")


async def test_a_report_as_of_a_position_knows_no_later_cost(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(1))
    await read(engine, books, statement([row(0)]))
    then = (await engine.head()).position
    before = await draw(engine, books, Wanted())
    await read(engine, books, statement([row(0, amount="9")]))
    assert await draw(engine, books, Wanted(at=str(then))) == before
    assert isinstance(before, Report)
    assert before.total.cost_credits == "1.5"


async def test_more_lines_than_one_commit_takes_are_each_posted_once(engine: Engine, books: Books) -> None:
    lines = [Owed(f"line {number}", Whose(model=MODEL), 1, CREATED_US) for number in range(2 * CHUNK_MAX + 1)]
    log = CostLog(engine, books)
    assert await log.post(lines[: CHUNK_MAX + 1], SOURCE, by="test", now_us=NOW_US) == CHUNK_MAX + 1
    await catch_up(engine, books)
    assert await log.post(lines, SOURCE, by="test", now_us=NOW_US) == CHUNK_MAX, "a run that died is carried on"
    assert len({one.line for one in await costs(engine)}) == len(await costs(engine)) == len(lines)


async def test_of_two_that_read_a_statement_at_once_one_posts_each_line(
    engine: Engine, books: Books, tmp_path: Path
) -> None:
    lines = [Owed(f"line {number}", Whose(model=MODEL), 1, CREATED_US) for number in range(CHUNK_MAX + 10)]
    other = await open_books(tmp_path / "others", engine)
    both = [CostLog(engine, one).post(lines, SOURCE, by="test", now_us=NOW_US) for one in (books, other)]
    assert sum(await asyncio.gather(*both)) == len(lines)
    assert len(await costs(engine)) == len(lines)
    assert (await audit(engine)).findings == ()
    await other.close()


async def test_the_books_know_where_in_the_log_a_task_was_billed(ledger: Ledger, engine: Engine, books: Books) -> None:
    await run(ledger, range(2))
    await read(engine, books, statement([row(0), row(1)]))
    await read(engine, books, statement([row(0, amount="2")]))
    head = (await engine.head()).position
    places = await positions_of_costs(books, ident(0), until=head)
    events = [(await engine.after(position - 1, 1))[0].event for position in places]
    assert [one.amount_micros for one in events if isinstance(one, ProviderBilled)] == [1_500_000, 500_000]
    assert await positions_of_costs(books, ident(0), until=places[0]) == places[:1]
    assert (await lines_known(books, PROVIDER, ["line L0"]))["line L0"].owed.micros == 2_000_000


# The audit


def billed(**other: object) -> ProviderBilled:
    """A line that bills task 0 what the audit has nothing to say against."""
    event = ProviderBilled(
        at_us=CREATED_US,
        amount_micros=5,
        provider=PROVIDER,
        line="line L1",
        line_micros=5,
        statement="ab" * 32,
        task=UUID(ident(0)),
        account="acme",
        contract="lemondata",
        model=MODEL,
    )
    return replace(event, **other)


FALSE: dict[str, tuple[ProviderBilled, str | None]] = {
    "as it should be": (billed(), None),
    "of no task": (billed(task=None, account="", contract=""), None),
    "the line does not come to that": (billed(line_micros=6), "makes 6 of the 0 of its line"),
    "a task that is not there": (billed(task=UUID(ident(9))), "which is not there"),
    "what is no task at all": (billed(task="seven"), "which is not there"),
    "another account": (billed(account="globex"), "says of task"),
    "another contract": (billed(contract="chunkr"), "says of task"),
    "another model": (billed(model="sora-2"), "says of task"),
    "another provider": (billed(provider="another"), "of another provider"),
    "no task, and an account": (billed(task=None, contract=""), "is of no task"),
}


async def append(engine: Engine, event: CostEvent, *, stream: bytes, expected: int = 0, account: str = NOBODY) -> None:
    one = entry(event, actor="test", recorded_at_us=NOW_US)
    outcomes = await engine.commit([Append(stream=stream, account=account, expected=expected, entries=(one,))])
    assert all(isinstance(outcome, int) for outcome in outcomes)


@pytest.mark.parametrize("case", FALSE)
async def test_the_audit_finds_a_cost_that_cannot_be(ledger: Ledger, engine: Engine, case: str) -> None:
    event, problem = FALSE[case]
    await run(ledger, range(1))
    await append(engine, event, stream=provider_stream(event.provider))
    found = (await audit(engine)).findings
    if problem is None:
        assert found == ()
    else:
        (finding,) = found
        assert (finding.check, finding.position) == ("costs", (await engine.head()).position)
        assert problem in finding.detail


WRONG_PLACES: list[tuple[str, Callable[[], bytes], str]] = [
    ("another provider's stream", lambda: provider_stream("another"), NOBODY),
    ("a customer's account", lambda: provider_stream(PROVIDER), "acme"),
]


@pytest.mark.parametrize(("stream", "account"), [case[1:] for case in WRONG_PLACES], ids=[c[0] for c in WRONG_PLACES])
async def test_the_audit_finds_a_cost_that_does_not_stand_where_it_belongs(
    ledger: Ledger, engine: Engine, stream: Callable[[], bytes], account: str
) -> None:
    await run(ledger, range(1))
    await append(engine, billed(), stream=stream(), account=account)
    (finding,) = (await audit(engine)).findings
    assert finding.check == "costs"
    assert "does not stand in the stream" in finding.detail


async def test_the_audit_holds_each_line_against_what_it_came_to_before(ledger: Ledger, engine: Engine) -> None:
    await run(ledger, range(1))
    stream = provider_stream(PROVIDER)
    await append(engine, billed(), stream=stream)
    await append(engine, billed(line_micros=10), stream=stream, expected=1)
    assert (await audit(engine)).findings == ()
    await append(engine, billed(), stream=stream, expected=2)
    (finding,) = (await audit(engine)).findings
    assert "makes 5 of the 10 of its line" in finding.detail
    assert len(await engine.after(0, PAGE)) == finding.position


async def test_what_is_billed_for_a_task_that_was_deleted_is_its_cost_still(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await run(ledger, range(2))
    await ledger.handle(Delete(task_id=ident(0), at_us=ended_us(1), actor="k1", account="acme"))
    assert [one.found.kind for one in await read(engine, books, statement([row(0, amount="0.5"), row(1)]))] == [
        "amount"
    ]
    await read(engine, books, statement([row(0), row(1)]))
    assert [whose_of(one).task for one in await costs(engine)] == [UUID(ident(number)) for number in (0, 1, 0)]
    assert await cost_of(engine, books) == {"acme": ("3", "0")}
    assert (await audit(engine)).findings == ()


async def test_a_started_task_that_never_ends_is_billed_all_the_same(
    ledger: Ledger, engine: Engine, books: Books
) -> None:
    await begin(ledger, 0, provider_task_id="")
    at_us = ended_us(0)
    await ledger.handle(Start(task_id=ident(0), at_us=at_us, actor="w", worker="w", provider_task_id="prov-0"))
    (told,) = await read(engine, books, statement([row(0)]))
    assert told.found.kind == "unsettled"
    assert await cost_of(engine, books) == {"acme": ("1.5", "-1.5")}

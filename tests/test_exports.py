"""Exports: whatever a report is written as, it is the same to the last micro-credit, and other programs take it."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import beancount.loader
import pyarrow.parquet as pq
import pytest
from beancount.core.data import Balance as BeanBalance
from beancount.core.data import Directive, Transaction
from hypothesis import given
from hypothesis import strategies as st

from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.times import US_PER_SECOND
from projections.books.books import Books, Clock, Totals, open_books
from projections.books.books_sql import SCHEMA_VERSION
from projections.books.movements import Purpose, Sums
from projections.places import Place
from projections.reports import beancount as bean
from projections.reports import hledger
from projections.reports.journal import Account, Balance, Entry, Heading, Journal, draw_journal, journal
from projections.reports.parquet import parquet_bytes
from projections.reports.report import By, Report, Wanted, draw
from projections.reports.rows import COLUMNS, csv_text, json_lines
from tests.accounting import beancount_says, hledger_says, needs_hledger
from tests.builders import CREATED_US
from tests.money_logs import HOUR_US, money_bills, money_log

TASKS = 120
SEEDS = range(4)
MIDDLE_US = CREATED_US + TASKS // 2 * HOUR_US
AMOUNTS = tuple(
    f"{name}_credits" for name in ("held", "released", "charged", "refunded", "net", "open", "cost", "margin")
)
DAY = 86_400 * US_PER_SECOND
PLACE = Place(7, b"\xab" * 32)
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
"""What an account may be called."""
ODD = [VISIBLE[start : start + 10] for start in range(0, len(VISIBLE), 10)]
ODD += [
    "a",
    "A",
    "-",
    "--",
    "a-b",
    "a--b",
    "N-a",
    "%41",
    "a:b",
    "a;b",
    "(a)",
    "[a]",
    "*a",
    "!a",
    "2026-01-01",
    '"',
    "\\",
]


@pytest.fixture
async def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[MemoryEngine, Books]]:
    """A random log of the seed that the test asks for, with what providers bill for it, and its books."""
    engine = MemoryEngine()
    async with Ledger(engine) as ledger:
        await money_log(ledger, seed=request.param, tasks=TASKS)
        books = await open_books(tmp_path / "books", engine)
        await money_bills(ledger, books, seed=request.param)
        yield engine, books
        await books.close()


every_seed = pytest.mark.parametrize("drawn", SEEDS, indirect=True)
one_seed = pytest.mark.parametrize("drawn", [1], indirect=True)
Drawn = tuple[MemoryEngine, Books]


def totals_of(*moved: tuple[Purpose, int, Sums]) -> Totals:
    return {(purpose, day): sums for purpose, day, sums in moved}


def held_by(account: str, micros: int = 1, *, model: str = "m", contract: str = "lemondata") -> tuple[Purpose, Sums]:
    return Purpose(account, contract, model, "p", "hold"), Sums(movements=1, held_micros=micros)


# Rows


def from_csv(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(report), newline="")))


def from_json_lines(report: Report) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=pytest.fail) for line in json_lines(report).splitlines()]


def from_parquet(report: Report) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(parquet_bytes(report))).to_pylist()
    return rows


@every_seed
@pytest.mark.parametrize("by", By)
async def test_rows_of_every_format_come_to_the_reports_total(drawn: Drawn, by: By) -> None:
    report = await draw(*drawn, Wanted(by=by))
    assert len(report.lines) > 1
    for rows in (from_csv(report), from_json_lines(report), from_parquet(report)):
        assert [row["key"] for row in rows] == [line.key for line in report.lines]
        assert sum(int(row["movements"]) for row in rows) == report.total.movements
        for name in AMOUNTS:
            assert sum(Decimal(row[name]) for row in rows) == Decimal(getattr(report.total, name)), name


@one_seed
async def test_each_row_names_what_it_rests_on(drawn: Drawn) -> None:
    report = await draw(*drawn, Wanted(until_us=MIDDLE_US))
    for rows in (from_csv(report), from_json_lines(report)):
        assert {(int(row["position"]), row["head"]) for row in rows} == {(report.position, report.head)}
        assert all(tuple(row) == COLUMNS for row in rows)
    told = pq.read_schema(io.BytesIO(parquet_bytes(report))).metadata
    assert told[b"task_ledger.position"] == str(report.position).encode()
    assert told[b"task_ledger.head"] == report.head.encode()
    assert told[b"task_ledger.until"] == (report.until or "").encode()


@one_seed
async def test_a_parquet_file_holds_no_float(drawn: Drawn) -> None:
    schema = pq.read_schema(io.BytesIO(parquet_bytes(await draw(*drawn, Wanted()))))
    types = {field.name: str(field.type) for field in schema}
    assert types == {"key": "string", "movements": "int64"} | dict.fromkeys(AMOUNTS, "decimal128(38, 6)")


async def test_no_account_is_a_formula_and_no_two_become_one(drawn_of_odd: Report) -> None:
    keys = [row["key"] for row in from_csv(drawn_of_odd)]
    assert len(set(keys)) == len(drawn_of_odd.lines)
    assert not {key[0] for key in keys} & set("=+-@")
    assert {key.removeprefix("'") for key in keys} >= {line.key for line in drawn_of_odd.lines if line.key[0] != "'"}
    assert [row["key"] for row in from_json_lines(drawn_of_odd)] == [line.key for line in drawn_of_odd.lines]


@pytest.fixture
def drawn_of_odd() -> Report:
    from projections.reports.report import report  # noqa: PLC0415 - the name is taken by what it makes

    odd = [*VISIBLE, "=1", "'=1", "''=1", "+1", "'+1"]
    return report(totals_of(*((held_by(name)[0], 0, held_by(name)[1]) for name in odd)), Wanted(), PLACE)


# Journals, read back

LEG = re.compile(r" {4}(\S+)  (-?\d+\.\d{6}) CREDIT(?: = (-?\d+\.\d{6}) CREDIT)?")
TITLE = re.compile(r"(\d{4}-\d\d-\d\d) (?:(\S+) \| (\S+)(?: (\S+))?|balances)")


def micros(text: str | Decimal | None) -> int:
    assert text is not None
    return int(Decimal(text) * 1_000_000)


def legs_in_hledger(text: str) -> Iterator[tuple[str, str, int]]:
    """The kind, the account and the amount of each leg."""
    kind = ""
    for line in text.splitlines():
        title, leg = TITLE.fullmatch(line), LEG.fullmatch(line)
        kind = title[3] or "" if title else kind
        if leg is not None and leg[3] is None:
            yield kind, leg[1], micros(leg[2])
        assert title or leg or not line or line.startswith((";", "account ", "commodity ", "decimal-mark ")), line


def legs_in_beancount(text: str) -> Iterator[tuple[str, str, int]]:
    for entry in loaded(text):
        if isinstance(entry, Transaction):
            for leg in entry.postings:
                assert leg.units is not None
                yield (entry.narration or "").split()[0], leg.account, micros(leg.units.number)


def loaded(text: str) -> list[Directive]:
    """The journal as Beancount itself understands it, which must find no fault in it."""
    entries, errors, _ = beancount.loader.load_string(text)
    assert not errors, errors[:3]
    return list(entries)


SPELLED = {"hledger": (hledger, legs_in_hledger), "beancount": (bean, legs_in_beancount)}
every_program = pytest.mark.parametrize("program", SPELLED)


@every_seed
@every_program
async def test_a_journal_comes_to_the_reports_total(drawn: Drawn, program: str) -> None:
    module, legs_in = SPELLED[program]
    report = await draw(*drawn, Wanted())
    by_kind, by_root = Counter[str](), Counter[str]()
    for kind, account, amount in legs_in(module.journal_text(await draw_journal(*drawn, Wanted()))):
        by_kind[kind] += max(amount, 0)
        by_root[account.lower().rpartition(":")[0].partition(":n-")[0]] += amount
    for kind in ("held", "released", "charged", "refunded"):
        assert by_kind[kind] == micros(getattr(report.total, f"{kind}_credits")), kind
    assert by_root["liabilities:held"] == -micros(report.total.open_credits)
    revenue = sum(amount for root, amount in by_root.items() if root.startswith("income:usage"))
    assert revenue == -micros(report.total.net_credits)
    cost = sum(amount for root, amount in by_root.items() if root.startswith("expenses:providers"))
    assert cost == -by_root["liabilities:providers"] == micros(report.total.cost_credits) > 0
    assert by_kind["provider-billed"] - by_kind["provider-credited"] == cost
    assert by_kind["provider-credited"] > 0
    assert sum(by_root.values()) == 0


@every_seed
@every_program
async def test_a_journals_accounts_come_to_the_reports_lines(drawn: Drawn, program: str) -> None:
    module, legs_in = SPELLED[program]
    held: Counter[str] = Counter()
    for _, account, amount in legs_in(module.journal_text(await draw_journal(*drawn, Wanted()))):
        held[account] += amount
    for line in (await draw(*drawn, Wanted(by=By.ACCOUNT))).lines:
        assert held[module.name_of(Account(Heading.HELD, (line.key,)))] == -micros(line.open_credits)
    for line in (await draw(*drawn, Wanted(by=By.MODEL))).lines:
        contract, _, model = line.key.partition("/")
        assert held[module.name_of(Account(Heading.REVENUE, (contract, model)))] == -micros(line.net_credits)
    for line in (await draw(*drawn, Wanted(by=By.PROVIDER))).lines:
        assert held[module.name_of(Account(Heading.PAYABLE, (line.key,)))] == -micros(line.cost_credits)


def entries_of(found: Journal) -> list[Entry]:
    return [item for item in found.items if isinstance(item, Entry)]


def closing(found: Journal) -> dict[Account, int]:
    last = found.items[-1]
    assert isinstance(last, Balance)
    return {leg.account: leg.micros for leg in last.legs if leg.micros}


@every_seed
async def test_every_entry_comes_to_nothing_and_is_in_the_order_of_days(drawn: Drawn) -> None:
    found = await draw_journal(*drawn, Wanted())
    assert all(sum(leg.micros for leg in entry.legs) == 0 for entry in entries_of(found))
    days = [item.day for item in found.items]
    assert days == sorted(days)
    subjects = [(entry.day, entry.payee, entry.narration) for entry in entries_of(found)]
    assert len(set(subjects)) == len(subjects), "one entry a day, customer, contract, model and kind"


@every_seed
@pytest.mark.parametrize("clock", Clock)
async def test_a_journal_of_a_part_opens_with_what_there_was_and_closes_with_what_there_is(
    drawn: Drawn, clock: Clock
) -> None:
    first = await draw_journal(*drawn, Wanted(clock=clock, until_us=MIDDLE_US))
    second = await draw_journal(*drawn, Wanted(clock=clock, since_us=MIDDLE_US))
    whole = await draw_journal(*drawn, Wanted(clock=clock))
    of_period = {Heading.REVENUE, Heading.COST}
    earned_before = sum(held for one, held in closing(first).items() if one.heading in of_period)
    own = {one: held for one, held in closing(first).items() if one.heading not in of_period}
    opening = entries_of(second)[0]
    assert {leg.account: leg.micros for leg in opening.legs} == own | {Account(Heading.OPENING): earned_before}
    for heading in (Heading.CUSTOMERS, Heading.HELD, Heading.PAYABLE):
        assert {one: held for one, held in closing(second).items() if one.heading is heading} == {
            one: held for one, held in closing(whole).items() if one.heading is heading
        }
    report = await draw(*drawn, Wanted(clock=clock, since_us=MIDDLE_US))
    earned = sum(held for one, held in closing(second).items() if one.heading is Heading.REVENUE)
    assert earned == -micros(report.total.net_credits), "revenue is the period's"
    spent = sum(held for one, held in closing(second).items() if one.heading is Heading.COST)
    assert spent == micros(report.total.cost_credits), "and so is cost"


async def test_what_revenue_has_come_to_is_said_after_each_month_but_the_last() -> None:
    purpose, _ = held_by("acme")
    days = {31: 5, 58: 7, 59: 11, 400: 13}  # 1 February and the last of it, 1 March 1970, and a year later
    moved = [(purpose, day, Sums(movements=1, charged_micros=amount)) for day, amount in days.items()]
    found = journal(totals_of(*moved), {}, Wanted(), PLACE)
    balances = [item for item in found.items if isinstance(item, Balance)]
    account = Account(Heading.REVENUE, ("lemondata", "m"))
    assert [(one.day, dict(one.legs)[account]) for one in balances] == [(58, -12), (89, -23), (400, -36)]
    assert all(set(dict(one.legs)) == {account} for one in balances[:-1])
    assert set(dict(balances[-1].legs)) > {account}


def test_charges_out_of_holds_and_out_of_pocket_are_one_entry() -> None:
    both = [("hold", Sums(movements=1, charged_micros=2, captured_micros=2)), ("prepaid", Sums(charged_micros=3))]
    moved = [(Purpose("acme", "c", "m", "p", school), 1, sums) for school, sums in both]
    (entry,) = entries_of(journal(totals_of(*moved), {}, Wanted(), PLACE))
    assert {leg.account.heading: leg.micros for leg in entry.legs} == {
        Heading.CUSTOMERS: 3,
        Heading.HELD: 2,
        Heading.REVENUE: -5,
    }


@every_program
def test_a_journal_says_what_it_rests_on(program: str) -> None:
    wanted = Wanted(since_us=DAY, until_us=2 * DAY, clock=Clock.RECORDED)
    first, second = SPELLED[program][0].journal_text(journal({}, {}, wanted, PLACE)).splitlines()[:2]
    assert first == f"; Task Ledger, books {SCHEMA_VERSION}, as known at position 7, head {'ab' * 32}"
    assert second == "; from 1970-01-02T00:00:00Z until 1970-01-03T00:00:00Z, by recorded time"


# Names


@given(st.text(VISIBLE, min_size=1, max_size=12), st.text(VISIBLE, min_size=1, max_size=12))
def test_no_two_names_become_one_and_each_is_one_part_of_an_account(one: str, other: str) -> None:
    for module, safe in ((hledger, r"[A-Za-z0-9._@+/%-]+"), (bean, r"[A-Z0-9][A-Za-z0-9-]*")):
        assert (module.escape(one) == module.escape(other)) == (one == other)
        assert re.fullmatch(safe, module.escape(one))
        both = [module.name_of(Account(Heading.REVENUE, names)) for names in ((one, other), (other, one))]
        assert (both[0] == both[1]) == (one == other)


ESCAPED = [
    ("acme", "acme", "N-acme"),
    ("acme-corp", "acme-corp", "N-acme--corp"),
    ("ops@acme.test", "ops@acme.test", "N-ops-40acme-2etest"),
    ("a:b;c", "a%3Ab%3Bc", "N-a-3ab-3bc"),
    ("100%", "100%25", "N-100-25"),
    ("", "%", "N-"),
]


@pytest.mark.parametrize(("name", "in_hledger", "in_beancount"), ESCAPED)
def test_a_name_is_spelled_so(name: str, in_hledger: str, in_beancount: str) -> None:
    assert (hledger.escape(name), bean.escape(name)) == (in_hledger, in_beancount)


def odd_journal() -> Journal:
    moved = [(*held_by(name, number + 1, model=name), number) for number, name in enumerate(ODD)]
    return journal(totals_of(*((purpose, day, sums) for purpose, sums, day in moved)), {}, Wanted(), PLACE)


def costs_of_no_task() -> Journal:
    """A task's cost, and that of lines which name a contract for their model, or no model at all."""
    whose = [("acme", "bytespike", "wan"), ("", "", "bytespike"), ("", "", "")]
    moved = [
        (Purpose(*names, "p", ""), 0, Sums(movements=1, billed_micros=1 + number)) for number, names in enumerate(whose)
    ]
    return journal(totals_of(*moved), {}, Wanted(), PLACE)


# The programs themselves


def changed(text: str) -> str:
    """*text*, with a micro-credit more in both legs of its first entry, which then still comes to nothing."""
    leg = re.compile(r"^( +\S+  -?\d+\.\d{5})(\d) CREDIT$", re.MULTILINE)
    return leg.sub(lambda found: f"{found[1]}{(int(found[2]) + 1) % 10} CREDIT", text, count=2)


async def journals(drawn: Drawn) -> dict[str, Journal]:
    until_us = MIDDLE_US + 30 * 24 * HOUR_US
    return {
        "the whole log": await draw_journal(*drawn, Wanted()),
        "a month of it": await draw_journal(*drawn, Wanted(since_us=MIDDLE_US, until_us=until_us)),
        "nothing": await draw_journal(*drawn, Wanted(at="0")),
        "odd names": odd_journal(),
        "costs of no task": costs_of_no_task(),
    }


@one_seed
async def test_beancount_finds_no_fault(drawn: Drawn, tmp_path: Path) -> None:
    for name, found in (await journals(drawn)).items():
        assert beancount_says(bean.journal_text(found), tmp_path) == (0, ""), name


@one_seed
async def test_beancount_holds_every_balance_that_the_books_hold(drawn: Drawn) -> None:
    found = await draw_journal(*drawn, Wanted(since_us=MIDDLE_US))
    asserted = [entry for entry in loaded(bean.journal_text(found)) if isinstance(entry, BeanBalance)]
    assert {one.account: micros(one.amount.number) for one in asserted if micros(one.amount.number)} == {
        bean.name_of(account): held for account, held in closing(found).items()
    }


@one_seed
async def test_beancount_notices_a_micro_credit(drawn: Drawn, tmp_path: Path) -> None:
    text = bean.journal_text(await draw_journal(*drawn, Wanted()))
    assert changed(text) != text
    code, said = beancount_says(changed(text), tmp_path)
    assert code == 1
    assert "Balance failed" in said


@needs_hledger
@one_seed
async def test_hledger_finds_no_fault(drawn: Drawn, tmp_path: Path) -> None:
    for name, found in (await journals(drawn)).items():
        text = hledger.journal_text(found)
        assert hledger_says(text, tmp_path, "check", "--strict") == (0, ""), name
        assert hledger_says(text, tmp_path, "check", "ordereddates") == (0, ""), name


@needs_hledger
@one_seed
async def test_hledger_adds_up_to_the_same_balances(drawn: Drawn, tmp_path: Path) -> None:
    for found in (await journals(drawn)).values():
        code, said = hledger_says(hledger.journal_text(found), tmp_path, "balance", "-O", "csv", "-N")
        rows = list(csv.reader(io.StringIO(said)))[1:]
        assert code == 0
        assert {account: micros(text.removesuffix(" CREDIT")) for account, text in rows} == (
            {hledger.name_of(account): held for account, held in closing(found).items()} if found.items else {}
        )


@needs_hledger
@one_seed
async def test_hledger_notices_a_micro_credit(drawn: Drawn, tmp_path: Path) -> None:
    text = hledger.journal_text(await draw_journal(*drawn, Wanted()))
    code, said = hledger_says(changed(text), tmp_path, "check")
    assert code == 1
    assert "assertion" in said

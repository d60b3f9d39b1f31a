"""Statements as they are read: good lines, malformed ones with their numbers, and files that are none."""

import json
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from api import settings
from api.contracts import parse_any
from ledger.events import BreakKind
from ledger.times import parse_rfc3339
from projections.reconciliation.statement_format import Columns, StatementFormat, Times
from projections.reconciliation.statement_records import LINE_MAX_BYTES, NotAStatementError, Syntax
from projections.reconciliation.statements import MALFORMED_MAX, Statement, micros_in, read_statement
from tests.billing import COLUMNS, row, statement
from tests.builders import ident
from tests.processes import ROOT

HEAD = b"line_id,provider_task_id,amount,currency\n"
OURS = StatementFormat()


def read(data: bytes, form: StatementFormat = OURS, syntax: Syntax | None = None) -> Statement:
    return read_statement(data, form, task_in=parse_any, syntax=syntax)


def json_lines(*rows: object) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


# Amounts


def test_what_the_lines_lack_of_their_amounts_is_added_up() -> None:
    thirds = StatementFormat(credits_per_unit="1/3")
    rows = [row(number, amount=amount) for number, amount in enumerate(["1", "1", "3", "0.5", "-2", "x"])]
    told = read(statement(rows), thirds)
    assert [(line.amount_micros, line.rounded_from) for line in told.lines] == [
        (333_333, "1"),
        (333_333, "1"),
        (1_000_000, ""),
        (166_667, "0.5"),
        (-666_667, "-2"),
    ]
    assert told.remainder == Fraction(1, 3) + Fraction(1, 3) - Fraction(1, 3) + Fraction(1, 3)
    assert told.billed_micros + told.remainder == Fraction(7, 6) * 1_000_000
    late = read(statement([row(0, amount="1"), row(1, amount="1", billed_at="soon")]), thirds)
    assert (late.malformed_count, late.remainder) == (1, Fraction(1, 3)), "a malformed line leaves nothing"


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("1", 1_000_000),
        ("1.5", 1_500_000),
        ("1.50", 1_500_000),
        ("007", 7_000_000),
        ("0.000001", 1),
        ("-0.000001", -1),
        ("-1.5", -1_500_000),
        ("1.00000000000000000000", 1_000_000),
        ("999999999999.999999", 999_999_999_999_999_999),
        ("1000000000000", 10**18),
    ],
)
def test_an_amount_is_taken_exactly(text: str, micros: int) -> None:
    assert micros_in(text, Fraction(1)) == (micros, 0, micros_in(text, Fraction(1)).divisor)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1e3",
        "1E-5",
        "1.5e0",
        "1,000",
        "1,5",
        "1 000",
        "1_000",
        "1'000",
        "+1",
        "--1",
        ".5",
        "5.",
        "1.2.3",
        "0x10",
        "NaN",
        "inf",
        "\u0661",
        "\uff11",
        "$1",
        "1 USD",
        "1000000000000.000001",
        "12345678901234567890",
        "9" * 39,
        "9" * 100_000,
        "0." + "1" * 39,
    ],
)
def test_what_can_be_read_in_two_ways_or_is_too_large_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        micros_in(text, Fraction(1))


@pytest.mark.parametrize(
    ("text", "rate", "micros"),
    [
        ("2", "0.5", 1_000_000),
        ("0.0000012", "1000000", 1_200_000),
        ("1", "1/3", 333_333),
        ("2", "1/3", 666_667),
        ("0.0000005", "1", 1),
        ("-0.0000005", "1", -1),
        ("0.0000004", "1", 0),
        ("1.5", "0.1/0.3", 500_000),
        ("12345678901234567890", "1/1000000000000", 12_345_678_901_235),
    ],
)
def test_a_rate_makes_credits_of_units_to_the_nearest_micro_credit(text: str, rate: str, micros: int) -> None:
    assert micros_in(text, StatementFormat(credits_per_unit=rate).terms().rate).whole == micros


# Lines


def test_a_csv_line_is_read_into_its_columns() -> None:
    (line,) = read(statement([row(3)])).lines
    assert (line.number, line.line_id, line.provider_task_id, line.task) == (2, "L3", "prov-3", ident(3))
    assert (line.amount_micros, line.currency, line.status) == (1_500_000, "USD", "succeeded")
    assert line.finished_at_us == parse_rfc3339(row(3)["finished_at"])


def test_json_lines_say_the_same() -> None:
    assert read(json_lines(row(3), row(4))).lines == [
        msgspec.structs.replace(line, number=line.number - 1) for line in read(statement([row(3), row(4)])).lines
    ]


@pytest.mark.parametrize("digits", ["0.1", "1.10", "123456789012.123456", "0.30000000000000004"])
def test_a_json_number_is_read_by_its_digits_and_never_as_a_float(digits: str) -> None:
    (line,) = read(b'{"provider_task_id":"p","amount":%s}\n' % digits.encode()).lines
    assert line.amount_micros == micros_in(digits, Fraction(1)).whole


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"a,p,1.5,USD\n",
        b"\xef\xbb\xbf" + HEAD + b"a,p,1.5,USD\n",
        HEAD.replace(b"\n", b"\r\n") + b"a,p,1.5,USD\r\n",
        HEAD + b"a,p,1.5,USD",
        HEAD + b"\n\n  \na,p,1.5,USD\n\n",
        HEAD + b'"a","p","1.5","USD"\n',
        HEAD + b" a , p , 1.5 , USD \n",
        b"currency,amount,something else,provider_task_id,line_id\nUSD,1.5,x,p,a\n",
    ],
)
def test_what_spreadsheets_do_to_a_file_changes_nothing(data: bytes) -> None:
    (line,) = read(data).lines
    assert (line.line_id, line.provider_task_id, line.amount_micros, line.currency) == ("a", "p", 1_500_000, "USD")


def test_quoted_text_holds_delimiters_and_quotes() -> None:
    (line,) = read(HEAD + b'"a,""b""",p,1,USD\n').lines
    assert line.line_id == 'a,"b"'


MALFORMED = {
    "too few values": (b"a,p,1", "3 values in 4 columns"),
    "too many values": (b"a,p,1,USD,more", "5 values in 4 columns"),
    "a separator of thousands": (b"a,p,1,000,USD", "5 values"),
    "the same in quotes": (b'a,p,"1,000",USD', "no plain decimal"),
    "an exponent": (b"a,p,1e3,USD", "no plain decimal"),
    "no amount": (b"a,p,,USD", "no plain decimal"),
    "twenty digits": (b"a,p,12345678901234567890,USD", "too large"),
    "a stray quote": (b'a,"p,1,USD', "unexpected end"),
    "a quote inside": (b'a,"p"x,1,USD', "expected after"),
    "no UTF-8": (b"a,\xff\xfe,1,USD", "not UTF-8"),
    "a control character": (b"a,p\x07,1,USD", "not printable"),
    "an endless id": (b"a," + b"p" * 300 + b",1,USD", "longer than 256"),
    "a line of a megabyte": (b"a," + b"p" * 2**20 + b",1,USD", f"longer than {LINE_MAX_BYTES}"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_told_with_its_number_and_stops_nothing_else(case: str) -> None:
    bad, reason = MALFORMED[case]
    found = read(HEAD + b"first,p1,1,USD\n" + bad + b"\nlast,p2,2,USD\n")
    assert [line.line_id for line in found.lines] == ["first", "last"]
    ((number, told),) = found.malformed
    assert number == 3
    assert reason in told
    assert len(told) < 300


@pytest.mark.parametrize(
    ("column", "text"),
    [(name, text) for name in ("started_at", "finished_at", "billed_at") for text in ("yesterday", "1767323045", "99")],
)
def test_a_time_that_is_none_makes_its_line_malformed(column: str, text: str) -> None:
    found = read(statement([row(1, **{column: text}), row(2)]))
    assert [line.line_id for line in found.lines] == ["L2"]
    assert column in found.malformed[0].reason


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "[1]",
        '{"provider_task_id":"p","amount":true}',
        '{"provider_task_id":"p","amount":{"value":1}}',
        '{"provider_task_id":"p","amount":1e3}',
        '{"provider_task_id":["p"],"amount":1}',
        '{"provider_task_id":"p"}',
        '{"provider_task_id":"p","amount":null}',
        '{"provider_task_id":"p","amount":"1.5"',
        pytest.param('{"provider_task_id":"p","amount":"1.5","more":' + "[" * 30_000 + "]" * 30_000 + "}", id="deep"),
        *(  # as deep as one reader goes may be too deep for the next
            pytest.param(r'{"provider_task_id":"\"","more":' + "[" * deep + "]" * deep + "}", id=f"{deep} deep")
            for deep in range(800, 1001, 20)
        ),
    ],
)
def test_a_malformed_line_of_json_stops_nothing_else(bad: str) -> None:
    found = read(json_lines(row(1)) + bad.encode() + b"\n" + json_lines(row(2)))
    assert [line.line_id for line in found.lines] == ["L1", "L2"]
    assert [one.number for one in found.malformed] == [2]


@pytest.mark.parametrize(
    "bad",
    [
        '{"provider_task_id":"p","amount":1,"amount":2}',
        '{"provider_task_id":"p", "amount" : "1" , "amount":"1"}',
        '{"provider_task_id":"p","provider_task_id":"q","amount":1}',
        '{"provider_task_id":"p","amount":1,"more":{"a":"b"},"more":null}',
        r'{"provider_task_id":"p","amount":1,"\u0061mount":2}',
        r'{"provider_task_id":"\"","amount":1,"amount":2}',
    ],
)
def test_a_line_of_json_that_names_a_member_twice_is_malformed_for_its_amount_is_not_guessed(bad: str) -> None:
    found = read(f"{bad}\n".encode() + json_lines(row(2)))
    assert [line.line_id for line in found.lines] == ["L2"]
    assert [one.number for one in found.malformed] == [1]


@pytest.mark.parametrize(
    "line",
    [
        r'{"provider_task_id":"\"amount\":","amount":1,"\\":"\u0061"}',
        '{"provider_task_id":",: {","amount":1,"more":{"amount":"2","a":["provider_task_id"]}}',
        '{"provider_task_id":"ä x","ö":"","":"","amount":1.0}',
    ],
)
def test_a_line_of_json_that_names_each_member_once_is_read_whatever_stands_in_its_texts(line: str) -> None:
    (found,) = read(line.encode()).lines
    assert (found.provider_task_id, found.amount_micros) == (json.loads(line)["provider_task_id"], 1_000_000)


def test_malformed_lines_are_counted_without_end_and_told_up_to_a_bound() -> None:
    found = read(HEAD + b"x\n" * (MALFORMED_MAX + 5))
    assert (len(found.malformed), found.malformed_count) == (MALFORMED_MAX, MALFORMED_MAX + 5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n\r\n  \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"SQLite format 3\x00" + bytes(100), "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        (b"\xff\xfe\xff\n", "not UTF-8"),
        (b"name,age\nx,3\n", "no column for amount"),
        (b"amount,currency\n1,USD\n", "provider_task_id or our_task_id"),
        (b"amount;provider_task_id\n1;p\n", "no column for amount"),
        (b"amount,amount,provider_task_id\n1,1,p\n", "same name"),
        (b'amount,"provider_task_id\n1,p\n', "does not name columns"),
        (b"\xef\xbb\xbf\xef\xbb\xbfamount,provider_task_id\n1,p\n", "byte order mark"),
        (b'our_task_id,amount,"\xef\xbb\xbfprovider_task_id"\nx,1,p\n', "byte order mark"),
        (b"a" * 2**20, "longer than"),
        (b'{"amount": 1}\n', "provider_task_id or our_task_id"),
        (b'{"provider_task_id": "p"}\n', "no column for amount"),
        (b"{not json\n", "no object of JSON"),
    ],
)
def test_a_file_that_is_no_statement_is_refused_whole(data: bytes, reason: str) -> None:
    with pytest.raises(NotAStatementError, match=reason):
        read(data)


def test_a_statement_without_lines_is_one() -> None:
    assert read(HEAD).lines == []


def test_equal_files_have_equal_digests_and_others_have_not() -> None:
    assert read(HEAD).digest == read(HEAD).digest != read(HEAD + b"a,p,1,USD\n").digest


def test_without_an_agreed_currency_it_is_the_one_of_most_lines() -> None:
    rows = [row(1, currency="EUR"), row(2), row(3), row(4, currency="")]
    assert read(statement(rows)).currency == "USD"
    assert read(statement(rows), StatementFormat(currency="EUR")).currency == "EUR"


# Formats


def test_columns_may_have_other_names_and_amounts_and_times_other_forms() -> None:
    form = StatementFormat(
        columns=Columns(provider_task_id="job", amount="cost", finished_at="end"),
        delimiter=";",
        times=Times.MILLISECONDS,
        credits_per_unit="10",
    )
    (line,) = read(b"job;cost;end\np;0.15;1767323045123\n", form).lines
    assert (line.provider_task_id, line.amount_micros, line.finished_at_us) == ("p", 1_500_000, 1_767_323_045_123_000)


@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in {"amount", "provider_task_id"}])
def test_a_column_that_is_agreed_must_be_there(column: str) -> None:
    form = StatementFormat(columns=msgspec.convert({column: "theirs"}, Columns))
    with pytest.raises(NotAStatementError, match=f"no column for {column}"):
        read(b"amount,provider_task_id\n1,p\n", form)


TOML = """
[statements.volcengine]
currency = "CNY"
credits_per_unit = "1/7"
tolerance_credits = "0.01"
tolerance_percent = "0.5"
period = "day"
match_window_seconds = 600
owner = "finance"
columns = { amount = "cost", our_task_id = "" }
statuses = { done = "completed" }
"""


def test_a_format_is_read_with_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text(TOML)
    form = settings.read(path).statements["volcengine"]
    assert (form.currency, form.owner, form.period, form.columns.amount) == ("CNY", "finance", "day", "cost")
    assert form.terms() == (Fraction(1, 7), 10_000, Fraction(5, 1000), 600_000_000)
    assert form.outcome("Done") == "completed"


@pytest.mark.parametrize(
    "wrong",
    [
        'credits_per_unit = "0"',
        'credits_per_unit = "1/0"',
        'credits_per_unit = "1e3"',
        'credits_per_unit = "-1"',
        "credits_per_unit = 0.5",
        'tolerance_credits = "-1"',
        'tolerance_percent = "ten"',
        "match_window_seconds = -1",
        'period = "fortnight"',
        'times = "sundial"',
        'delimiter = ""',
        'statuses = { done = "finito" }',
        'columns = { price = "cost" }',
        "unknown = 1",
    ],
)
def test_a_format_that_makes_no_sense_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text(f"[statements.volcengine]\n{wrong}\n")
    with pytest.raises(ValueError, match=r"ledger\.toml"):
        settings.read(path)


# The README

README = (ROOT / "README.md").read_text()


def test_the_format_in_the_readme_is_one_and_names_every_column() -> None:
    found = re.search(r"```toml\n(\[statements.*?)```", README, re.DOTALL)
    assert found is not None
    form = msgspec.convert(tomllib.loads(found[1]), settings.Settings).statements["volcengine"]
    assert all(getattr(form.columns, name) for name in COLUMNS)
    told = set(tomllib.loads(found[1])["statements"]["volcengine"])
    assert told == set(StatementFormat.__struct_fields__)


def test_every_kind_of_break_is_in_the_readme() -> None:
    section = README.partition("## Reconciliation")[2].partition("\n## ")[0]
    kinds = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert kinds == list(BreakKind)

"""``task-ledger report``: what it prints in each format, beside a running service and after one was killed."""

import asyncio
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from ledger.times import rfc3339
from projections.books.books_sql import SCHEMA_VERSION
from scripts import progress
from scripts.cli import app, run
from scripts.report import Format
from tests import stored
from tests.accounting import beancount_says
from tests.builders import ACCOUNT, CREATED_US
from tests.money_logs import HOUR_US, money_log
from tests.processes import ROOT, Server, keys_in
from tests.wire import request

TASKS = 40
MIDDLE = rfc3339(CREATED_US + TASKS // 2 * HOUR_US)

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"

    async def fill() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await money_log(ledger, seed=1, tasks=TASKS)

    asyncio.run(fill())
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A filled ledger, which the environment names."""
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{copy}")
    return copy


@pytest.fixture
def report(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The verb, typed in: its exit code, and what it printed."""
    assert path.exists()

    def typed(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(app, ["report", *arguments])
        return code, *capsys.readouterr()

    return typed


def told(ended: tuple[int, str, str]) -> str:
    """What was printed by a command that went well."""
    code, out, err = ended
    assert (code, err) == (0, "")
    return out


def as_json(ended: tuple[int, str, str]) -> Any:  # noqa: ANN401 - JSON
    return json.loads(told(ended))


# Formats


def test_a_table_has_a_line_for_each_account_and_the_total_and_says_what_it_rests_on(report: Shell) -> None:
    drawn = as_json(report("--json"))
    head, *lines, _, period, ground = told(report()).splitlines()
    names = ["held", "released", "charged", "refunded", "net", "open", "cost", "margin"]
    assert head.split() == ["account", "movements", *names]
    for line, shown in zip([*drawn["lines"], drawn["total"]], lines, strict=True):
        key, movements, *amounts = shown.split()
        assert (key, int(movements)) == (line["key"], line["movements"])
        assert all(len(text.partition(".")[2]) == 6 for text in amounts)
        assert [Decimal(text) for text in amounts] == [
            Decimal(line[name]) for name in line if name.endswith("_credits")
        ]
    assert len({len(line.rstrip()) for line in lines}) == 1, "points stand under points"
    assert period == "from the beginning until the end, by effective time"
    assert ground == f"as known at position {drawn['position']}, head {drawn['head'][:12]}; books {SCHEMA_VERSION}"


@pytest.mark.parametrize("by", ["account", "model", "contract", "provider", "day"])
def test_every_way_to_draw_it_has_the_same_total(report: Shell, by: str) -> None:
    drawn = as_json(report("--by", by, "--json"))
    assert (drawn["by"], drawn["total"]) == (by, as_json(report("--json"))["total"])


def test_json_is_a_format_too(report: Shell) -> None:
    assert told(report("--format", "json")) == told(report("--json")) == told(report("--json", "--format", "json"))


def test_rows_are_printed_as_csv_and_as_json_lines(report: Shell) -> None:
    drawn = as_json(report("--json"))
    head, *rows = told(report("--format", "csv")).splitlines()
    lines = [json.loads(line) for line in told(report("--format", "jsonl")).splitlines()]
    assert [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows] == [
        {name: str(value) for name, value in line.items()} for line in lines
    ]
    assert [{name: line[name] for name in drawn["lines"][0]} for line in lines] == drawn["lines"]


def test_parquet_goes_to_a_file_or_a_pipe(report: Shell, path: Path) -> None:
    file = path.with_name("report.parquet")
    assert told(report("--format", "parquet", "--output", str(file))) == ""
    piped = asyncio.run(in_a_process("--format", "parquet"))
    assert pq.read_table(file) == pq.read_table(io.BytesIO(piped))
    assert [row["key"] for row in pq.read_table(file).to_pylist()] == ["acme", "globex", "initech"]


def test_a_journal_is_one_that_the_program_takes(report: Shell, path: Path) -> None:
    text = told(report("--format", "beancount", "--since", MIDDLE))
    assert beancount_says(text, path.parent) == (0, "")
    assert told(report("--format", "hledger")).count("\n    liabilities:") > TASKS


@pytest.mark.parametrize("program", ["hledger", "beancount"])
def test_a_journal_by_account_is_the_journal(report: Shell, program: str) -> None:
    told = report("--by", "account", "--format", program)
    assert told == report("--format", program)
    assert told[0] == 0


@pytest.mark.parametrize("kind", sorted(set(Format) - {Format.PARQUET}))
def test_what_is_printed_can_be_written_to_a_file(report: Shell, path: Path, kind: Format) -> None:
    file = path.with_name("report")
    file.write_text("older, and longer than what comes now" * 10_000)
    assert told(report("--format", kind, "--output", str(file))) == ""
    assert file.read_bytes().decode() == told(report("--format", kind))


async def in_a_process(*arguments: str, module: str = "scripts.report") -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")
    return out


def test_a_bar_shows_how_far_it_is_and_goes_away(report: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert report("--json")[0] == 0
    assert "report" in terminal.getvalue()


# Periods and places


def test_a_date_alone_is_its_midnight(report: Shell) -> None:
    days = ["--since", "2026-01-03", "--until", "2026-01-04", "--at", "2026-02-01"]
    times = [text if text.startswith("--") else f"{text}T00:00:00Z" for text in days]
    drawn = as_json(report(*days, "--json"))
    assert drawn == as_json(report(*times, "--json"))
    assert (drawn["since"], drawn["until"]) == ("2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z")
    assert 0 < drawn["total"]["movements"] < as_json(report("--json"))["total"]["movements"]


def test_the_log_as_it_was_is_reported_as_it_was(report: Shell) -> None:
    then = as_json(report("--at", "20", "--json"))
    assert (then["position"], then["total"]["movements"] < 20) == (20, True)
    assert as_json(report("--at", "20", "--clock", "recorded", "--json"))["total"] == then["total"]
    empty = as_json(report("--at", "0", "--json"))
    assert (empty["position"], empty["head"], empty["lines"]) == (0, "", [])
    assert "head none" in told(report("--at", "0"))


# Where it works


def test_the_books_are_kept_beside_the_ledger_whatever_it_is_called_by(report: Shell, path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    link = path.parent / "elsewhere" / "link.db"
    link.symlink_to(path)
    assert told(report("--store", f"sqlite:{link}")) == told(report())
    assert path.with_name("ledger.db.books").is_file()
    assert [file.name for file in link.parent.iterdir()] == ["link.db"]


def test_books_that_were_thrown_away_are_built_anew(report: Shell, path: Path) -> None:
    before = told(report("--json"))
    path.with_name("ledger.db.books").unlink()
    assert told(report("--json")) == before


async def test_it_says_what_the_service_says_beside_it_and_after_it_was_killed(path: Path) -> None:
    (operator,) = await keys_in(path, ("ledger", Role.OPERATOR))
    async with stored.reading(path) as engine:
        end = (await engine.head()).position  # the service sees to what is overdue as it starts
    at = ("--by", "model", "--json", "--at", str(end))

    async def summary() -> bytes:
        headers = [("Authorization", f"Bearer {operator}")]
        async with server.wire() as wire:
            reply = await wire.send(request("GET", f"/ledger/v1/billing/summary?by=model&at={end}", headers=headers))
        assert reply.status == 200, reply
        return reply.body

    async with Server(path) as server:
        for _ in range(2):
            await server.start()
            service, beside = await asyncio.gather(summary(), in_a_process(*at))
            assert beside == service + b"\n"
            await server.kill()
            assert await in_a_process(*at) == beside
        await server.start()
        assert await summary() == service
        assert await server.stop() == 0
        assert "books.failed" not in server.logged()
    assert ACCOUNT.encode() not in service


# What goes wrong

WRONG = [
    (["--by", "week"], "'--by': 'week' is not one of"),
    (["--format", "xlsx"], "'xlsx' is not one of"),
    (["--clock", "wall"], "'wall' is not one of"),
    (["--since", "yesterday"], "since must be a date, or an RFC 3339 time"),
    (["--since", "2026-13-01"], "since must be a date"),
    (["--until", "1767323045"], "until must be a date"),
    (["--since", "2026-02-01", "--until", "2026-01-01"], "until must be later than since"),
    (["--at", "soon"], "'soon' is neither a position nor a time"),
    (["--at", "999999"], "the log ends at position"),
    (["--json", "--format", "csv"], "--json is --format json"),
    (["--format", "hledger", "--by", "day"], "a journal has its accounts"),
    (["--format", "csv", "--output", "/nowhere/report.csv"], "cannot write /nowhere/report.csv: No such file"),
    (["--output", "/"], "cannot write /: Is a directory"),
    (["everything"], "unexpected extra argument"),
]


@pytest.mark.parametrize(("arguments", "fragment"), WRONG)
def test_wrong_use_is_one_line_and_ends_in_two(report: Shell, arguments: list[str], fragment: str) -> None:
    code, out, err = report(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert fragment in err


def test_without_pyarrow_it_says_what_to_install(report: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "projections.reports.parquet", raising=False)
    code, out, err = report("--format", "parquet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Parquet needs pyarrow: pip install pyarrow" in err


def test_parquet_is_not_printed_to_a_terminal(report: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, err = report("--format", "parquet")
    assert (code, out) == (2, "")
    assert "'--output'" in err


def test_a_ledger_that_is_missing_gets_no_books(report: Shell, path: Path) -> None:
    code, out, err = report("--store", f"sqlite:{path.with_name('missing.db')}")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert [file.name for file in path.parent.iterdir() if "missing" in file.name] == []


def a_folder(books: Path) -> None:
    books.mkdir()


def a_letter(books: Path) -> None:
    books.write_text("Dear books,\n" * 1000)


def another_programs(books: Path) -> None:
    with closing(sqlite3.connect(books)) as db:
        db.execute("CREATE TABLE t (x)")


PLACES = [
    (a_folder, "the books have no place beside the ledger"),
    (a_letter, "does not hold books"),
    (another_programs, "does not hold books: move it away"),
]


@pytest.mark.parametrize(("put", "fragment"), PLACES)
def test_books_that_cannot_be_kept_are_one_line_and_end_in_three(
    report: Shell, path: Path, put: Callable[[Path], None], fragment: str
) -> None:
    put(path.with_name("ledger.db.books"))
    code, out, err = report()
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert fragment in err


def test_a_folder_that_cannot_be_written_is_one_line_and_ends_in_three(report: Shell, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # reading it must not need the folder either
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write anywhere")
        code, out, err = report()
    finally:
        path.parent.chmod(0o700)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "the books have no place beside the ledger" in err
    assert "Permission denied" in err


def test_an_event_that_cannot_be_read_is_one_line_and_ends_in_three(report: Shell, path: Path) -> None:
    for damage in ("data = '{}'", "data = CAST(x'ff' AS TEXT)", """data = '{"type":"started","at_us":1}'"""):
        with closing(sqlite3.connect(path)) as db:
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                db.execute(f"DROP TRIGGER {name}")
            db.execute(f"UPDATE events SET {damage} WHERE position = 1")  # noqa: S608
            db.commit()
        code, out, err = report()
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "position 1" in err or "cannot be read" in err or "could not be read" in err

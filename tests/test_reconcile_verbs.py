"""``task-ledger reconcile`` and ``breaks``: what they print and leave behind, also beside a running service."""

import asyncio
import hashlib
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NamedTuple

import pytest

from ledger.ids import Spelling
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.cli import app, run
from tests.billing import PROVIDER, begin, row, statement
from tests.billing import run as run_tasks
from tests.builders import create, ident
from tests.processes import ROOT, Server, keys_in
from tests.simulated import planted_in
from tests.wire import request

TASKS = 4
UUID = Spelling.UUID.spell


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ended:
        self._capsys.readouterr()
        code = run(app, [str(one) for one in arguments])
        return Ended(code, *self._capsys.readouterr())

    def positions(self) -> int:
        """How many events the log has."""
        return len(self("tail", "--json").objects)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"

    async def fill() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await run_tasks(ledger, range(TASKS))

    asyncio.run(fill())
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{copy}")
    return copy


@pytest.fixture
def shell(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert path.exists()
    return Shell(capsys)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.csv"
    file.write_bytes(statement([row(number) for number in range(TASKS)]))
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """One line too much, and one of another amount."""
    stray = row(8, provider_task_id="prov-unknown", our_task_id="", amount="2.25")
    rows = [*(row(number) for number in range(1, TASKS)), row(0, amount="2"), stray]
    file = tmp_path / "bad.csv"
    file.write_bytes(statement(rows))
    return file


def test_a_ledger_that_agrees_with_itself_and_its_statement_is_clean(shell: Shell, good: Path) -> None:
    alone = shell("reconcile")
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == f"clean, compared at position {shell.positions()}\n"
    ended = shell("reconcile", "--statement", good, "--provider", PROVIDER)
    assert (ended.code, ended.err) == (0, "")
    assert f"{TASKS} lines of {PROVIDER}, 0 malformed" in ended.out
    assert "clean" in ended.out


@pytest.mark.parametrize("left_out", ["our_task_id", "provider_task_id"])
def test_whose_statement_it_is_is_told_by_the_tasks_that_its_lines_name(
    shell: Shell, tmp_path: Path, left_out: str
) -> None:
    file = tmp_path / "theirs.csv"
    stray = row(8, provider_task_id="prov-unknown", our_task_id="")
    file.write_bytes(statement([*(row(number, **{left_out: ""}) for number in range(TASKS)), stray]))
    summary = shell("reconcile", "--statement", file, "--json").objects[-1]
    assert (summary["provider"], summary["new"]["missing-here"]["breaks"]) == (PROVIDER, 1)
    assert shell("reconcile", "--statement", file, "--provider", PROVIDER, "--json").objects[-1]["new"] == {}


def test_a_statement_whose_lines_name_tasks_of_two_providers_wants_its_own_named(
    shell: Shell, path: Path, tmp_path: Path
) -> None:
    async def fill() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await ledger.handle(create(ident(9), provider="elsewhere"))

    asyncio.run(fill())
    file = tmp_path / "both.csv"
    file.write_bytes(statement([row(0), row(9)]))
    ended = shell("reconcile", "--statement", file)
    assert ended.code == 2
    assert f"its lines name tasks of {', '.join(sorted([PROVIDER, 'elsewhere']))}: name the provider" in ended.err


@pytest.mark.parametrize("figure", ["held", "charged", "refunded", "expected"])
def test_an_account_whose_row_is_not_what_the_books_say_is_a_break(shell: Shell, path: Path, figure: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE accounts SET {figure}_micros = {figure}_micros + 5")  # noqa: S608 - one of four
        db.commit()
    *found, summary = shell("reconcile", "--json").objects
    assert [(one["kind"], one["about"], one["at_stake_credits"]) for one in found] == [
        ("amount", "account acme by its own row", "0.000005")
    ]
    assert summary["new"] == {"amount": {"breaks": 1, "at_stake_credits": "0.000005"}}
    assert shell("reconcile", "--json").objects[-1]["new"] == {}, "the same one is known"
    assert shell("verify").code == 1, "and verify says the same"


def test_what_a_task_cost_is_explained_by_the_lines_that_bill_it(shell: Shell, path: Path, tmp_path: Path) -> None:
    task, digests = UUID(ident(0)), []
    assert shell("explain", task, "provider_cost").out.splitlines()[:2] == [
        "provider_cost = 0: what the provider has billed for the task, in the statements that were read",
        "  never billed: no line of a statement that was read is its own",
    ]
    for amount in ("2", "1.5"):
        file = tmp_path / "statement.csv"
        file.write_bytes(statement([row(0, amount=amount), *(row(number) for number in range(1, TASKS))]))
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
        shell("reconcile", "--statement", file, "--provider", PROVIDER)
    first, second = costs_in(path, task)
    lines = shell("explain", task, "provider_cost").out.splitlines()
    assert lines[:6] == [
        "provider_cost = 1.5: what the provider has billed for the task, in the statements that were read",
        f"  +2  provider-billed (position {first}) at 2026-01-02T03:04:35Z by cli: statement.read.billed",
        f"      line L0 of {PROVIDER}, 1 credits a unit, statement {digests[0]}",
        f"  -0.5  provider-credited (position {second}) at 2026-01-02T03:04:35Z by cli: statement.read.corrected",
        f"      line L0 of {PROVIDER}, 1 credits a unit, statement {digests[1]}",
        "  = 1.5",
    ]
    (then,) = shell("explain", task, "provider_cost", "--at", str(first), "--json").objects
    assert (then["value"], then["as_of"], [one["total_credits"] for one in then["sum"]]) == ("2", first, ["2"])
    assert shell("explain", UUID(ident(999)), "provider_cost").code == 2


def test_what_the_agreed_rate_makes_no_whole_amount_of_is_told_as_rounded_with_what_that_leaves(
    shell: Shell, tmp_path: Path
) -> None:
    config, file, task = tmp_path / "ledger.toml", tmp_path / "statement.csv", UUID(ident(0))
    config.write_text(f'[statements.{PROVIDER}]\ncredits_per_unit = "1/3"\ntolerance_credits = "0.000001"\n')
    file.write_bytes(statement([row(0, amount="4.499999"), row(1, amount="4.5"), row(2, amount="4.500001")]))
    ended = shell("reconcile", "--statement", file, "--provider", PROVIDER, "--config", config, "--json")
    assert ended.objects[-1]["remainder_micros"] == "0", "a third too much and a third too little"
    file.write_bytes(statement([row(0, amount="4.500001"), row(1, amount="4.5"), row(2, amount="4.500001")]))
    ended = shell("reconcile", "--statement", file, "--provider", PROVIDER, "--config", config)
    assert "its lines are rounded to the nearest micro-credit: remainder 2/3 of one in all" in ended.out
    file.write_bytes(statement([row(0, amount="4.499995"), row(1, amount="4.5")]))
    shell("reconcile", "--statement", file, "--provider", PROVIDER, "--config", config)
    lines = shell("explain", task, "provider_cost").out.splitlines()
    assert [line.strip() for line in lines if "rounded" in line] == [
        "4.499999 units, rounded nearest from 1499999 2/3 micro-credits, remainder -1/3",
        "4.499995 units, rounded nearest from 1499998 1/3 micro-credits, remainder 1/3",
    ]
    (told,) = shell("explain", task, "provider_cost", "--json").objects
    assert [(one["units"], one["rounded"]) for one in told["sum"]] == [
        ("4.499999", {"from_micros": "1499999 2/3", "to": "nearest", "remainder_micros": "-1/3"}),
        ("4.499995", {"from_micros": "1499998 1/3", "to": "nearest", "remainder_micros": "1/3"}),
    ]
    (exact,) = shell("explain", UUID(ident(1)), "provider_cost", "--json").objects
    assert [(one["credits"], one["rounded"]) for one in exact["sum"]] == [("1.5", None)]


def costs_in(path: Path, task: str) -> list[int]:
    """The positions of the events that say what was billed for *task*."""
    with closing(sqlite3.connect(path)) as db:
        asked = "SELECT position FROM events WHERE type LIKE 'provider-%' AND data ->> 'task' = ? ORDER BY position"
        return [row[0] for row in db.execute(asked, (task,))]


def test_what_differs_is_told_in_a_table_by_kind_with_a_total(shell: Shell, bad: Path) -> None:
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    assert (ended.code, ended.err) == (1, "")
    cells = [line.split() for line in ended.out.splitlines()]
    assert ["missing-here", "1", "1", "1", "2.25"] in cells
    assert ["amount", "1", "1", "1", "0.5"] in cells
    assert ["total", "2", "2", "2", "2.75"] in cells
    assert "2 breaks are open" in ended.out
    assert "billed 2, charged 1.5" in ended.out


def test_what_differs_is_one_object_a_line_and_a_summary_last(shell: Shell, bad: Path) -> None:
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER, "--json")
    *breaks, summary = ended.objects
    assert ended.code == 1
    assert {(one["kind"], one["life"], one["new"]) for one in breaks} == {
        ("missing-here", "open", True),
        ("amount", "open", True),
    }
    (stray,) = [one for one in breaks if one["kind"] == "missing-here"]
    assert (stray["at_stake_credits"], stray["lines"], stray["line_ids"]) == ("2.25", [TASKS + 2], ["L8"])
    assert (stray["task"], stray["provider"]) == (UUID(ident(TASKS - 1)), PROVIDER)
    assert stray["age_seconds"] > 0
    assert summary["open"] == summary["found"] == summary["new"] != {}
    assert (summary["lines"], summary["malformed_lines"], summary["written"]) == (TASKS + 1, 0, True)
    assert summary["billed_credits"] == "8.75"


def test_what_the_ledger_finds_of_itself_beside_a_statement_is_counted_and_not_listed(
    shell: Shell, path: Path, bad: Path
) -> None:
    async def one_more() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await begin(ledger, 50)

    asyncio.run(one_more())
    unsettled = {"unsettled": {"breaks": 1, "at_stake_credits": "10"}}
    for option in (["--dry-run"], ["--at", str(shell.positions())], []):
        *found, summary = shell("reconcile", "--statement", bad, "--provider", PROVIDER, "--json", *option).objects
        assert {one["kind"] for one in found} == {"amount", "missing-here"} == set(summary["found"])
        assert summary["own"] == {"found": unsettled, "new": unsettled}
        assert summary["open"] == summary["found"] | unsettled
    told = shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    assert "1 more of the ledger against itself: task-ledger reconcile, without a statement, lists them" in told.out
    assert "3 breaks are open" in told.out
    assert {one["kind"] for one in shell("reconcile", "--json").objects[:-1]} == {"unsettled"}


def test_a_break_that_a_later_statement_puts_right_is_told_as_corrected(shell: Shell, tmp_path: Path) -> None:
    told = []
    for line, amount in (("L0", "0.5"), ("N0", "1")):
        file = tmp_path / f"{line}.csv"
        rows = [row(0, line_id=line, amount=amount), *(row(number) for number in range(1, TASKS))]
        file.write_bytes(statement(rows if line == "L0" else rows[:1]))
        told.append(shell("reconcile", "--statement", file, "--provider", PROVIDER, "--json"))
    assert [one.code for one in told] == [1, 0]
    assert told[1].objects[-1]["closed"] == {"amount": {"breaks": 1, "at_stake_credits": "1"}}
    (known,) = shell("breaks", "list", "--all", "--json").objects
    digest = hashlib.sha256((tmp_path / "N0.csv").read_bytes()).hexdigest()
    assert (known["life"], known["reason"]) == ("corrected", f"task and bills agree, with statement {digest}")


def test_the_same_statement_again_changes_nothing(shell: Shell, bad: Path) -> None:
    shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    position = shell.positions()
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER, "--json")
    assert (ended.code, shell.positions()) == (1, position)
    assert ended.objects[-1]["new"] == {}
    assert shell("verify").code == 0


@pytest.mark.parametrize("option", [["--dry-run"], ["--at", "{end}"]])
def test_a_trial_and_a_look_back_write_nothing(shell: Shell, bad: Path, option: list[str]) -> None:
    position = shell.positions()
    words = [word.format(end=position) for word in option]
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER, "--json", *words)
    assert (ended.code, shell.positions()) == (1, position)
    assert (ended.objects[-1]["written"], len(ended.objects)) == (False, 3)
    assert shell("breaks", "list", "--all", "--json").objects == []


def test_as_known_earlier_a_task_had_not_ended(shell: Shell, good: Path) -> None:
    rows = shell("tail", "--json").objects
    last = next(one["position"] for one in rows if one["task"] == UUID(ident(TASKS - 1)))
    ended = shell("reconcile", "--statement", good, "--provider", PROVIDER, "--at", str(last), "--json")
    *breaks, summary = ended.objects
    assert [(one["kind"], one["task"]) for one in breaks if one["lines"]] == [("unsettled", UUID(ident(TASKS - 1)))]
    assert summary["position"] == last


def test_stuck_holds_are_told_by_age(shell: Shell, path: Path) -> None:
    async def one_more() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await begin(ledger, 50)

    asyncio.run(one_more())
    assert shell("reconcile", "--stuck-hours", "9999999", "--dry-run").code == 0
    ended = shell("reconcile", "--json")
    assert (ended.code, ended.objects[0]["kind"], ended.objects[0]["task"]) == (1, "unsettled", UUID(ident(50)))
    for scope, count in (
        (["--provider", PROVIDER], 1),
        (["--provider", "alibaba"], 0),
        (["--since", "2026-01-02", "--until", "2026-01-03"], 1),
        (["--since", "2026-01-03"], 0),
        (["--until", "2026-01-02"], 0),
    ):
        assert len(shell("reconcile", "--json", *scope).objects) == count + 1


def test_a_malformed_line_is_told_and_is_a_finding(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "spoilt.csv"
    file.write_bytes(statement([row(0), row(1, amount="1,5"), *map(row, range(2, TASKS))]))
    words = ("reconcile", "--statement", file, "--provider", PROVIDER, "--dry-run")
    ended = shell(*words)
    assert ended.code == 1
    assert "line 3 is malformed: amount '1,5' is no plain decimal" in ended.out
    assert shell(*words, "--json").objects[-1]["malformed"] == [
        {"number": 3, "reason": "amount '1,5' is no plain decimal such as 1.5"}
    ]


def test_the_configuration_says_how_a_provider_writes_and_whose_its_breaks_are(shell: Shell, tmp_path: Path) -> None:
    config = tmp_path / "ledger.toml"
    config.write_text(
        f'[statements.{PROVIDER}]\ncolumns = {{ amount = "cost", provider_task_id = "job" }}\ndelimiter = ";"\n'
        'credits_per_unit = "3"\ntolerance_credits = "0.01"\nperiod = "day"\nowner = "finance"\n'
    )
    file = tmp_path / "theirs.csv"
    lines = [
        f"prov-{number};{cost};{row(number)['finished_at']}" for number, cost in enumerate(("0.5", "0.503", "0.51"))
    ]
    file.write_text("\n".join(["job;cost;finished_at", *lines]))
    ended = shell("reconcile", "--statement", file, "--config", config, "--json")
    found = {one["task"]: one["kind"] for one in ended.objects[:-1]}
    assert found == {UUID(ident(2)): "amount", UUID(ident(3)): "missing-there"}
    assert {one["owner"] for one in shell("breaks", "list", "--json").objects} == {"finance"}


WRONG = [
    (["--statement", "{good}", "--provider", ""], "'--provider'"),
    (["--statement", "{strays}"], "its lines name no task that is here: name the provider"),
    (["--statement", "{good}", "--config", "{two}"], "'--provider'"),
    (["--statement", "{empty}", "--provider", PROVIDER], "the file is empty"),
    (["--statement", "{binary}", "--provider", PROVIDER], "the file is binary"),
    (["--statement", "{other}", "--provider", PROVIDER], "no column for amount"),
    (["--statement", "{head}", "--provider", PROVIDER], "since and until"),
    (["--statement", "{missing}", "--provider", PROVIDER], "cannot read"),
    (["--statement", "{good}", "--provider", PROVIDER, "--since", "then"], "'--since'"),
    (["--statement", "{good}", "--provider", PROVIDER, "--since", "2026-02-01", "--until", "2026-01-01"], "'--until'"),
    (["--at", "999999"], "'--at'"),
    (["--at", "yesterday"], "'--at'"),
    (["--config", "{missing}"], "'--config'"),
    (["--stuck-hours", "-1"], "'--stuck-hours'"),
    (["--statement", "{good}", "--provider", "volcengin"], "nobody knows a provider 'volcengin'; known are alibaba, "),
    (["--statement", "{good}", "--provider", "volcengin", "--dry-run"], "--new-provider takes a new one"),
    (["--provider", "volcengin"], "nobody knows a provider 'volcengin'; known are alibaba, "),
    (["--provider", "volcengin", "--dry-run"], "'--provider'"),
    (["--provider", "volcengin", "--at", "1"], "'--provider'"),
    (["--statement", "{good}", "--provider", PROVIDER, "--replaces", "0" * 64], "has not been read"),
    (["--statement", "{good}", "--provider", PROVIDER, "--replaces", "0" * 64, "--dry-run"], "has not been read"),
    (["--statement", "{good}", "--provider", PROVIDER, "--replaces", "{good}"], "does not replace itself"),
    (
        ["--statement", "{good}", "--provider", PROVIDER, "--replaces", "{missing}"],
        "neither a SHA-256 in hex nor a file",
    ),
    (["--replaces", "0" * 64], "'--statement'"),
    (["--new-provider"], "'--statement'"),
]


@pytest.mark.parametrize(("words", "told"), WRONG)
def test_wrong_use_is_refused_and_writes_nothing(
    shell: Shell, good: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    files = {name: tmp_path / name for name in ("empty", "binary", "other", "head", "missing", "strays", "two")}
    files["empty"].write_bytes(b"")
    files["binary"].write_bytes(bytes(64))
    files["other"].write_bytes(b"name,age\nx,1\n")
    files["head"].write_bytes(statement([]))
    files["strays"].write_bytes(statement([row(0, provider_task_id="x", our_task_id="")]))
    files["two"].write_text("[statements.a]\n[statements.b]\n")
    position = shell.positions()
    ended = shell("reconcile", *(word.format(good=good, **files) for word in words))
    if words == ["--config", "{missing}"]:
        ended = shell("reconcile", *(word.format(good=good, **files) for word in words), "--statement", good)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert told in ended.err
    assert shell.positions() == position


def test_a_new_provider_is_taken_when_it_is_said_to_be_one_and_known_from_then_on(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "first.csv"
    file.write_bytes(statement([row(0, provider_task_id="x", our_task_id="")]))
    words = ("reconcile", "--statement", file, "--provider", "new-one", "--json")
    assert shell(*words, "--new-provider").objects[-1]["new"]["missing-here"]["breaks"] == 1
    assert shell(*words).objects[-1]["new"] == {}


def test_a_statement_replaces_another_by_its_file_or_its_digest(shell: Shell, bad: Path, good: Path) -> None:
    digest = hashlib.sha256(bad.read_bytes()).hexdigest()
    words = ("reconcile", "--statement", good, "--provider", PROVIDER, "--replaces")
    shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    assert shell("breaks", "list", "--json").objects
    assert shell(*words, bad).code == 0
    position = shell.positions()
    assert shell(*words, digest).code == 0
    assert shell.positions() == position
    assert shell("breaks", "list", "--json").objects == []
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    assert (ended.code, ended.out) == (2, "")
    assert f"statement {digest} has been replaced by" in ended.err
    assert shell("verify").code == 0


def test_of_two_processes_whose_statements_replace_each_other_one_is_refused_and_the_other_stands(
    shell: Shell, bad: Path, good: Path
) -> None:
    for file in (bad, good):
        shell("reconcile", "--statement", file, "--provider", PROVIDER)
    words = {
        new: ("reconcile", "--statement", new, "--provider", PROVIDER, "--replaces", old)
        for new, old in ((good, bad), (bad, good))
    }
    both = {
        new: Popen([sys.executable, "-m", "scripts.cli", *line], cwd=ROOT, stdout=PIPE, stderr=PIPE)
        for new, line in words.items()
    }
    told = {new: process.communicate(timeout=60)[1].decode() for new, process in both.items()}
    ended = {new: process.returncode for new, process in both.items()}
    clean = {good: 0, bad: 1}
    ((loser, code),) = {new: code for new, code in ended.items() if code != clean[new]}.items()
    assert code == 2, told
    assert "has been replaced by" in told[loser]
    position = shell.positions()
    for new, line in words.items():
        assert shell(*line).code == ended[new]
    assert shell.positions() == position
    assert shell("verify").code == 0


# Breaks


@pytest.fixture
def ids(shell: Shell, bad: Path) -> dict[str, str]:
    """The breaks of the bad statement, by kind."""
    found = shell("reconcile", "--statement", bad, "--provider", PROVIDER, "--json").objects[:-1]
    return {one["kind"]: one["id"] for one in found}


def test_breaks_are_listed_explained_and_resolved(shell: Shell, ids: dict[str, str], bad: Path) -> None:
    assert {one["id"] for one in shell("breaks", "list", "--json").objects} == set(ids.values())
    explained = shell("breaks", "explain", ids["missing-here"], "--reason", "a trial", "--owner", "ops", "--json")
    (one,) = explained.objects
    assert (explained.code, one["life"], one["reason"], one["owner"]) == (0, "explained", "a trial", "ops")
    resolved = shell("breaks", "resolve", ids["amount"], "--reason", "given back", "--event", "3")
    assert (resolved.code, resolved.out) == (0, f"corrected {ids['amount']}: given back\n")
    assert shell("breaks", "list", "--json").objects == []
    everything = {one["id"]: one for one in shell("breaks", "list", "--all", "--json").objects}
    assert everything[ids["amount"]]["corrected_by"] == 3
    assert everything[ids["missing-here"]]["life"] == "explained"
    ended = shell("reconcile", "--statement", bad, "--provider", PROVIDER)
    assert (ended.code, "clean" in ended.out) == (0, True)
    assert shell("verify").code == 0


def test_breaks_are_listed_by_kind_and_provider_and_for_people(shell: Shell, ids: dict[str, str]) -> None:
    (one,) = shell("breaks", "list", "--kind", "amount", "--json").objects
    assert one["id"] == ids["amount"]
    assert shell("breaks", "list", "--provider", "another", "--json").objects == []
    out = shell("breaks", "list").out
    assert all(break_id in out for break_id in ids.values())
    assert shell("breaks", "list", "--kind", "nonsense").code == 2


@pytest.mark.parametrize("verb", ["explain", "resolve"])
def test_what_is_said_twice_is_said_once(shell: Shell, ids: dict[str, str], verb: str) -> None:
    first = shell("breaks", verb, ids["amount"], "--reason", "known")
    position = shell.positions()
    assert shell("breaks", verb, ids["amount"], "--reason", "known") == first
    assert shell.positions() == position


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["explain", "0" * 32, "--reason", "r"], "no break"),
        (["explain", "nonsense", "--reason", "r"], "no break"),
        (["resolve", "0" * 32, "--reason", "r"], "no break"),
        (["explain", "{amount}"], "'--reason'"),
        (["explain", "{amount}", "--reason", ""], "'--reason'"),
        (["explain", "{amount}", "--reason", "x" * 501], "'--reason'"),
        (["resolve", "{amount}", "--reason", "r", "--event", "99999"], "'--event'"),
        (["resolve", "{amount}", "--reason", "r", "--event", "0"], "'--event'"),
    ],
)
def test_what_cannot_be_said_of_a_break_is_refused(
    shell: Shell, ids: dict[str, str], words: list[str], told: str
) -> None:
    position = shell.positions()
    ended = shell("breaks", *(word.format(amount=ids["amount"]) for word in words))
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert shell.positions() == position


def test_a_corrected_break_is_not_explained_any_more(shell: Shell, ids: dict[str, str]) -> None:
    shell("breaks", "resolve", ids["amount"], "--reason", "given back")
    ended = shell("breaks", "explain", ids["amount"], "--reason", "known")
    assert (ended.code, "has been corrected already" in ended.err) == (2, True)


def test_tail_shows_the_books_own_events(shell: Shell, ids: dict[str, str]) -> None:
    (line,) = shell("tail", "--type", "statement-read").out.splitlines()
    assert "books" in line
    rows = shell("tail", "--type", "break-opened", "--json").objects
    assert {one["facts"]["break_id"] for one in rows} == set(ids.values())
    assert {(one["task"], one["account"]) for one in rows} == {(None, "")}


async def test_it_works_beside_a_running_service(path: Path, bad: Path) -> None:
    (operator,) = await keys_in(path, ("ledger", Role.OPERATOR))
    store = ("--store", f"sqlite:{path}")
    file = await asyncio.to_thread(bad.read_bytes)
    async with Server(path) as server:
        await server.start()
        words = ["reconcile", "--statement", str(bad), "--provider", PROVIDER, *store]
        assert await asyncio.to_thread(run, app, words) == 1
        headers = [("Authorization", f"Bearer {operator}")]
        async with server.wire() as wire:
            listed = await wire.send(request("GET", "/ledger/v1/billing/breaks", headers=headers))
            (one, _) = listed.json()["breaks"]
            body = json.dumps({"type": "explain", "reason": "seen"}).encode()
            target = f"/ledger/v1/billing/breaks/{one['id']}"
            assert (await wire.send(request("POST", target, headers=headers, body=body))).status == 200
            headers.append(("Content-Type", "text/csv"))
            target = f"/ledger/v1/billing/statements?provider={PROVIDER}"
            again = await wire.send(request("POST", target, headers=headers, body=file))
        assert again.json()["new"] == {}
        assert await asyncio.to_thread(run, app, ["verify", *store]) == 0


def test_a_task_that_is_stuck_and_billed_is_one_break(shell: Shell, path: Path, tmp_path: Path) -> None:
    async def one_more() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            await begin(ledger, 50)

    asyncio.run(one_more())
    file = tmp_path / "early.csv"
    file.write_bytes(statement([*map(row, range(TASKS)), row(50)]))
    for option in (["--dry-run"], []):
        ended = shell("reconcile", "--statement", file, "--provider", PROVIDER, "--json", *option)
        (one, summary) = ended.objects
        assert (ended.code, one["kind"], one["task"]) == (1, "unsettled", UUID(ident(50)))
        assert one["line_ids"] == ["L50"]
        assert summary["open"] == {"unsettled": {"breaks": 1, "at_stake_credits": "1.5"}}


SOAK = [pytest.mark.soak, pytest.mark.timeout(600)]
SIZES = [pytest.param(1500, id="1500 tasks"), pytest.param(20_000, id="20000 tasks", marks=SOAK)]


@pytest.mark.parametrize("tasks", SIZES)
def test_what_a_statement_lists_is_exactly_what_was_planted_in_it(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{tmp_path / 'simulated.db'}")
    file = tmp_path / "provider.csv"
    made = shell("simulate", "--tasks", str(tasks), "--seed", "7", "--statement", file, "--json").objects[0][
        "statement"
    ]
    ended = shell("reconcile", "--statement", file, "--provider", made["provider"], "--json")
    *found, summary = ended.objects
    listed = sorted(
        (
            one["kind"],
            sorted(one["line_ids"]),
            None if one["kind"] == "missing-here" else one["task"],
            one["at_stake_credits"],
        )
        for one in found
    )
    planted = sorted(
        (one["kind"], sorted(one["line_ids"]), one["task"], one["amount_credits"]) for one in planted_in(file)
    )
    assert (ended.code, listed, len(planted)) == (1, planted, sum(made["faults"].values()))
    position = shell.positions()
    again = shell("reconcile", "--statement", file, "--provider", made["provider"], "--json").objects
    assert (shell.positions(), again[-1]["new"], len(again)) == (position, {}, len(planted) + 1)
    drawn = shell("report", "--by", "provider", "--json").objects[0]
    costs = {line["key"]: line["cost_credits"] for line in drawn["lines"]}
    assert costs[made["provider"]] == drawn["total"]["cost_credits"] == made["total_credits"], "to the micro-credit"
    assert shell("verify").code == 0
    assert summary["billed_credits"] != made["total_credits"], "which leaves out what is in no agreed currency"

"""`task-ledger simulate`: what it makes and prints, and what it refuses before it makes anything."""

import io
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scripts import progress
from scripts.cli import app, run
from tests import stored
from tests.simulated import lines_of, planted_in


class Shell:
    """Where `simulate` and the verbs that read are typed in, each with its store, in a folder of their own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, verb: str, *arguments: str, store: str = "ledger.db") -> tuple[int, str, str]:
        """Exit code, what was printed, and what was complained of."""
        self._capsys.readouterr()
        code = run(app, [*verb.split(), *arguments, "--store", f"sqlite:{self.folder / store}"])
        return code, *self._capsys.readouterr()

    def made(self, *arguments: str, store: str = "ledger.db") -> dict[str, Any]:
        """What was simulated, as JSON tells it."""
        code, out, err = self("simulate", *arguments, "--json", store=store)
        assert (code, err, out.count("\n")) == (0, "", 1)
        told: dict[str, Any] = msgspec.json.decode(out)
        return told

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def test_it_makes_a_store_that_verify_finds_clean(shell: Shell) -> None:
    made = shell.made("--tasks", "200", "--seed", "7")
    code, out, _ = shell("verify", "--json")
    report = msgspec.json.decode(out)
    assert (code, report["found"], report["tasks"]) == (0, 0, 200)
    assert (made["tasks"], made["events"], made["head"]) == (200, report["events"], report["head"])
    assert sum(made["providers"].values()) == 200
    assert made["statement"] is None


def test_the_same_seed_gives_the_same_head_and_the_same_files(shell: Shell) -> None:
    options = ("--tasks", "300", "--seed", "11", "--statement")
    first, second = (shell.made(*options, f"{name}.csv", store=f"{name}.db") for name in ("first", "second"))
    other = shell.made("--tasks", "300", "--seed", "12", store="other.db")
    assert first["head"] == second["head"] != other["head"]
    for ending in (".csv", ".faults.jsonl"):
        texts = {(shell.folder / name).with_suffix(ending).read_bytes() for name in ("first", "second")}
        assert len(texts) == 1


def test_the_days_are_those_that_were_asked_for(shell: Shell) -> None:
    shell.made("--tasks", "50", "--from", "2024-02-28", "--days", "2", "--accounts", "1")
    rows = [msgspec.json.decode(line) for line in shell("tail", "--type", "created", "--json")[1].splitlines()]
    assert {row["recorded_at"][:10] for row in rows} == {"2024-02-28", "2024-02-29"}
    assert {row["account"] for row in rows} == {"account-001"}


def test_no_keys_are_issued(shell: Shell) -> None:
    shell.made("--tasks", "5")
    assert shell("keys list", "--json") == (0, "", "")


def test_the_statement_is_of_the_provider_with_the_most_tasks(shell: Shell) -> None:
    made = shell.made("--tasks", "2000", "--seed", "7", "--statement", "provider.csv")
    told = made["statement"]
    assert told["provider"] == max(made["providers"], key=made["providers"].__getitem__)
    assert told["lines"] == len(lines_of(shell.folder / told["path"]))
    assert sum(told["faults"].values()) == len(planted_in(shell.folder / "provider.csv")) == 18
    assert told["faults_path"] == "provider.faults.jsonl"


def test_or_of_the_one_that_is_named(shell: Shell) -> None:
    options = ("--statement", "suno.jsonl", "--provider", "suno", "--faults", "0")
    made = shell.made("--tasks", "100", *options)
    assert made["statement"]["provider"] == "suno"
    assert {line["model"] for line in lines_of(shell.folder / "suno.jsonl")} == {"suno-5.5"}
    assert planted_in(shell.folder / "suno.jsonl") == []


def test_it_is_told_for_people_too(shell: Shell) -> None:
    code, out, err = shell("simulate", "--tasks", "300", "--seed", "7", "--statement", "provider.csv")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert " events of 300 tasks, head " in lines[0]
    assert "answered as before, refused: " in lines[1]
    assert lines[2].startswith("provider.csv: ")
    assert lines[3].endswith(" planted faults")


@pytest.mark.parametrize("tasks", ["0", "1", "2"])
def test_small_histories_are_made_too(shell: Shell, tasks: str) -> None:
    made = shell.made("--tasks", tasks, "--statement", "provider.csv")
    assert made["tasks"] == int(tasks)
    assert shell("verify")[0] == 0
    assert shell.files() >= {"provider.csv", "provider.faults.jsonl"}


def test_a_store_with_a_history_is_refused_and_left_alone(shell: Shell) -> None:
    stored.make(shell.folder / "ledger.db")
    before = (shell.folder / "ledger.db").read_bytes()
    code, out, err = shell("simulate", "--tasks", "5", "--statement", "provider.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "ledger.db has a history already" in err
    assert (shell.folder / "ledger.db").read_bytes() == before
    assert "provider.csv" not in shell.files()


def test_a_store_that_is_empty_still_is_filled(shell: Shell) -> None:
    (shell.folder / "ledger.db").touch()
    assert shell.made("--tasks", "0")["events"] == 0
    assert shell.made("--tasks", "3")["tasks"] == 3


def test_a_file_that_is_no_ledger_cannot_be_opened(shell: Shell) -> None:
    (shell.folder / "ledger.db").write_text("something else, and long enough to be looked at as a database " * 20)
    code, out, err = shell("simulate", "--tasks", "5")
    assert (code, out) == (3, "")
    assert "is not a ledger" in err


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--tasks", "-1"], "'--tasks'"),
        (["--tasks", "many"], "'--tasks'"),
        (["--tasks", str(10**8)], "'--tasks'"),
        (["--seed", "x"], "'--seed'"),
        (["--days", "0"], "'--days'"),
        (["--days", "100000"], "'--days'"),
        (["--accounts", "0"], "'--accounts'"),
        (["--from", "soon"], "a date from 1970-01-01 to 2999-12-31"),
        (["--from", "2026-02-30"], "a date from 1970-01-01"),
        (["--from", "1969-12-31"], "a date from 1970-01-01"),
        (["--from", "3000-01-01"], "a date from 1970-01-01"),
        (["--from", "2026-10-01T00:00:00Z"], "a date from 1970-01-01"),
        (["--faults", "-0.1"], "'--faults'"),
        (["--faults", "0.6"], "'--faults'"),
        (["--faults", "nan"], "'--faults'"),
        (["--statement", "provider.pdf"], "ends in .csv or .jsonl"),
        (["--statement", "provider"], "ends in .csv or .jsonl"),
        (["--statement", "nowhere/provider.csv"], "no folder nowhere"),
        (["--statement", "provider.csv", "--provider", "nobody"], "no such provider; there are alibaba, beatra"),
        (["--provider", "suno"], "no --statement"),
        (["more"], "unexpected extra argument"),
    ],
)
def test_wrong_use_is_one_line_and_makes_nothing(shell: Shell, arguments: list[str], fragment: str) -> None:
    code, out, err = shell("simulate", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert fragment in err
    assert shell.files() == set()


def test_a_bar_shows_how_far_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert shell("simulate", "--tasks", "50")[0] == 0
    assert "simulate" in terminal.getvalue()


def test_a_portion_of_all_tasks_is_one_providers(shell: Shell) -> None:
    options = ("--tasks", "300", "--seed", "11", "--provider", "suno")
    whole = shell.made(*options, "--portion", "1", "--statement", "suno.csv", store="whole.db")
    assert whole["providers"] == {"suno": 300}
    assert 200 < whole["statement"]["lines"] < 400, "about a line for each of them"
    half = shell.made(*options, "--portion", "0.5", store="half.db")
    assert 130 < half["providers"]["suno"] < 200
    assert len(half["providers"]) > 5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--portion", "0.5"), "name it with --provider"),
        (("--portion", "2", "--provider", "suno"), "--portion"),
        (("--portion", "1", "--provider", "nobody"), "no such provider"),
    ],
)
def test_a_portion_of_nobody_is_refused(shell: Shell, options: tuple[str, ...], complaint: str) -> None:
    code, out, err = shell("simulate", "--tasks", "10", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    assert shell.files() == set()

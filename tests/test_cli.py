"""The operator's command line: what each verb prints, in words and as JSON, and how what goes wrong ends."""

import asyncio
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.contracts import spellings
from ledger.cursors import position_cursor
from ledger.ids import Spelling
from ledger.keyring import Keyring
from ledger.keys import Token, parse
from ledger.records import KeyRow
from scripts import progress
from scripts.cli import VERBS, app, run
from tests import stored
from tests.builders import ACCOUNT, create, ident

TASK = ident(0)
UUID = Spelling.UUID.spell(TASK)


class Ended(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it printed, as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Where command lines are typed in: in this process, with one store in the environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        code = run(app, arguments)
        return Ended(code, *self._capsys.readouterr())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A filled ledger to do with what one likes, which the environment names."""
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{copy}")
    monkeypatch.delenv("TASK_LEDGER_PEPPER", raising=False)
    return copy


@pytest.fixture
def shell(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert path.exists()
    return Shell(capsys)


def program(*arguments: str, module: str = "scripts.cli", **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401
    """The program, in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-m", module, *arguments], **pipes)


# keys


def opens(path: Path, text: str, *, pepper: bytes | None = None) -> KeyRow | None:
    """The key's row, if *text* opens anything."""

    async def holder(token: Token) -> KeyRow | None:
        async with stored.reading(path) as engine:
            return await Keyring(engine, pepper=pepper).holder(token, at_us=2**62)

    token = parse(text)
    assert token is not None
    return asyncio.run(holder(token))


@pytest.mark.parametrize(
    ("contract", "options", "role"),
    [
        ("lemondata", [], "client"),
        ("bytespike", [], "client"),
        ("chunkr", [], "client"),
        ("beatra", [], "client"),
        ("ledger", [], "worker"),
        ("ledger", ["--role", "operator"], "operator"),
    ],
)
def test_an_issued_key_opens(shell: Shell, path: Path, contract: str, options: list[str], role: str) -> None:
    ended = shell("keys", "issue", "--account", "initech", "--contract", contract, *options, "--json")
    (key,) = ended.objects
    assert (ended.code, ended.err, set(key)) == (0, "", {"key_id", "key"})
    row = opens(path, key["key"])
    assert row is not None
    assert (row.key_id, row.account, row.contract, row.role) == (key["key_id"], "initech", contract, role)


def test_an_issued_key_is_printed_for_people_on_two_lines(shell: Shell, path: Path) -> None:
    out = shell("keys", "issue", "--account", "initech", "--contract", "beatra").out
    (_, _, key_id), (_, key) = (line.split() for line in out.splitlines())
    row = opens(path, key)
    assert row is not None
    assert row.key_id == key_id


def test_issuing_makes_the_ledger_if_there_is_none(shell: Shell, tmp_path: Path) -> None:
    new = f"sqlite:{tmp_path / 'new.db'}"
    assert shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--store", new).code == 0
    assert len(shell("keys", "list", "--json", "--store", new).objects) == 1


def test_keys_are_listed_oldest_first_and_without_their_digests(shell: Shell) -> None:
    rows = shell("keys", "list", "--json").objects
    assert [row["account"] for row in rows] == [ACCOUNT, "gateway", ACCOUNT, "umbrella"]
    assert rows[1] == {
        "key_id": rows[1]["key_id"],
        "account": "gateway",
        "contract": "ledger",
        "role": "worker",
        "issued_at": "2026-01-02T03:04:06Z",
        "revoked_at": None,
    }
    assert [row["revoked_at"] for row in rows] == ["2026-01-02T04:04:15Z", None, None, "2026-01-02T03:04:17Z"]
    assert shell("keys", "list", "--account", "gateway", "--json").objects == [rows[1]]


def test_keys_are_listed_as_a_table(shell: Shell) -> None:
    heading, *rows = shell("keys", "list").out.splitlines()
    assert heading.split() == ["key", "id", "account", "contract", "role", "issued", "state"]
    assert [row.split()[5] for row in rows] == ["revoked", "live", "live", "revoked"]


def test_a_revoked_key_opens_nothing_more(shell: Shell, path: Path) -> None:
    (key,) = shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--json").objects
    ended = shell("keys", "revoke", key["key_id"])
    assert ended == (0, f"revoked {key['key_id']}\n", "")
    assert opens(path, key["key"]) is None


def test_a_revoked_key_is_told_as_json(shell: Shell) -> None:
    (key,) = shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--json").objects
    (row,) = shell("keys", "revoke", key["key_id"], "--json").objects
    assert (row["key_id"], row["account"]) == (key["key_id"], "a")
    assert row["revoked_at"] > row["issued_at"]


def test_a_rotated_key_lives_on_for_the_overlap_beside_the_new_one(shell: Shell, path: Path) -> None:
    (old,) = shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--json").objects
    (new,) = shell("keys", "rotate", old["key_id"], "--json").objects
    assert set(new) == {"key_id", "key"}
    rows = {row["key_id"]: row for row in shell("keys", "list", "--json").objects}
    assert rows[new["key_id"]]["contract"] == "chunkr"
    assert opens(path, new["key"]) is not None
    days = int(rows[old["key_id"]]["revoked_at"][8:10]) - int(rows[old["key_id"]]["issued_at"][8:10])
    assert days == 1 or days < -20, "a day later, if not in the next month"
    assert "live until" in shell("keys", "list").out


def test_a_key_rotated_without_overlap_is_dead_at_once(shell: Shell, path: Path) -> None:
    (old,) = shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--json").objects
    assert shell("keys", "rotate", old["key_id"], "--overlap", "0").code == 0
    assert opens(path, old["key"]) is None


def test_a_pepper_from_the_environment_keys_the_digests(
    shell: Shell, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_LEDGER_PEPPER", "black pepper")
    (key,) = shell("keys", "issue", "--account", "a", "--contract", "chunkr", "--json").objects
    assert opens(path, key["key"]) is None
    assert opens(path, key["key"], pepper=b"black pepper") is not None


async def test_a_key_issued_beside_a_running_ledger_opens_it(path: Path) -> None:
    async with stored.serving(path) as ledger:
        issue = program("keys", "issue", "--account", "a", "--contract", "chunkr", "--json")
        out, _ = await asyncio.to_thread(issue.communicate)
        token = parse(json.loads(out)["key"])
        assert token is not None
        assert await ledger.keys.holder(token, at_us=2**62) is not None
        await ledger.handle(create(ident(500)))  # it goes on after the event that is not its own


# trace


def test_a_trace_tells_a_task_s_life_as_a_timeline(shell: Shell) -> None:
    ended = shell("trace", UUID)
    spelled, title, heading, *rows = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert spelled.split() == [spelling.spell(TASK) for spelling in spellings()]
    assert title.startswith(
        "text-to-video by seedance-2.0 (seedance-2.0-2026, volcengine) for acme, contract lemondata"
    )
    assert heading.split() == ["time", "elapsed", "v", "type", "credits", "status", "%", "held", "net", "facts"]
    first = ["2026-01-02T03:04:05Z", "+0.000s", "1", "created", "queued", "0", "0", "estimated_seconds=35"]
    assert rows[0].split()[:8] == first
    assert "school=hold" in rows[0]
    assert rows[1].split()[:8] == ["2026-01-02T03:04:05Z", "+0.000s", "2", "held", "10", "queued", "10", "0"]
    assert rows[-1].startswith("credits: held 0, ")


@pytest.mark.parametrize("spelling", spellings())
def test_a_trace_takes_any_spelling_of_the_id(shell: Shell, spelling: Spelling) -> None:
    assert shell("trace", spelling.spell(TASK)).out == shell("trace", UUID).out


def test_a_trace_as_json_is_a_line_an_event(shell: Shell) -> None:
    steps = shell("trace", UUID, "--json").objects
    assert [step["version"] for step in steps] == list(range(1, len(steps) + 1))
    created, held = steps[:2]
    assert held == {
        "cursor": held["cursor"],
        "position": created["position"] + 1,
        "task": UUID,
        "version": 2,
        "type": "held",
        "recorded_at": "2026-01-02T03:04:06Z",  # no earlier than the key beside it, which the log has before it
        "effective_at": "2026-01-02T03:04:05Z",
        "account": ACCOUNT,
        "actor": "k1",
        "request_id": "",
        "amount_credits": "10",
        "facts": {
            "type": "held",
            "at_us": 1767323045000000,
            "amount_micros": 10000000,
            "key": "hold:1",
            "cause": "created",
        },
        "payload": None,
        "erased": False,
        "elapsed_seconds": 0.0,
        "status": "queued",
        "state": held["state"],
    }
    assert (held["state"]["version"], held["state"]["billing"]["held_credits"]) == (2, "10")
    assert created["payload"] == {"input": {"prompt": "a fjord"}, "metadata": {"order": 4711}}


# tail


def test_tail_prints_the_whole_log_with_a_cursor_on_each_line(shell: Shell) -> None:
    lines, events = shell("tail").out.splitlines(), shell("tail", "--json").objects
    assert [event["position"] for event in events] == list(range(1, len(lines) + 1))
    assert [line.split()[-1] for line in lines] == [event["cursor"] for event in events]
    assert {event["task"] is None for event in events} == {True, False}


def test_tail_goes_on_after_a_cursor(shell: Shell) -> None:
    events = shell("tail", "--json").objects
    assert shell("tail", "--json", "--from", events[100]["cursor"]).objects == events[101:]
    assert shell("tail", "--from", events[-1]["cursor"]) == (0, "", "")


@pytest.mark.parametrize("last", [0, 1, 7, 100_000])
def test_tail_prints_the_last_events(shell: Shell, last: int) -> None:
    events = shell("tail", "--json").objects
    assert shell("tail", "--json", "--last", str(last)).objects == (events[-last:] if last else [])


def test_tail_prints_the_last_events_of_those_that_fit(shell: Shell) -> None:
    events = shell("tail", "--json").objects
    created = [event for event in events if event["type"] == "created"]
    assert shell("tail", "--json", "--type", "created").objects == created
    assert shell("tail", "--json", "--type", "created", "--last", "3").objects == created[-3:]
    after = ["--from", created[-2]["cursor"], "--type", "created", "--last", "3"]
    assert shell("tail", "--json", *after).objects == created[-1:]


def test_tail_prints_the_events_of_one_account(shell: Shell) -> None:
    assert [event["type"] for event in shell("tail", "--json", "--account", "umbrella").objects] == [
        "key-issued",
        "key-revoked",
        "credit-limited",
        "credit-limited",
    ]
    assert shell("tail", "--account", "nobody") == (0, "", "")


def test_a_line_of_the_log_reads_like_this(shell: Shell) -> None:
    line = shell("tail", "--type", "held", "--last", "1").out
    when, kind, _, version, account, amount, *facts, _ = line.split()
    assert (when[:10], kind, version, account) == ("2026-01-02", "held", "v2", ACCOUNT)
    assert float(amount) > 0
    assert facts == ["key=hold:1", "cause=created"]
    assert "digest" not in shell("tail", "--type", "key-issued").out


def test_what_an_account_was_given_reads_like_this(shell: Shell) -> None:
    types = ("credit-limited", "credit-granted", "credit-revoked")
    lines = [line.split()[2:-1] for kind in types for line in shell("tail", "--type", kind).out.splitlines()]
    assert lines == [
        ["account", "v3", "umbrella", "limit=1000"],
        ["account", "v4", "umbrella", "limit=none"],
        ["account", "v4", "acme", "1000", "key=g0"],
        ["account", "v5", "acme", "1000", "key=g1"],
        ["account", "v6", "acme", "100", "key=r0", "reason=a", "slip", "grant=g0"],
    ]
    (taken,) = shell("tail", "--json", "--type", "credit-revoked").objects
    assert (taken["amount_credits"], taken["facts"]["reason"]) == ("100", "a slip")


async def test_tail_follows_the_log_until_it_is_interrupted(path: Path) -> None:
    async with stored.serving(path) as ledger:
        following = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.tail", "--follow", "--json", "--type", "created", "--last", "1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert following.stdout is not None
            first = json.loads(await following.stdout.readline())
            for number in (500, 501):
                await ledger.handle(create(ident(number)))
            more = [json.loads(await following.stdout.readline()) for _ in range(2)]
        finally:
            following.send_signal(signal.SIGINT)
        assert await following.communicate() == (b"", b"")
    assert [event["task"] for event in more] == [Spelling.UUID.spell(ident(number)) for number in (500, 501)]
    assert first["position"] < more[0]["position"]
    assert following.returncode == 130


def test_what_a_terminal_would_obey_is_not_printed_to_it(shell: Shell, path: Path, tmp_path: Path) -> None:
    with stored.broken(path, tmp_path / "odd.db") as db:
        db.execute("UPDATE events SET account = char(27) || '[2Jacme', type = type || char(7)")
    out = shell("tail", "--store", f"sqlite:{tmp_path / 'odd.db'}").out
    assert "[2Jacme" in out
    assert out.replace("\n", "").isprintable()


# verify


def test_a_whole_ledger_is_clean(shell: Shell) -> None:
    position = len(shell("tail").out.splitlines())
    ended = shell("verify")
    assert ended.code == 0
    assert ended.out.startswith(f"clean: {position} events of 12 tasks up to position {position}, head ")
    (report,) = shell("verify", "--json").objects
    assert report == {
        "position": position,
        "head": report["head"],
        "events": position,
        "tasks": 12,
        "found": 0,
        "first_bad_position": None,
        "findings": [],
    }
    assert report["head"] in ended.out


def test_a_changed_event_is_named_and_ends_in_one(shell: Shell, path: Path, tmp_path: Path) -> None:
    with stored.broken(path, tmp_path / "bad.db") as db:
        db.execute("UPDATE events SET actor = 'somebody' WHERE position = 20")
    bad = f"sqlite:{tmp_path / 'bad.db'}"
    ended = shell("verify", "--store", bad)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[-1] == "first bad position: 20"
    assert "the hash is not the one" in ended.out
    ended = shell("verify", "--store", bad, "--json")
    (report,) = ended.objects
    assert (ended.code, report["found"], report["first_bad_position"]) == (1, 1, 20)
    assert report["findings"] == [
        {
            "check": "chain",
            "position": 20,
            "task": UUID,
            "detail": "the hash is not the one that this row gives after the row before it",
        }
    ]


def test_more_findings_than_are_told_are_counted(shell: Shell, path: Path, tmp_path: Path) -> None:
    with stored.broken(path, tmp_path / "bad.db") as db:
        db.execute("UPDATE events SET actor = 'somebody'")
    out = shell("verify", "--store", f"sqlite:{tmp_path / 'bad.db'}").out.splitlines()
    assert out[-3].startswith("and ")
    assert out[-3].endswith(" more")
    assert out[-1] == "first bad position: 1"


def test_a_bar_shows_how_far_it_is_and_goes_away(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    ended = shell("verify")
    assert ended.code == 0
    assert ended.out.startswith("clean: ")
    assert "verify" in terminal.getvalue()


@pytest.mark.parametrize("store", [["--store", "{}"], []])
def test_verify_runs_as_a_module_too(path: Path, store: list[str]) -> None:
    arguments = [text.format(f"sqlite:{path}") for text in store]
    out, err = program(*arguments, "--json", module="scripts.verify").communicate()
    assert (json.loads(out)["found"], err) == (0, "")


# How things end


WRONG = [  # what is typed in, and a fragment of the one line that answers
    (["audit"], "No such command 'audit'"),
    (["verify", "--fast"], "No such option: --fast"),
    (["verify", "now"], "unexpected extra argument"),
    (["verify", "--store"], "requires an argument"),
    (["verify", "--store", "ledger.db"], "a store is written sqlite:PATH"),
    (["verify", "--store", "sqlite:"], "a store is written sqlite:PATH"),
    (["verify", "--store", "mysql://root:secret@db"], "a store is written sqlite:PATH"),
    (["verify", "--store", "sqlite:///ledger.db"], "without slashes before the path"),
    (["verify", "--store", "postgresql://root:secret@db/ledger"], "no PostgreSQL engine yet"),
    (["keys", "issue", "--account", "a", "--contract", "chunkr", "--store", "postgresql://h"], "no PostgreSQL"),
    (["keys"], "Missing command"),
    (["keys", "burn"], "No such command 'burn'"),
    (["keys", "issue", "--account", "a"], "Missing option '--contract'"),
    (["keys", "issue", "--contract", "chunkr"], "Missing option '--account'"),
    (["keys", "issue", "--account", "a", "--contract", "openai"], "'openai' is not one of 'lemondata'"),
    (["keys", "issue", "--account", "a", "--contract", "chunkr", "--role", "root"], "'--role': 'root' is not one of"),
    (["keys", "issue", "--account", "a", "--contract", "ledger", "--role", "client"], "worker or operator"),
    (
        ["keys", "issue", "--account", "a", "--contract", "beatra", "--role", "worker"],
        "has clients only",
    ),
    (["keys", "issue", "--account", "a", "--contract", "chunkr", "--role", "operator"], "has clients only"),
    (["verify", "--store", "sqlite::memory:"], "a ledger lies in a file"),
    (["keys", "issue", "--account", "", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "a" * 129, "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "a b", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "a\x1b[m", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "a\udcff", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "a\u00a0b", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "issue", "--account", "acm\u00e9", "--contract", "chunkr"], "1 to 128 visible characters"),
    (["keys", "revoke"], "Missing argument"),
    (["keys", "revoke", "nobody"], "no live key 'nobody': `task-ledger keys list` shows those there are"),
    (["keys", "rotate", "nobody"], "no live key 'nobody'"),
    (["keys", "rotate", "nobody", "--overlap", "soon"], "'--overlap'"),
    (["keys", "rotate", "nobody", "--overlap", "-1"], "'--overlap'"),
    (["keys", "rotate", "nobody", "--overlap", str(10**12)], "'--overlap'"),
    (["trace"], "Missing argument"),
    (["trace", "task_1"], "is no task id in any spelling"),
    (["trace", UUID.replace("-", "")], "is no task id in any spelling"),
    (["trace", Spelling.UUID.spell(ident(999))], "there is no task"),
    (["tail", "--type", "exploded"], "no event has this type"),
    (["serve", "--config", "none.toml"], "'--config': none.toml: No such file or directory"),
    (["accounts", "show", "--config", "none.toml"], "'--config': none.toml: No such file or directory"),
    (["reconcile", "--config", "none.toml"], "'--config': none.toml: No such file or directory"),
    (["tail", "--last", "-1"], "'--last'"),
    (["tail", "--last", "many"], "'--last'"),
    (["tail", "--from", "garbage"], "no cursor of this log"),
    (["tail", "--from", "gärbage"], "no cursor of this log"),
    (["tail", "--from", position_cursor("0123456789abcdef", 1)], "no cursor of this log"),
]


@pytest.mark.parametrize(("arguments", "fragment"), WRONG, ids=lambda value: str(value)[:50].encode("ascii", "replace"))
def test_wrong_use_is_one_line_and_ends_in_two(shell: Shell, path: Path, arguments: list[str], fragment: str) -> None:
    before = path.read_bytes()
    ended = shell(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("task-ledger: ")
    assert fragment in ended.err
    assert "secret" not in ended.err.replace("callback-secret-rotated", "")  # the name of an event
    assert path.read_bytes() == before


def test_nothing_typed_in_is_answered_with_the_help_and_is_wrong_use(shell: Shell) -> None:
    ended, told = shell(), shell("--help")
    assert (ended.code, told.code) == (2, 0)
    assert ended.out == told.out
    assert all(f" {verb} " in ended.out for verb in VERBS)


def test_a_cursor_beyond_the_end_of_the_log_is_refused(shell: Shell, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        (log_id,) = db.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()
    ended = shell("tail", "--from", position_cursor(log_id.decode(), 10_000))
    assert ended.code == 2
    assert "the log ends at" in ended.err


FOREIGN = {  # what the store may be instead of a ledger, and what is said of it, at least by some verbs
    "missing": "no ledger at",
    "in a missing folder": "",
    "a folder": "",
    "a letter": "is not a ledger",
    "another program's": "is not a ledger",
    "newer": "use a newer task-ledger",
    "empty": "",
    "torn": "",
}
READS = [["verify"], ["tail"], ["trace", UUID], ["keys", "list"]]
CHANGES = [["keys", "revoke", "k"], ["keys", "rotate", "k"]]
ISSUE = ["keys", "issue", "--account", "a", "--contract", "chunkr"]


def put_foreign(kind: str, path: Path, original: Path) -> Path:
    """Put it at *path*; where it lies then."""
    match kind:
        case "in a missing folder":
            return path / "ledger.db"
        case "a folder":
            path.mkdir()
        case "a letter":
            path.write_text("Dear ledger,\n" * 1000)
        case "another program's":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE t (x)")
        case "newer":
            path.write_bytes(original.read_bytes())
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA user_version = 99")
        case "empty":
            path.touch()
        case "torn":
            path.write_bytes(original.read_bytes()[:4096])
    return path


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (kind, arguments)
        for kind in FOREIGN
        for arguments in [*READS, *CHANGES, ISSUE]
        if arguments is not ISSUE or kind not in {"missing", "empty"}  # of these it makes a ledger
    ],
)
def test_what_is_no_ledger_is_one_line_and_ends_in_three(
    shell: Shell, original: Path, tmp_path: Path, kind: str, arguments: list[str]
) -> None:
    path = put_foreign(kind, tmp_path / "foreign.db", original)
    before = path.read_bytes() if path.is_file() else None
    ended = shell(*arguments, "--store", f"sqlite:{path}")
    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1), ended
    assert FOREIGN[kind] in ended.err
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    ("arguments", "damage"),
    [
        (["tail"], "data = '{'"),
        (["tail", "--json"], "data = '[]'"),
        (["tail", "--json"], "payload = x'00'"),
        (["tail"], "data = CAST(x'ff' AS TEXT)"),
        (["trace", UUID], "data = '{}'"),
        (["trace", UUID, "--json"], "data = '{}'"),
        (["trace", UUID], "data = CAST(x'ff' AS TEXT)"),
    ],
)
def test_an_event_that_cannot_be_read_is_one_line_and_ends_in_three(
    shell: Shell, path: Path, tmp_path: Path, arguments: list[str], damage: str
) -> None:
    with stored.broken(path, tmp_path / "bad.db") as db:
        db.execute(f"UPDATE events SET {damage} WHERE task = ? AND version = 2", (TASK,))  # noqa: S608
    ended = shell(*arguments, "--store", f"sqlite:{tmp_path / 'bad.db'}")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "be read" in ended.err


def test_a_reader_who_leaves_ends_it_quietly(path: Path) -> None:
    tail = program("tail", "--json")
    assert tail.stdout is not None
    assert tail.stdout.readline()
    tail.stdout.close()
    assert tail.wait() == 141
    assert tail.stderr is not None
    assert tail.stderr.read() == ""
    tail.stderr.close()
    assert path.exists()


@pytest.mark.parametrize("event_changed", [False, True])
def test_a_reader_who_has_left_before_the_first_line_is_nothing_worse(
    path: Path, tmp_path: Path, *, event_changed: bool
) -> None:
    with stored.broken(path, tmp_path / "copy.db") as db:
        db.execute("UPDATE events SET actor = 'somebody' WHERE ?", (event_changed,))
    reading, writing = os.pipe()
    os.close(reading)
    ended = program("verify", "--json", "--store", f"sqlite:{tmp_path / 'copy.db'}", stdout=writing)
    os.close(writing)
    assert ended.communicate()[1] == ""
    assert ended.returncode == 141


def test_a_time_out_of_every_calendar_is_printed_as_it_stands(shell: Shell, path: Path, tmp_path: Path) -> None:
    with stored.broken(path, tmp_path / "bad.db") as db:
        db.execute("UPDATE events SET recorded_at = 1 << 62, effective_at = -(1 << 62)")
    bad = ("--store", f"sqlite:{tmp_path / 'bad.db'}")
    assert f"{1 << 62}us" in shell("tail", *bad).out
    assert f"{-1 << 62}us" in shell("trace", UUID, *bad).out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(shell: Shell, verb: str) -> None:
    ended = shell(verb, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"Usage: task-ledger {verb} " in ended.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_module_too(verb: str) -> None:
    out, err = program("--help", module=f"scripts.{verb}").communicate()
    assert err == ""
    assert f"Usage: task-ledger {verb} " in out


def test_help_names_every_verb(shell: Shell) -> None:
    ended = shell("--help")
    assert ended.code == 0
    assert all(f"│ {verb} " in ended.out for verb in VERBS)


def test_reading_verbs_do_not_load_the_service(path: Path) -> None:
    loaded = "import sys; from scripts.cli import app, run; run(app, ['keys', 'list']); print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert path.exists()

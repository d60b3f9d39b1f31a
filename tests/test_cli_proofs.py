"""The verbs of proofs, as they are typed in: `checkpoint`, `prove`, and `verify --checkpoint`."""

import io
import json
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ledger.ids import Spelling
from ledger.notes import checkpoint_in, signer_key
from scripts import progress
from tests import stored
from tests.builders import ident
from tests.test_cli import Ended, Shell

UUID = Spelling.UUID.spell(ident(0))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{copy}")
    monkeypatch.chdir(tmp_path)
    return copy


@pytest.fixture
def shell(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert path.exists()
    return Shell(capsys)


@pytest.fixture
def key(shell: Shell) -> str:
    """The verifier key of a key that has just been made."""
    return shell("checkpoint", "--verifier-key").out.strip()


def grown(shell: Shell, name: str = "later") -> None:
    """Append an event."""
    assert shell("keys", "issue", "--account", name, "--contract", "chunkr").code == 0


# checkpoint


def test_the_first_checkpoint_makes_a_key_for_its_owner_alone(shell: Shell, path: Path) -> None:
    ended = shell("checkpoint")
    key_path, kept = path.with_name("ledger.db.checkpoint-key"), path.with_name("ledger.db.checkpoint")
    with closing(sqlite3.connect(path)) as db:
        ((log_id, size),) = db.execute("SELECT value, position FROM meta, lanes WHERE name = 'log_id'").fetchall()
    told = checkpoint_in(ended.out)
    assert (ended.code, told.origin, told.tree.size) == (0, f"task-ledger/{log_id.decode()}", size)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert kept.read_text() == ended.out
    signer = signer_key(key_path.read_text().strip())
    assert str(signer.verifier) in ended.err
    assert signer.secret_text not in ended.err + ended.out
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, kept.name, key_path.name]


def test_the_private_key_is_nowhere_in_the_ledger(shell: Shell, path: Path) -> None:
    shell("checkpoint")
    grown(shell)
    shell("checkpoint")
    signer = signer_key(path.with_name("ledger.db.checkpoint-key").read_text().strip())
    for one in (signer.seed, signer.seed.hex().encode(), signer.secret_text.encode()):
        assert all(one not in file.read_bytes() for file in path.parent.glob("ledger.db*") if "-key" not in file.name)


def test_the_same_log_gives_the_same_note(shell: Shell, key: str) -> None:
    first = shell("checkpoint")
    assert first.err == ""
    assert shell("checkpoint") == first
    assert shell("checkpoint", "--output", "note").out == ""
    assert Path("note").read_text() == first.out
    (told,) = shell("checkpoint", "--json").objects
    size, root = first.out.splitlines()[1:3]
    assert told == {
        "origin": key.partition("+")[0],
        "size": int(size),
        "root": root,
        "note": first.out,
        "verifier_key": key,
    }
    assert shell("checkpoint", "--json", "--verifier-key").objects == [{"origin": told["origin"], "verifier_key": key}]


def test_a_key_may_lie_elsewhere_and_call_the_log_as_one_likes(shell: Shell, path: Path) -> None:
    note = shell("checkpoint", "--key", "k", "--origin", "example.com/ledger").out
    assert note.startswith("example.com/ledger\n")
    assert Path("k").exists()
    assert not path.with_name("ledger.db.checkpoint-key").exists()
    assert shell("checkpoint", "--key", "k").out == note
    ended = shell("checkpoint", "--key", "k", "--origin", "example.com/other")
    assert (ended.code, "is of example.com/ledger" in ended.err) == (2, True)


def test_a_log_that_does_not_extend_what_was_signed_is_not_signed(shell: Shell, path: Path) -> None:
    before = path.read_bytes()
    grown(shell)
    note = shell("checkpoint").out
    path.write_bytes(before)
    ended = shell("checkpoint")
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "nothing is signed: the log ends at" in ended.err
    grown(shell, "another")
    ended = shell("checkpoint")
    assert (ended.code, ended.out) == (1, "")
    assert "is not the one that the checkpoint of size" in ended.err
    assert path.with_name("ledger.db.checkpoint").read_text() == note


def test_a_broken_log_is_not_signed(shell: Shell, path: Path, tmp_path: Path) -> None:
    with stored.broken(path, tmp_path / "bad.db") as db:
        db.execute("UPDATE events SET actor = 'mallory' WHERE position = 7")
    ended = shell("checkpoint", "--store", f"sqlite:{tmp_path / 'bad.db'}")
    assert (ended.code, ended.out) == (3, "")
    assert "the log is broken at position 7" in ended.err


def test_what_was_appended_since_is_in_the_next_checkpoint(shell: Shell) -> None:
    first = shell("checkpoint").out
    grown(shell)
    second = shell("checkpoint").out
    assert checkpoint_in(second).tree.size == checkpoint_in(first).tree.size + 1


# prove, and its check


def proven(shell: Shell, *arguments: str) -> Ended:
    return shell("prove", "--check", "proof", *arguments)


def test_a_task_is_proven_by_one_file_and_the_verifier_key(
    shell: Shell, path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("checkpoint")
    assert shell("prove", UUID, "--output", "proof") == (0, "", "")
    rows = shell("trace", UUID, "--json").objects
    for one in path.parent.glob("ledger.db*"):
        one.unlink()
    monkeypatch.delenv("TASK_LEDGER_STORE")
    ended = proven(shell, "--key", key)
    assert (ended.code, ended.err) == (0, "")
    assert f"proven: {len(rows)} events in the log task-ledger/" in ended.out
    (told,) = proven(shell, "--key", key, "--json").objects
    assert (told["proven"], told["earlier"]) == (True, None)
    shared = told["events"][0].keys()
    assert told["events"] == [{name: row[name] for name in shared} for row in rows]
    assert {*rows[0]} - {*shared} == {"cursor", "payload", "erased", "elapsed_seconds", "status", "state"}


def test_a_position_is_proven_too(shell: Shell, key: str) -> None:
    shell("checkpoint")
    Path("proof").write_text(shell("prove", "1").out)
    assert "proven: 1 event in the log" in proven(shell, "--key", key).out
    assert proven(shell, "--key", key, "--json").objects[0]["events"][0]["type"] == "key-issued"


def test_that_the_log_only_grew_is_proven_from_a_note_that_was_kept(shell: Shell, path: Path, key: str) -> None:
    shell("checkpoint", "--output", "old")
    grown(shell)
    shell("checkpoint")
    assert shell("prove", "--from", "old", "--output", "proof").code == 0
    ended = proven(shell, "--key", key, "--from", "old")
    old, new = checkpoint_in(Path("old").read_text()), checkpoint_in(path.with_name("ledger.db.checkpoint").read_text())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"proven: the log {old.origin} of size {new.tree.size}, root {new.root_text} "
        f"extends that {old.origin} of size {old.tree.size}, root {old.root_text}\n"
    )
    shell("checkpoint", "--output", "new")
    assert shell("prove", "1", "--from", "old", "--checkpoint", "new", "--output", "proof").code == 0
    (told,) = proven(shell, "--key", key, "--json").objects
    assert (told["earlier"]["size"], len(told["events"])) == (old.tree.size, 1)
    ended = proven(shell, "--key", key, "--from", "new")
    assert (ended.code, ended.out[:11]) == (1, "NOT PROVEN:")


def test_what_is_not_proven_ends_in_one(shell: Shell, key: str) -> None:
    shell("checkpoint")
    told = json.loads(shell("prove", UUID).out)
    told["events"][0]["account"] = "somebody"
    Path("proof").write_text(json.dumps(told))
    ended = proven(shell, "--key", key)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("NOT PROVEN: the event is not shown to stand at position ")
    ended = proven(shell, "--key", key, "--json")
    assert (ended.code, ended.objects[0]["proven"]) == (1, False)
    Path("proof").write_text("Dear customer")
    assert proven(shell, "--key", key).code == 1


def test_an_event_beyond_the_checkpoint_cannot_be_proven_yet(shell: Shell) -> None:
    size = checkpoint_in(shell("checkpoint").out).tree.size
    grown(shell)
    ended = shell("prove", str(size + 1))
    assert (ended.code, ended.out) == (1, "")
    assert f"position {size + 1} lies beyond the checkpoint, which has size {size}" in ended.err


# verify --checkpoint


def test_a_log_that_extends_its_checkpoints_is_clean(shell: Shell, key: str) -> None:
    shell("checkpoint", "--output", "one")
    grown(shell)
    shell("checkpoint", "--output", "two")
    ended = shell("verify", "--checkpoint", "one", "--checkpoint", "two", "--key", key)
    sizes = [checkpoint_in(Path(name).read_text()).tree.size for name in ("one", "two")]
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[1:] == [f"extends the checkpoint of size {size}" for size in sizes]
    assert shell("verify", "--checkpoint", "two", "--key", key, "--json").objects[0]["found"] == 0


def test_a_log_whose_end_was_cut_off_is_found_with_a_checkpoint_and_not_without(
    shell: Shell, path: Path, key: str
) -> None:
    before = path.read_bytes()
    grown(shell)
    size = checkpoint_in(shell("checkpoint", "--output", "note").out or Path("note").read_text()).tree.size
    path.write_bytes(before)
    assert shell("verify").code == 0
    ended = shell("verify", "--checkpoint", "note", "--key", key)
    assert (ended.code, ended.err) == (1, "")
    assert f"the log ends at {size - 1}, and a checkpoint is of size {size}: its end has been cut off" in ended.out
    assert ended.out.splitlines()[-1] == f"first bad position: {size}"
    (told,) = shell("verify", "--checkpoint", "note", "--key", key, "--json").objects
    assert told["findings"][0]["check"] == "checkpoint"


# How things end

KEY = "example.com/x+2c54a1f2+AXOrjPnXGbcYQt7h8ERNkeHNH3824pF1XBGW6AQWtkXP"
WRONG = [
    (["checkpoint", "--origin", "a b"], "neither spaces nor a plus"),
    (["checkpoint", "--key", "nowhere/k"], "cannot write nowhere/k: No such file"),
    (["checkpoint", "--key", "letter"], "letter: this is no private key of notes"),
    (["checkpoint", "--key", "bytes"], "bytes is no text"),
    (["checkpoint", "--key", "."], "cannot read .: Is a directory"),
    (["checkpoint", "--output", "nowhere/note"], "cannot write nowhere/note"),
    (["checkpoint", "now"], "unexpected extra argument"),
    (["prove"], "name a task, a position, or --from a checkpoint"),
    (["prove", "1", "--checkpoint", "nowhere"], "cannot read nowhere: No such file"),
    (["prove", "1", "--checkpoint", "letter"], "this is no signed note"),
    (["prove", "--from", "letter", "--checkpoint", "letter"], "this is no signed note"),
    (["prove", "1"], "sign one first: task-ledger checkpoint"),
    (["prove", "1", "--key", KEY], "a key checks, it does not prove"),
    (["prove", "1", "--check", "letter"], "a proof is checked with --key"),
    (["prove", "--check", "letter"], "name the verifier key"),
    (["prove", "--check", "letter", "--key", "k"], "'--key': 'k': this is no Ed25519 key"),
    (["prove", "--check", "letter", "--key", KEY], "another id than its name and bytes give"),
    (["verify", "--checkpoint", "letter"], "name the verifier key"),
    (["verify", "--key", KEY], "there is a key, and no --checkpoint"),
]


@pytest.mark.parametrize(("arguments", "fragment"), WRONG)
def test_wrong_use_is_one_line_and_ends_in_two(shell: Shell, path: Path, arguments: list[str], fragment: str) -> None:
    letter, raw = Path("letter"), Path("bytes")
    letter.write_text("Dear ledger,\n")
    letter.chmod(0o600)
    raw.write_bytes(b"\xff")
    before = path.read_bytes()
    ended = shell(*arguments)
    lines = [line for line in ended.err.splitlines() if "a new key is in" not in line]
    assert (ended.code, ended.out, len(lines)) == (2, "", 1)
    assert fragment in lines[0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", [UUID.replace("0", "f"), "task_1", "0", "-1", "1.0", "01"])
def test_what_is_neither_a_task_nor_a_position_is_not_proven(shell: Shell, what: str) -> None:
    shell("checkpoint")
    ended = shell("prove", "--", what)
    assert (ended.code, ended.out) == (2, "")
    assert "there is no task" in ended.err


def test_notes_of_another_key_are_not_taken(shell: Shell, key: str) -> None:
    assert key
    shell("checkpoint", "--output", "note")
    other = shell("checkpoint", "--key", "k", "--verifier-key").out.strip()
    for arguments in (
        ["verify", "--checkpoint", "note", "--key", other],
        ["prove", "--check", "note", "--key", other, "--from", "note"],
        ["checkpoint", "--key", "k"],
    ):
        ended = shell(*arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert "is not signed by" in ended.err


def test_a_key_that_others_may_read_is_refused(shell: Shell, path: Path, key: str) -> None:
    assert key
    path.with_name("ledger.db.checkpoint-key").chmod(0o640)
    ended = shell("checkpoint")
    assert (ended.code, ended.out) == (2, "")
    assert "others may read" in ended.err


@pytest.mark.parametrize("arguments", [["checkpoint"], ["prove", "1", "--checkpoint", "note"]])
def test_where_there_is_no_ledger_it_ends_in_three(shell: Shell, arguments: list[str]) -> None:
    shell("checkpoint", "--output", "note")
    ended = shell(*arguments, "--store", "sqlite:nowhere.db")
    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert not list(Path().glob("nowhere*"))


@pytest.mark.parametrize("arguments", [["checkpoint"], ["prove", "1"]])
def test_a_bar_shows_how_far_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shell("checkpoint")
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert shell(*arguments).code == 0
    assert arguments[0] in terminal.getvalue()

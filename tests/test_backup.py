"""Backup, restore and drill: what is copied is of one moment and whole, what is restored is verified or not there."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger import sqlite_copies
from ledger.cursors import position_cursor
from ledger.errors import StorageError
from ledger.ids import Spelling
from ledger.keyring import Keyring
from ledger.keys import Role, parse
from ledger.lineage import Ancestor, encode
from ledger.records import ClaimRow, Recorded, TaskFilter
from ledger.seals import KEY_BYTES
from ledger.sqlite import open_to_serve
from projections.audit.audit import audit
from projections.audit.findings import Report
from scripts import restore as restoring
from scripts.restore import restore_to
from tests import stored
from tests.builders import ACCOUNT, complete, create, delete, ident, start
from tests.test_cli import Ended, Shell

TABLES = ("events", "tasks", "claims", "keys", "accounts", "seals", "lanes")


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
    return copy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup" / "backup.db"


@pytest.fixture
def shell(path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert path.exists()
    file.parent.mkdir()
    return Shell(capsys)


@pytest.fixture
def backed_up(shell: Shell, file: Path) -> Path:
    assert shell("backup", "--output", str(file)).code == 0
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "restored" / "ledger.db"


@pytest.fixture
def restored(shell: Shell, backed_up: Path, target: Path) -> Path:
    ended = restore(shell, backed_up, target)
    assert ended.code == 0, ended
    return target


def restore(shell: Shell, source: Path, target: Path, *options: str) -> Ended:
    target.parent.mkdir(exist_ok=True)
    return shell("restore", str(source), "--store", f"sqlite:{target}", *options)


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)  # noqa: S608 - one of ours


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows(path, table) for table in TABLES}


def log_id(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return bytes(db.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()[0]).decode()


def events(path: Path) -> list[Recorded]:
    async def read() -> list[Recorded]:
        async with stored.reading(path) as engine:
            return await engine.after(0, 1_000_000)

    return asyncio.run(read())


def audited(path: Path) -> Report:
    async def read() -> Report:
        async with stored.reading(path) as engine:
            return await audit(engine)

    return asyncio.run(read())


# Backup


def test_a_backup_is_the_store_row_for_row_and_clean(path: Path, backed_up: Path) -> None:
    assert tables(backed_up) == tables(path)
    assert audited(backed_up) == audited(path)
    assert log_id(backed_up) == log_id(path)


def test_a_backup_says_where_its_log_ends(shell: Shell, path: Path, file: Path) -> None:
    (told,) = shell("backup", "--output", str(file), "--json").objects
    report = audited(path)
    assert (told["position"], told["head"], told["log_id"]) == (report.position, report.head, log_id(path))
    assert (told["file"], told["bytes"]) == (str(file), file.stat().st_size)


def test_a_backup_is_one_file_for_its_owner_alone(backed_up: Path) -> None:
    assert [one.name for one in backed_up.parent.iterdir()] == ["backup.db"]
    assert stat.S_IMODE(backed_up.stat().st_mode) == 0o600


def test_a_backup_can_be_read_where_nothing_can_be_written(backed_up: Path) -> None:
    with closing(sqlite3.connect(f"{backed_up.as_uri()}?immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert db.execute("SELECT count(*) FROM events").fetchone() == (len(events(backed_up)),)


@pytest.mark.parametrize("content", [b"", b"mine"])
def test_a_backup_overwrites_nothing(shell: Shell, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    ended = shell("backup", "--output", str(file))
    assert (ended.code, file.read_bytes()) == (2, content)
    assert "is there already: name a new file" in ended.err
    assert [one.name for one in file.parent.iterdir()] == ["backup.db"]


def test_a_file_that_somebody_else_makes_meanwhile_is_not_overwritten_either(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_copies, "sync", lambda _: file.write_bytes(b"theirs"))
    ended = shell("backup", "--output", str(file))
    assert (ended.code, file.read_bytes()) == (3, b"theirs")
    assert [one.name for one in file.parent.iterdir()] == ["backup.db"]


def test_a_backup_that_fails_halfway_leaves_nothing(shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise StorageError("the disk failed")

    monkeypatch.setattr(sqlite_copies, "sync", fail)
    assert shell("backup", "--output", str(file)) == Ended(3, "", "task-ledger: the disk failed\n")
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("leads_to", ["nothing", "an empty file"])
def test_a_link_is_not_replaced_by_a_store(shell: Shell, backed_up: Path, target: Path, leads_to: str) -> None:
    target.parent.mkdir()
    meant = target.with_name("elsewhere.db")
    if leads_to == "an empty file":
        meant.touch()
    target.symlink_to(meant)
    ended = shell("restore", str(backed_up), "--store", f"sqlite:{target}")
    assert (ended.code, target.is_symlink()) == (2, True)
    assert "is a link: name the file that it leads to" in ended.err
    assert shell("restore", str(backed_up), "--store", f"sqlite:{meant}").code == 0
    assert audited(target).found == 0


def test_a_store_of_which_a_part_lies_beside_it_gets_no_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in a write-ahead log would not go along with the file, and closing does not tell that it does."""
    monkeypatch.setattr(sqlite_copies, "BUSY_TIMEOUT_SECONDS", 0)
    named = {"log_id": "0" * 16, "lineage": (), "pepper": bytes(32)}
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM meta").fetchone()
        with pytest.raises(StorageError, match="has it open"):
            sqlite_copies.begin_epoch(path, **named)  # type: ignore[arg-type]
    sqlite_copies.begin_epoch(path, **named)  # type: ignore[arg-type]
    alone = path.with_name("alone.db")
    alone.write_bytes(path.read_bytes())
    assert log_id(alone) == "0" * 16


def test_the_file_and_its_folder_are_synced_before_it_is_told(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []
    sync = os.fsync

    def watch(fd: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(fd).st_mode), file.exists()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", watch)
    shell("backup", "--output", str(file))
    assert synced == [(False, False), (True, True)]


NO_LEDGERS = [
    (lambda path: path.unlink(), "no ledger at"),
    (lambda path: path.write_bytes(b""), "is not a ledger"),
    (lambda path: path.write_text("no database at all" * 100), ": file is not a database"),
]


@pytest.mark.parametrize(("spoil", "told"), NO_LEDGERS)
def test_what_is_no_ledger_is_neither_backed_up_nor_restored(
    *, shell: Shell, path: Path, file: Path, target: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(path)
    for ended in (shell("backup", "--output", str(file)), restore(shell, path, target)):
        assert ended.code == 3
        assert told in ended.err
    assert not file.exists()
    assert not target.exists()


async def test_r12_a_backup_under_load_is_of_one_moment_and_what_follows_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer goes on while the pages are copied one by one; what is copied is the log as it was at the beginning."""
    path, file = tmp_path / "ledger.db", tmp_path / "backup.db"
    monkeypatch.setattr(sqlite_copies, "STEP_PAGES", 1)
    async with stored.serving(path) as ledger:
        await stored.fill(ledger.engine)
        before = await ledger.engine.head()
        loop, done = asyncio.get_running_loop(), 0

        def write(_: int, __: int) -> None:
            nonlocal done
            done += 1
            asyncio.run_coroutine_threadsafe(ledger.handle(create(ident(1000 + done))), loop).result()

        file.touch()
        end = await asyncio.to_thread(sqlite_copies.copy, path, file, at_rest=False, progress=write)
        assert (end.position, end.hash) == (before.position, before.hash)
        assert done > 10
        assert (await ledger.engine.head()).position == before.position + 2 * done
    async with stored.reading(file) as engine:
        report = await audit(engine)
        assert (report.found, report.position) == (0, before.position)


# Erasure

SECRET = "a very particular harbour"


@pytest.fixture
def erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, bytes]:
    """A store in which a task was erased, a backup from before that, and the key that was destroyed."""
    path, before = tmp_path / "erased.db", tmp_path / "before.db"
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{path}")

    async def make() -> bytes:
        async with stored.serving(path) as ledger:
            await ledger.handle(create(ident(1), input={"prompt": SECRET}))
            await ledger.handle(create(ident(2), input={"prompt": "another"}))
            await ledger.handle(start(ident(1)))
            await ledger.handle(complete(ident(1)))
            key = (await ledger.engine.tasks([ident(1)]))[ident(1)].seal_key
            assert key is not None
            before.touch()
            await asyncio.to_thread(sqlite_copies.copy, path, before, at_rest=False, progress=lambda *_: None)
            await ledger.handle(delete(ident(1)))
            return key

    key = asyncio.run(make())
    assert len(key) == KEY_BYTES
    return path, before, key


def test_a_backup_that_is_made_after_an_erasure_has_neither_the_text_nor_its_key(
    erased: tuple[Path, Path, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before, key = erased
    file, target = tmp_path / "after.db", tmp_path / "restored.db"
    shell = Shell(capsys)
    assert shell("backup", "--output", str(file)).code == 0
    assert restore(shell, file, target).code == 0
    for made in (file, target):
        assert key not in made.read_bytes()
        assert SECRET.encode() not in made.read_bytes()
        assert audited(made).found == 0
    assert key in before.read_bytes(), "one from before has it, and is to expire"
    assert next(row.seal_key for row in events(path) if row.stream == ident(1)) is None


def test_what_was_erased_after_the_cut_stays_erased_and_is_deleted_again(
    erased: tuple[Path, Path, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before, _ = erased
    log = events(path)
    assert log[-1].entry.type == "deleted"
    target, shell = tmp_path / "restored.db", Shell(capsys)
    (told,) = restore(shell, path, target, "--until", str(len(log) - 1), "--json").objects
    assert (told["position"], told["left_out"], told["erased_again"]) == (len(log), 1, 1)
    again = events(target)[-1]
    assert (again.entry.type, again.stream, again.entry.actor) == ("deleted", ident(1), "restore")
    assert again.entry.effective_at_us == log[-1].entry.effective_at_us
    assert audited(target).found == 0
    name = log_id(path)
    for position, code in ((len(log) - 1, 0), (len(log), 2)):
        assert shell("tail", "--store", f"sqlite:{target}", "--from", position_cursor(name, position)).code == code
    other = tmp_path / "other.db"
    assert restore(shell, before, other, "--until", str(len(log) - 1)).code == 0
    assert not any(row.is_erased for row in events(other)), "a backup from before has the content"


def test_a_place_where_a_task_was_not_over_that_was_erased_later_is_refused(
    erased: tuple[Path, Path, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, _ = erased
    target, shell = tmp_path / "restored.db", Shell(capsys)
    ended = restore(shell, path, target, "--until", "1")
    assert ended.code == 2
    assert f"at 1 task {Spelling.UUID.spell(ident(1))} was queued, its content was erased at" in ended.err
    assert not target.exists()


def test_a_place_between_the_outcome_of_such_a_task_and_its_money_is_refused(
    erased: tuple[Path, Path, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, _ = erased
    (over,) = [row.position for row in events(path) if (row.stream, row.entry.type) == (ident(1), "completed")]
    target, shell = tmp_path / "restored.db", Shell(capsys)
    ended = restore(shell, path, target, "--until", str(over))
    assert ended.code == 2
    assert f"at {over} task {Spelling.UUID.spell(ident(1))} was being settled (money is still held" in ended.err
    assert not target.exists()


def test_a_key_that_was_lost_and_not_erased_is_a_finding(
    shell: Shell, path: Path, target: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.db"
    with stored.broken(path, bad) as db:
        db.execute("DELETE FROM seals")
    for options in ((), ("--until", str(len(events(path)) - 1))):
        ended = restore(shell, bad, target, *options)
        assert ended.code == 1
        assert "the key of its content is not there, and nobody deleted it" in ended.out
        assert not target.exists()


# Restore


def test_a_restored_store_is_the_same_log_under_another_name(path: Path, restored: Path) -> None:
    assert tables(restored) == tables(path)
    assert audited(restored) == audited(path)
    assert log_id(restored) != log_id(path)


def test_a_restored_store_is_served_in_wal_and_opens_for_the_same_keys(path: Path, restored: Path) -> None:
    async def issue() -> str:
        async with stored.serving(path) as ledger:
            new = await ledger.keys.issue(account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="test", at_us=1)
            return new.key

    key = parse(asyncio.run(issue()))
    assert key is not None

    async def opens() -> bool:
        engine = await open_to_serve(restored.with_name("again.db"))
        try:
            assert engine._writer is not None
            assert list(await engine._writer.execute_fetchall("PRAGMA journal_mode")) == [("wal",)]
            return await Keyring(engine).holder(key, at_us=1) is not None
        finally:
            await engine.close()

    asyncio.run(restore_to(path, restored.with_name("again.db")))
    assert asyncio.run(opens())


def test_a_backup_that_is_put_in_place_by_hand_is_served_in_wal_too(backed_up: Path) -> None:
    async def mode() -> list[sqlite3.Row]:
        engine = await open_to_serve(backed_up)
        try:
            assert engine._writer is not None
            return list(await engine._writer.execute_fetchall("PRAGMA journal_mode"))
        finally:
            await engine.close()

    assert asyncio.run(mode()) == [("wal",)]


def test_the_source_is_not_touched(shell: Shell, backed_up: Path, target: Path) -> None:
    before = backed_up.read_bytes(), backed_up.stat().st_mtime_ns
    restore(shell, backed_up, target, "--until", "20")
    assert (backed_up.read_bytes(), backed_up.stat().st_mtime_ns) == before
    assert [one.name for one in backed_up.parent.iterdir()] == ["backup.db"]


@pytest.mark.parametrize("named", ["ledger.db", "current.db"])
def test_a_store_left_by_a_power_cut_is_restored_with_what_is_in_its_write_ahead_log(
    shell: Shell, path: Path, target: Path, tmp_path: Path, *, named: str
) -> None:
    """Copied as it lies there while it is open, which is what a power cut leaves. A link may lead to it as well."""
    left = tmp_path / "left" / "ledger.db"
    left.parent.mkdir()
    left.with_name("current.db").symlink_to("ledger.db")

    async def cut() -> None:
        async with stored.serving(path) as ledger:
            await ledger.handle(create(ident(500)))
            for end in ("", "-wal"):
                left.with_name(left.name + end).write_bytes(path.with_name(path.name + end).read_bytes())

    asyncio.run(cut())
    wal = left.with_name("ledger.db-wal").read_bytes()
    assert restore(shell, left.with_name(named), target).code == 0
    assert tables(target) == tables(path)
    assert left.with_name("ledger.db-wal").read_bytes() == wal


def test_a_restore_wants_a_place_where_there_is_nothing(shell: Shell, backed_up: Path, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"mine")
    ended = restore(shell, backed_up, target)
    assert (ended.code, target.read_bytes()) == (2, b"mine")
    assert "there is something at" in ended.err
    target.write_bytes(b"")
    assert restore(shell, backed_up, target).code == 0


def test_a_write_ahead_log_of_another_file_would_be_read_into_the_restored_one_and_is_refused(
    shell: Shell, backed_up: Path, target: Path
) -> None:
    target.parent.mkdir()
    target.with_name("ledger.db-wal").write_bytes(b"of another")
    ended = restore(shell, backed_up, target)
    assert ended.code == 2
    assert "ledger.db-wal is there, of a file that is not" in ended.err
    assert not target.exists()


async def test_a_place_that_is_being_served_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "served.db"
    async with stored.serving(target):
        with pytest.raises(restoring.CannotRestore, match="there is something at"):
            await restore_to(path, target)


def test_what_is_not_clean_is_told_and_not_restored(shell: Shell, path: Path, target: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    with stored.broken(path, bad) as db:
        db.execute(
            "UPDATE events SET amount_micros = amount_micros + 1 WHERE position = 30 OR amount_micros = 10000000"
        )
    ended = restore(shell, bad, target)
    assert ended.code == 1
    assert "not clean" in ended.out
    assert "first bad position" in ended.out
    assert [one.name for one in target.parent.iterdir()] == ["ledger.db.lock"]
    (told,) = restore(shell, bad, target, "--json").objects
    assert (told["restored"], told["log_id"], told["report"]["found"] > 0) == (False, None, True)


# Up to a position


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.33, 0.5, 0.77, 0.99])
def test_a_restore_up_to_a_position_is_the_log_up_to_there_with_rows_that_follow_from_it(
    shell: Shell, backed_up: Path, target: Path, share: float
) -> None:
    log = events(backed_up)
    until = int(len(log) * share)
    (told,) = restore(shell, backed_up, target, "--until", str(until), "--json").objects
    assert (told["restored"], told["position"], told["left_out"]) == (True, until, len(log) - until)
    assert [row.hash for row in events(target)] == [row.hash for row in log[:until]]
    report = audited(target)
    assert (report.found, report.position, report.findings) == (0, until, ())


def test_a_restore_up_to_the_end_is_one_of_the_whole(shell: Shell, backed_up: Path, target: Path) -> None:
    assert restore(shell, backed_up, target, "--until", str(len(events(backed_up)))).code == 0
    assert tables(target) == tables(backed_up)


def test_a_position_beyond_the_end_is_refused(shell: Shell, backed_up: Path, target: Path) -> None:
    end = len(events(backed_up))
    ended = restore(shell, backed_up, target, "--until", str(end + 1))
    assert ended.code == 2
    assert f"the log ends at position {end}, before {end + 1}" in ended.err


def test_claims_whose_first_answer_was_left_out_are_free_again_and_others_are_kept(
    shell: Shell, backed_up: Path, target: Path
) -> None:
    def claims(path: Path) -> dict[object, ClaimRow]:
        async def read() -> list[ClaimRow]:
            async with stored.reading(path) as engine:
                return await engine.claims_after(None, 10_000)

        return {row.id: row for row in asyncio.run(read())}

    restore(shell, backed_up, target, "--until", "100")
    before, after = claims(backed_up), claims(target)
    assert 0 < len(after) < len(before)
    versions = {bytes(row.stream): row.version for row in events(target)}
    assert {name for name, row in before.items() if row.version <= versions.get(row.task_id, 0)} <= after.keys()
    assert all(row.version <= versions[row.task_id] for row in after.values())


def test_damage_beyond_the_position_does_not_matter_and_before_it_does(
    shell: Shell, path: Path, target: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.db"
    with stored.broken(path, bad) as db:
        db.execute("UPDATE events SET actor = 'somebody else' WHERE position = 200")
    ended = restore(shell, bad, target, "--until", "200")
    assert ended.code == 3
    assert "the log up to 200 is not what was written" in ended.err
    assert not target.exists()
    assert restore(shell, bad, target, "--until", "199").code == 0
    assert audited(target).found == 0


# Cursors


def test_r12_cursors_from_before_are_good_up_to_the_cut_and_refused_beyond_it_however_far_the_log_grows(
    shell: Shell, backed_up: Path, target: Path
) -> None:
    name = log_id(backed_up)
    restore(shell, backed_up, target, "--until", "100")
    before, beyond = position_cursor(name, 100), position_cursor(name, 101)

    def tail(cursor: str) -> Ended:
        return shell("tail", "--store", f"sqlite:{target}", "--from", cursor, "--json")

    assert tail(before) == Ended(0, "", "")
    assert "this is no cursor of this log" in tail(beyond).err

    async def go_on() -> None:
        async with stored.serving(target) as ledger:
            for number in range(600, 610):
                await ledger.handle(create(ident(number)))

    asyncio.run(go_on())
    assert [one["position"] for one in tail(before).objects] == list(range(101, 121))
    assert tail(beyond).code == 2
    own = tail(before).objects[4]["cursor"]
    assert [one["position"] for one in tail(own).objects] == list(range(106, 121))


def test_r12_a_store_that_is_restored_again_remembers_all_its_names(
    shell: Shell, backed_up: Path, target: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.db"
    restore(shell, backed_up, target, "--until", "100")
    restore(shell, target, again, "--until", "60")
    for name, good in ((log_id(backed_up), 60), (log_id(target), 60)):
        assert shell("tail", "--store", f"sqlite:{again}", "--from", position_cursor(name, good)).code == 0
        assert shell("tail", "--store", f"sqlite:{again}", "--from", position_cursor(name, good + 1)).code == 2


def test_what_a_store_was_restored_from_is_no_damage_and_what_cannot_be_read_of_it_is(
    shell: Shell, restored: Path
) -> None:
    assert shell("verify", "--store", f"sqlite:{restored}").code == 0
    with closing(sqlite3.connect(restored)) as db, db:
        db.execute("UPDATE meta SET value = x'00' WHERE name = 'lineage'")
    ended = shell("verify", "--store", f"sqlite:{restored}")
    assert ended.code == 3
    assert "what it was restored from cannot be read" in ended.err


# What a log says that it was called before

FORMER, HERE = "0123456789abcdef", 100


def called_before(path: Path, *, position: int, end: str) -> None:
    """Let the store say that it was called so up to there, with this hash."""
    with closing(sqlite3.connect(path)) as db, db:
        told = encode((Ancestor(log_id=FORMER, position=position, hash=end),))
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('lineage', ?)", (told,))


def test_an_earlier_name_that_shares_the_past_of_the_log_is_clean(shell: Shell, path: Path) -> None:
    for position, end in ((HERE, events(path)[HERE - 1].hash.hex()), (0, "of a log that was placed anew")):
        called_before(path, position=position, end=end)
        assert shell("verify").code == 0


MISFITS = {
    "another hash": (HERE, "00" * 32),
    "no hash": (HERE, ""),
    "another position": (HERE - 1, None),
    "beyond the end": (100_000, None),
    "before the beginning": (-1, None),
    "no position at all": (2**63, None),
}


@pytest.mark.parametrize("what", MISFITS)
def test_an_earlier_name_that_does_not_fit_the_log_is_found_and_not_restored(
    *, shell: Shell, path: Path, target: Path, what: str
) -> None:
    position, end = MISFITS[what]
    log = events(path)
    called_before(path, position=position, end=log[HERE - 1].hash.hex() if end is None else end)
    ended = shell("verify", "--json")
    (told,) = ended.objects
    assert (ended.code, [one["check"] for one in told["findings"]]) == (1, ["lineage"])
    assert told["first_bad_position"] is None, "the log itself is what was written"
    assert restore(shell, path, target).code == 1
    assert not target.exists()


def test_a_restore_up_to_a_position_leaves_out_an_earlier_name_that_does_not_fit_and_its_cursors_are_refused(
    shell: Shell, path: Path, target: Path
) -> None:
    called_before(path, position=HERE, end="00" * 32)
    assert restore(shell, path, target, "--until", str(HERE + 20)).code == 0
    assert audited(target).found == 0
    for name, code in ((FORMER, 2), (log_id(path), 0)):
        assert shell("tail", "--store", f"sqlite:{target}", "--from", position_cursor(name, HERE)).code == code


# Drill


def test_a_drill_passes_and_leaves_nothing(shell: Shell, path: Path, tmp_path: Path) -> None:
    before = tables(path)
    folder = tmp_path / "room"
    folder.mkdir()
    ended = shell("drill", "--folder", str(folder), "--json")
    (told,) = ended.objects
    assert (ended.code, told["passed"], told["same"], told["lost_events"], told["lost_seconds"]) == (
        0,
        True,
        True,
        0,
        0,
    )
    assert told["position"] == len(events(path))
    assert told["report"]["found"] == 0
    assert list(folder.iterdir()) == []
    assert tables(path) == before


def test_a_drill_of_a_store_that_is_not_clean_fails_and_says_why(
    shell: Shell, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.db"
    with stored.broken(path, bad) as db:
        db.execute("UPDATE events SET actor = 'somebody else' WHERE position = 200")
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{bad}")
    ended = shell("drill")
    assert ended.code == 1
    assert "first bad position: 200" in ended.out


def test_a_drill_tells_what_was_appended_meanwhile(shell: Shell, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def restore_while_it_goes_on(source: Path, target: Path) -> object:
        done = await restore_to(source, target)
        async with stored.serving(path) as ledger:
            await ledger.handle(create(ident(700), at_us=4_000_000_000_000_000, expires_at_us=None))
        return done

    monkeypatch.setattr("scripts.drill.restore_to", restore_while_it_goes_on)
    ended = shell("drill", "--json")
    assert not ended.err
    (told,) = ended.objects
    assert (told["passed"], told["lost_events"]) == (True, 2)
    assert told["lost_seconds"] > 0


# What a store is filled with again


def test_every_task_reads_as_before(shell: Shell, path: Path, restored: Path) -> None:
    for row in {row.stream for row in events(path) if row.entry.type == "created"}:
        task = Spelling.UUID.spell(ident(0).__class__(row))
        there, here = (shell("trace", task, "--store", f"sqlite:{one}", "--json").objects for one in (path, restored))
        assert [_without_cursors(step) for step in there] == [_without_cursors(step) for step in here]


def _without_cursors(step: dict[str, Any]) -> dict[str, Any]:
    """They begin with the log's name, which is another one."""
    return {**step, "cursor": "", "state": {**step["state"], "cursor": ""}}


async def test_pages_of_a_refill_may_end_anywhere(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in (1, 2, 3, 7):
        monkeypatch.setattr(restoring, "PAGE", page)
        target = tmp_path / f"{page}.db"
        await restore_to(path, target, until=250)
        async with stored.reading(target) as engine:
            report = await audit(engine)
            assert (report.found, report.position) == (0, 250), report.findings
            assert len(await engine.page(TaskFilter(limit=1000))) == report.tasks


def test_what_a_drill_tells_is_json(shell: Shell) -> None:
    assert set(msgspec.json.decode(shell("drill", "--json").out)) >= {"backup_seconds", "restore_seconds", "bytes"}

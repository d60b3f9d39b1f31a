"""The quick check lets nothing through that the audit would find, and says of what is sound what the audit says."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.breaks import switch_stream
from ledger.chain import GENESIS, Place, link
from ledger.events import (
    AnyEvent,
    Cancelled,
    Charged,
    Claimed,
    Completed,
    CreditGranted,
    Deleted,
    KeyIssued,
    Payload,
    Progressed,
    ProjectionSwitched,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.keys import account_stream
from ledger.merkle import Tree
from ledger.notes import Checkpoint
from ledger.records import Append, Entry
from ledger.sqlite import open_to_serve
from ledger.sqlite_rows import read_event
from ledger.sqlite_sql import EVENT_COLUMNS
from ledger.streams import is_task_stream
from projections.audit import quick_log, quick_tasks
from projections.audit.audit import audit
from projections.audit.findings import Report
from projections.audit.quick_check import Means, quick_check, verify
from projections.replay import replay_sql, workers
from projections.replay.task_pages import FIRST, LAST, Part, pages, reading
from tests import stored
from tests.builders import ACCOUNT, CREATED_US, create, entries, ident
from tests.test_audit import CREATED, write

MEANS = Means(workers=1)


async def reports(path: Path, means: Means = MEANS) -> tuple[Report, Report | None]:
    """What the audit says of the store, and what the check."""
    async with stored.reading(path) as engine:
        said = await audit(engine, checkpoints=means.checkpoints)
        assert await verify(engine, path, means) == said, "together they say what the audit says"
        return said, await quick_check(engine, path, means)


async def store_of(path: Path, *told: TaskEvent | Entry) -> Path:
    engine = await open_to_serve(path)
    try:
        await write(engine, *told)
    finally:
        await engine.close()
    return path


# What is sound


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    return copy


@pytest.mark.parametrize(("part", "claims"), [(1, 1), (7, 8), (10_000, 64)])
async def test_a_sound_store_passes_with_the_report_of_the_audit_however_it_is_cut(
    original: Path, monkeypatch: pytest.MonkeyPatch, part: int, claims: int
) -> None:
    monkeypatch.setattr(quick_tasks, "READ_MAX", claims)
    monkeypatch.setattr("projections.audit.quick_check.PART_EVENTS", part)
    monkeypatch.setattr("projections.audit.quick_check.SPAN_EVENTS", part)
    monkeypatch.setattr(quick_log, "PAGE", 3)
    said, checked = await reports(original)
    assert (said.found, checked) == (0, said)


async def test_several_processes_say_what_one_says(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ALONE_EVENTS", 0)
    monkeypatch.setattr("projections.audit.quick_check.PART_EVENTS", 40)
    monkeypatch.setattr("projections.audit.quick_check.SPAN_EVENTS", 40)
    said, checked = await reports(original, Means(workers=2))
    assert (said.found, checked) == (0, said)


async def test_an_empty_store_passes(tmp_path: Path) -> None:
    await (await open_to_serve(tmp_path / "ledger.db")).close()
    said, checked = await reports(tmp_path / "ledger.db")
    assert (said.found, checked) == (0, said)


SOUND: list[tuple[str, Sequence[TaskEvent]]] = [
    (
        "an update that was reverted",
        (Completed(at_us=CREATED_US), UpdateRequested(at_us=CREATED_US), UpdateReverted(at_us=CREATED_US, cause="c")),
    ),
    ("content", (Progressed(at_us=CREATED_US, percent=1, payload=Payload(message="soon")),)),
]


@pytest.mark.parametrize("told", [told for _, told in SOUND], ids=[name for name, _ in SOUND])
async def test_a_sound_history_passes(tmp_path: Path, told: Sequence[TaskEvent]) -> None:
    said, checked = await reports(await store_of(tmp_path / "ledger.db", *told))
    assert (said.found, checked) == (0, said)


async def test_an_old_way_of_writing_an_event_passes(tmp_path: Path) -> None:
    (told,) = entries(Completed(at_us=CREATED_US))
    facts = b'{"type":"completed","at_us":%d,"warnings":[{"code":"c","message":"m"}]}' % CREATED_US
    said, checked = await reports(await store_of(tmp_path / "ledger.db", replace(told, facts=facts)))
    assert (said.found, checked) == (0, said)


async def test_what_is_written_meanwhile_lies_beyond_it(path: Path) -> None:
    async with stored.serving(path) as ledger, stored.reading(path) as engine:
        before = await audit(engine)

        class Writing:
            """A head that is followed by another task before anything else is read."""

            async def __call__(self) -> object:
                head = await read_head()
                await ledger.handle(create(ident(900)))
                return head

        read_head = engine.head
        engine.head = Writing()  # type: ignore[method-assign,assignment]
        assert await quick_check(engine, path, MEANS) == before
        engine.head = read_head  # type: ignore[method-assign]
        after = await quick_check(engine, path, MEANS)
        assert after is not None
        assert (after.position, after.tasks) == (before.position + 2, before.tasks + 1)


# What is not


def claimed() -> Progressed:
    claim = Claimed(account=ACCOUNT, operation="create", key="k", fingerprint="f")
    return Progressed(at_us=CREATED_US, percent=1, claims=(claim,))


def column(**changes: object) -> Entry:
    (told,) = entries(Progressed(at_us=CREATED_US, percent=1))
    return replace(told, **changes)


CHARGED = Charged(at_us=CREATED_US, amount_micros=5, key="c", cause="charged")
UNSOUND_LIVES: dict[str, Sequence[TaskEvent | Entry]] = {
    "a second outcome": (Cancelled(at_us=CREATED_US), Completed(at_us=CREATED_US)),
    "a second creation": (CREATED,),
    "a money key that moves money twice": (CHARGED, CHARGED),
    "a claim that is not there": (claimed(),),
    "content after the deletion": (
        Deleted(at_us=CREATED_US),
        Progressed(at_us=CREATED_US, percent=1, payload=Payload(message="still here")),
    ),
    "another type": (column(type="started"),),
    "an amount of what moves none": (column(amount_micros=7),),
    "another time": (column(effective_at_us=8),),
}


@pytest.mark.parametrize("told", UNSOUND_LIVES.values(), ids=UNSOUND_LIVES)
async def test_no_life_passes_in_which_the_audit_finds_a_fault(
    tmp_path: Path, told: Sequence[TaskEvent | Entry]
) -> None:
    said, checked = await reports(await store_of(tmp_path / "ledger.db", *told))
    assert said.found
    assert checked is None


GRANTED = CreditGranted(at_us=CREATED_US, amount_micros=5, key="g")
ISSUED = KeyIssued(at_us=CREATED_US, key_id="k1", contract="chunkr", role="client", digest="d")
SWITCHED = ProjectionSwitched(at_us=CREATED_US, projection="tasks", position=1, replaced=1)
UNSOUND_ELSEWHERE: dict[str, tuple[bytes, str, Sequence[AnyEvent]]] = {
    "a grant a second time": (account_stream(ACCOUNT), ACCOUNT, (GRANTED, GRANTED)),
    "a key in another account's stream": (account_stream("other"), ACCOUNT, (ISSUED,)),
    "a key twice": (account_stream(ACCOUNT), ACCOUNT, (ISSUED, ISSUED)),
    "a switch of some account": (switch_stream(), ACCOUNT, (SWITCHED,)),
    "a switch in another stream": (account_stream(ACCOUNT), "", (SWITCHED,)),
    "an account's event in a task's stream": (bytes(ident(7)), ACCOUNT, (GRANTED,)),
}


@pytest.mark.parametrize(("stream", "account", "told"), UNSOUND_ELSEWHERE.values(), ids=UNSOUND_ELSEWHERE)
async def test_nothing_beside_the_tasks_passes_in_which_the_audit_finds_a_fault(
    tmp_path: Path, stream: bytes, account: str, told: Sequence[AnyEvent]
) -> None:
    path = await store_of(tmp_path / "ledger.db")
    engine = await open_to_serve(path)
    await engine.commit([Append(stream=stream, account=account, expected=0, entries=entries(*told))])
    await engine.close()
    said, checked = await reports(path)
    assert said.found
    assert checked is None


def rewritten(db: sqlite3.Connection, *, at: int | None = None, **changes: object) -> None:
    """Change the row at that position, or the last one, and all hashes so that they fit again."""
    ((end,),) = db.execute("SELECT max(position) FROM events")
    first = at or end
    for name, value in changes.items():
        db.execute(f"UPDATE events SET {name} = ? WHERE position = ?", (value, first))  # noqa: S608
    before = db.execute("SELECT hash FROM events WHERE position = ?", (first - 1,)).fetchone()
    hashed = GENESIS if before is None else before[0]
    sql = f"SELECT {', '.join(EVENT_COLUMNS)}, NULL FROM events WHERE position >= ? ORDER BY position"  # noqa: S608
    for row in map(read_event, db.execute(sql, (first,)).fetchall()):
        place = Place(row.lane, row.position, row.stream, row.version, row.account)
        hashed = link(hashed, place, row.entry)
        db.execute("UPDATE events SET hash = ? WHERE position = ?", (hashed, row.position))
    db.execute("UPDATE lanes SET hash = ?", (hashed,))


BEHIND_ITS_BACK: dict[str, Callable[[sqlite3.Connection], object]] = {
    "an event in a stream without a name": lambda db: rewritten(db, task=b""),
    "an event of a task that is not there": lambda db: rewritten(db, task=bytes(16)),
    "an event that is moved to an account's stream": lambda db: rewritten(db, task=account_stream(ACCOUNT)),
    "an event that is left out": lambda db: db.execute("DELETE FROM events WHERE position = 2"),
    "time that runs backwards": lambda db: rewritten(db, recorded_at=1),
    "a time before there was any": lambda db: rewritten(db, at=1, recorded_at=-1),
    "a version left out": lambda db: rewritten(db, version=9),
    "another's account": lambda db: rewritten(db, account="other"),
    "content that does not open": lambda db: rewritten(db, payload=b"\x01" + bytes(40)),
    "an event before the first": lambda db: db.execute("UPDATE events SET position = -4 WHERE position = 1"),
    "a head before the end": lambda db: db.execute("UPDATE lanes SET position = position - 1"),
    "a head far beyond the end": lambda db: db.execute("UPDATE lanes SET position = 1 << 60"),
    "a head of another time": lambda db: db.execute("UPDATE lanes SET recorded_at = recorded_at + 1"),
    "a task whose id is none": lambda db: db.execute("UPDATE tasks SET task = x''"),
    "a task without a row": lambda db: db.execute("DELETE FROM tasks"),
    "an account without a row": lambda db: db.execute("DELETE FROM accounts"),
    "a key that is lost": lambda db: db.execute("DELETE FROM seals"),
}


@pytest.mark.parametrize("damage", BEHIND_ITS_BACK.values(), ids=BEHIND_ITS_BACK)
async def test_no_damage_passes_that_the_audit_finds(
    tmp_path: Path, damage: Callable[[sqlite3.Connection], object]
) -> None:
    told = Progressed(at_us=CREATED_US, percent=1, payload=Payload(message="soon"))
    path = await store_of(tmp_path / "sound.db", told, Progressed(at_us=CREATED_US, percent=2))
    with stored.broken(path, tmp_path / "ledger.db") as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        damage(db)
    said, checked = await reports(tmp_path / "ledger.db")
    assert said.found
    assert checked is None


async def test_it_holds_the_log_against_what_was_signed_of_it(original: Path) -> None:
    with closing(sqlite3.connect(original)) as db:
        ((end,),) = db.execute("SELECT position FROM lanes")
    said, checked = await reports(original, Means(1, checkpoints=[Checkpoint("log", Tree(end + 1, bytes(32)))]))
    assert (said.first_bad_position, checked) == (end + 1, None)
    said, checked = await reports(original, Means(1, checkpoints=[Checkpoint("log", Tree(3, bytes(32)))]))
    assert (said.found, checked) == (1, None)


async def test_what_cannot_be_read_at_all_is_no_report(tmp_path: Path) -> None:
    path = await store_of(tmp_path / "ledger.db")
    async with stored.reading(path) as engine:
        path.unlink()
        assert await quick_check(engine, path, MEANS) is None


@pytest.mark.parametrize("claims", [1, 8])
async def test_no_claim_is_passed_over_when_there_are_more_than_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claims: int
) -> None:
    monkeypatch.setattr(quick_tasks, "READ_MAX", claims)
    path = await store_of(tmp_path / "ledger.db", *[Progressed(at_us=CREATED_US, percent=1)] * 9, claimed())
    said, checked = await reports(path)
    assert (said.found, checked) == (1, None)


WHOSE = {
    "a task's": (bytes(ident(1)), False),
    "an account's": (account_stream(ACCOUNT), True),
    "that of switches": (switch_stream(), True),
    "the highest": (b"\xff" * 16, False),
    "the version 8, all of it": (b"\x8f" * 16, True),
    "too short": (b"\x80" * 15, False),
    "too long": (b"\x80" * 17, False),
    "without a name": (b"", False),
}


@pytest.mark.parametrize(("stream", "is_other"), WHOSE.values(), ids=WHOSE)
def test_sql_tells_a_task_from_the_others_as_the_audit_does(*, stream: bytes, is_other: bool) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE events (task)")
        db.execute("INSERT INTO events VALUES (?)", (stream,))
        found = db.execute(replay_sql.OTHERS.replace("task > ?", "task >= ?"), (b"", b"\xff" * 17)).fetchall()
    assert (bool(found), not is_task_stream(stream)) == (is_other, is_other)


async def test_what_accounts_have_done_is_not_read_with_the_tasks(original: Path) -> None:
    with reading(original) as db:
        (page,) = pages(db, Part(FIRST, LAST), replay_sql.AUDITED)
        wanted = [bytes(task) for (task,) in db.execute("SELECT DISTINCT task FROM events") if not is_task_stream(task)]
    assert {row[0] for row in page.rows} == {story.stream for story in page.stories}
    assert wanted
    assert sorted(page.beside) == sorted(wanted)


def test_the_audited_columns_are_those_of_a_replay_and_all_others() -> None:
    replayed, audited = replay_sql.FOLDED.columns, replay_sql.AUDITED.columns
    assert audited[: len(replayed)] == replayed
    assert sorted(audited) == sorted(EVENT_COLUMNS)

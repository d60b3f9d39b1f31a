"""Breaks: their ids, their life, and how they stand in the log."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from ledger.attempts import ATTEMPTS_MAX
from ledger.break_log import CHUNK_MAX, NOBODY, BreakLog
from ledger.breaks import (
    Break,
    BreakCommand,
    CorrectBreak,
    Difference,
    ExplainBreak,
    Life,
    OpenBreak,
    break_stream,
    decide_break,
    evolve_break,
    fold_break,
    statement_stream,
)
from ledger.engine import Engine
from ledger.errors import BreakClosed, StorageError, UnknownBreak
from ledger.events import (
    AnyEvent,
    BreakCorrected,
    BreakEvent,
    BreakExplained,
    BreakKind,
    BreakOpened,
    StatementRead,
)
from ledger.keys import account_stream
from ledger.memory import MemoryEngine
from ledger.records import Append, entry
from ledger.statement_log import StatementLog
from projections.audit.audit import audit
from tests.builders import Watched

FOUND = Difference(
    provider="volcengine",
    kind=BreakKind.AMOUNT,
    about="task 1",
    at_stake_micros=7,
    since_us=1,
    detail="billed 2, charged 1",
    task="019ab1c2-7d04-78a5-9bcd-0123456789ab",
    lines=(3,),
    line_ids=("L3",),
)
ID = FOUND.break_id
OPEN = OpenBreak(at_us=10, found=FOUND, statement="9f86d081", owner="finance")
EXPLAIN = ExplainBreak(at_us=11, break_id=ID, reason="a trial")
CORRECT = CorrectBreak(at_us=12, break_id=ID, reason="refunded", position=7)
READ = StatementRead(
    at_us=10, statement="9f86d081", provider="volcengine", lines=1, malformed=0, billed_micros=2, breaks=1, position=0
)


def after(*commands: BreakCommand) -> Break | None:
    known: Break | None = None
    for command in commands:
        for event in decide_break(known, command):
            known = evolve_break(known, event)
    return known


# Its id


def test_a_break_is_known_by_provider_kind_and_what_it_is_about() -> None:
    same = replace(FOUND, at_stake_micros=9, since_us=9, detail="other", task=None, lines=(), line_ids=())
    assert same.break_id == ID
    others = [
        replace(FOUND, provider="another"),
        replace(FOUND, kind=BreakKind.LATE),
        replace(FOUND, about="task 2"),
        replace(FOUND, provider="volcengine\x00", about="task 1"),
    ]
    assert len({ID, *(one.break_id for one in others)}) == 5


def test_no_border_between_the_parts_can_be_moved() -> None:
    assert replace(FOUND, provider="a", about="bc").break_id != replace(FOUND, provider="ab", about="c").break_id


def test_an_id_names_a_stream_that_is_no_tasks_and_no_accounts() -> None:
    stream = break_stream(ID)
    assert stream is not None
    assert (len(stream), stream[6] >> 4) == (16, 8)
    assert stream not in {account_stream(ID), account_stream("volcengine"), account_stream("")}
    assert statement_stream("volcengine", ID) != stream


@pytest.mark.parametrize("text", ["", "x", ID.upper(), ID[:-1], ID + "0", f" {ID[1:]}", "\u0661" * 32, "/" * 32])
def test_what_no_break_can_be_called_names_no_stream(text: str) -> None:
    assert break_stream(text) is None


# Its life

LIVES: list[tuple[tuple[BreakCommand, ...], BreakCommand, list[type[BreakEvent]] | type[Exception]]] = [
    ((), OPEN, [BreakOpened]),
    ((OPEN,), OPEN, []),
    ((OPEN,), replace(OPEN, found=replace(FOUND, at_stake_micros=9), at_us=99), []),
    ((OPEN, EXPLAIN), OPEN, []),
    ((OPEN, CORRECT), OPEN, []),
    ((), EXPLAIN, UnknownBreak),
    ((OPEN,), EXPLAIN, [BreakExplained]),
    ((OPEN, EXPLAIN), replace(EXPLAIN, at_us=99), []),
    ((OPEN, EXPLAIN), replace(EXPLAIN, reason="another"), [BreakExplained]),
    ((OPEN, EXPLAIN), replace(EXPLAIN, owner="ops"), [BreakExplained]),
    ((OPEN, CORRECT), EXPLAIN, BreakClosed),
    ((), CORRECT, UnknownBreak),
    ((OPEN,), CORRECT, [BreakCorrected]),
    ((OPEN, EXPLAIN), CORRECT, [BreakCorrected]),
    ((OPEN, CORRECT), replace(CORRECT, at_us=99), []),
    ((OPEN, CORRECT), replace(CORRECT, reason="another"), BreakClosed),
    ((OPEN, CORRECT), replace(CORRECT, position=None), BreakClosed),
]


@pytest.mark.parametrize(("before", "command", "then"), LIVES)
def test_the_life_of_a_break(
    before: tuple[BreakCommand, ...], command: BreakCommand, then: list[type[BreakEvent]] | type[Exception]
) -> None:
    known = after(*before)
    if isinstance(then, list):
        assert [type(event) for event in decide_break(known, command)] == then
    else:
        with pytest.raises(then):
            decide_break(known, command)


def test_what_was_found_is_what_is_kept() -> None:
    known = after(OPEN)
    assert known == Break(break_id=ID, found=FOUND, opened_at_us=10, statement="9f86d081", owner="finance")


def test_an_explanation_keeps_the_owner_unless_it_names_another() -> None:
    assert (after(OPEN, EXPLAIN) or FOUND).owner == "finance"  # type: ignore[union-attr]
    assert (after(OPEN, replace(EXPLAIN, owner="ops")) or FOUND).owner == "ops"  # type: ignore[union-attr]


def test_no_events_are_no_break() -> None:
    assert fold_break([]) is None


# In the log


async def test_a_life_stands_in_the_log_and_the_audit_accepts_it(engine: Engine) -> None:
    log = BreakLog(engine)
    assert await log.open([OPEN, OPEN], by="cli") == 1
    assert await log.open([OPEN], by="cli") == 0
    assert (await log.explain(EXPLAIN, by="cli")).life is Life.EXPLAINED
    known = await log.correct(CORRECT, by="cli")
    assert (known.life, known.reason, known.corrected_by, known.owner) == (Life.CORRECTED, "refunded", 7, "finance")
    assert await StatementLog(engine).read(READ, by="cli")
    assert not await StatementLog(engine).read(replace(READ, at_us=99), by="cli")
    rows = await engine.after(0, 100)
    assert [(row.entry.type, row.version, row.account, row.entry.actor) for row in rows] == [
        ("break-opened", 1, NOBODY, "cli"),
        ("break-explained", 2, NOBODY, "cli"),
        ("break-corrected", 3, NOBODY, "cli"),
        ("statement-read", 1, NOBODY, "cli"),
    ]
    assert (await audit(engine)).findings == ()
    assert await log.known([ID, "0" * 32, "no id"]) == {ID: known}


async def test_the_same_command_again_appends_nothing(engine: Engine) -> None:
    log = BreakLog(engine)
    await log.open([OPEN], by="cli")
    for _ in range(2):
        await log.explain(EXPLAIN, by="cli")
    for _ in range(2):
        await log.correct(CORRECT, by="cli")
    assert (await engine.head()).position == 3


async def test_breaks_are_opened_in_chunks_of_one_commit_each(watched: Watched) -> None:
    commands = [replace(OPEN, found=replace(FOUND, about=f"task {number}")) for number in range(CHUNK_MAX + 1)]
    before = len(watched.commits)
    assert await BreakLog(watched).open(commands, by="cli") == CHUNK_MAX + 1
    assert [len(batch) for batch in watched.commits[before:]] == [CHUNK_MAX, 1]


@pytest.mark.parametrize("break_id", ["0" * 32, "nonsense", ""])
async def test_of_a_break_that_is_not_there_nothing_is_said(engine: Engine, break_id: str) -> None:
    with pytest.raises(UnknownBreak):
        await BreakLog(engine).explain(replace(EXPLAIN, break_id=break_id), by="cli")
    assert (await engine.head()).position == 0


async def test_two_who_find_the_same_at_once_open_it_once(engine: Engine) -> None:
    opened = await asyncio.gather(*(BreakLog(engine).open([OPEN], by=f"cli-{number}") for number in range(5)))
    assert sum(opened) == 1
    assert (await engine.head()).position == 1


async def test_two_who_correct_it_differently_at_once_do_not_both_succeed(engine: Engine) -> None:
    await BreakLog(engine).open([OPEN], by="cli")
    orders = [replace(CORRECT, reason=f"reason {number}") for number in range(4)]
    ended = await asyncio.gather(*(BreakLog(engine).correct(one, by="cli") for one in orders), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["Break", *["BreakClosed"] * 3]


async def test_one_who_is_always_overtaken_gives_up(watched: Watched) -> None:
    await BreakLog(watched).open([OPEN], by="cli")
    watched.stale_commits = ATTEMPTS_MAX
    with pytest.raises(StorageError, match="kept changing"):
        await BreakLog(watched).explain(EXPLAIN, by="cli")
    assert (await BreakLog(watched).explain(EXPLAIN, by="cli")).life is Life.EXPLAINED


# Audited

OPENED = BreakOpened(at_us=10, break_id=ID, **msgspec.structs.asdict(FOUND))
EXPLAINED = BreakExplained(at_us=11, break_id=ID, reason="a trial")
CORRECTED = BreakCorrected(at_us=12, break_id=ID, reason="refunded")
STREAM = bytes.fromhex(ID)
ELSEWHERE = account_stream("acme")

DAMAGE: dict[str, tuple[list[tuple[bytes, AnyEvent]], str]] = {
    "never opened": ([(STREAM, EXPLAINED)], "never opened"),
    "opened twice": ([(STREAM, OPENED), (STREAM, OPENED)], "was opened before"),
    "explained after it was corrected": (
        [(STREAM, OPENED), (STREAM, CORRECTED), (STREAM, EXPLAINED)],
        "has been corrected",
    ),
    "corrected twice": ([(STREAM, OPENED), (STREAM, CORRECTED), (STREAM, CORRECTED)], "has been corrected"),
    "in another stream": ([(ELSEWHERE, OPENED)], "does not stand in the stream"),
    "with an id that is not its digest": ([(STREAM, replace(OPENED, about="task 2"))], "not the digest"),
    "a statement in another stream": ([(ELSEWHERE, READ)], "does not stand in the stream"),
}


@pytest.mark.parametrize("case", DAMAGE)
async def test_the_audit_finds_a_break_whose_life_cannot_be(case: str) -> None:
    engine, (rows, detail) = MemoryEngine(), DAMAGE[case]
    for number, (stream, event) in enumerate(rows):
        expected = sum(one == stream for one, _ in rows[:number])
        entries = (entry(event, actor="cli", recorded_at_us=20),)
        await engine.commit([Append(stream=stream, account=NOBODY, expected=expected, entries=entries)])
    findings = (await audit(engine)).findings
    assert detail in " ".join(one.detail for one in findings)
    assert {(one.check, one.position) for one in findings} == {("breaks", len(rows))}


async def test_the_audit_finds_a_break_in_a_customers_name() -> None:
    engine = MemoryEngine()
    entries = (entry(OPENED, actor="cli", recorded_at_us=20),)
    await engine.commit([Append(stream=STREAM, account="acme", expected=0, entries=entries)])
    assert [one.check for one in (await audit(engine)).findings] == ["breaks"]

"""What the tests of the live part are made of: places for a log, commands, appends, and an engine to be held up."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from ledger.commands import Claim, Complete, Create, Delete, RequestCancel, Start
from ledger.engine import Engine, Trouble
from ledger.events import AnyEvent, CreditLimited, Progressed
from ledger.ids import ENTROPY_BYTES, TaskId, task_id
from ledger.keys import account_stream
from ledger.ledger import fold_rows
from ledger.lineage import Lineage
from ledger.log_end import LogEnd
from ledger.memory import MemoryEngine
from ledger.records import (
    AccountRow,
    Append,
    ClaimId,
    ClaimRow,
    CreditTerms,
    Entry,
    Head,
    KeyRow,
    Move,
    Outcome,
    Placed,
    Recorded,
    Stale,
    TaskFilter,
    TaskRow,
    entry,
)
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.sqlite import open_to_serve
from ledger.sqlite_engine import SqliteEngine
from ledger.task import Status, Task
from ledger.views import row_of
from tests.rules_dsl import ACCOUNT, BYTESPIKE, CREATED_US, STRANGER
from tests.rules_dsl import create as create_of_the_rules

__all__ = ["ACCOUNT", "CREATED_US", "STRANGER"]  # passed on; what is made here needs no mention


# Places for a log


class Kind(NamedTuple):
    """A kind of engine. *full* makes the store of an open one take no more, for as long as it is entered."""

    open: Callable[[Path], Awaitable[Engine]]
    persists: bool = True
    full: Callable[[Engine], AbstractAsyncContextManager[None]] | None = None


async def _open_memory(_folder: Path) -> Engine:
    return MemoryEngine()


async def _open_sqlite(folder: Path) -> Engine:
    return await open_to_serve(folder / "ledger.db")


@asynccontextmanager
async def _sqlite_full(engine: Engine) -> AsyncIterator[None]:
    assert isinstance(engine, SqliteEngine)
    assert engine._writer is not None
    ((pages,),) = await engine._writer.execute_fetchall("PRAGMA page_count")
    await engine._writer.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    yield
    await engine._writer.execute_fetchall("PRAGMA max_page_count = 1000000")


ENGINES: dict[str, Kind] = {
    "memory": Kind(_open_memory, persists=False),
    "sqlite": Kind(_open_sqlite, full=_sqlite_full),
}
"""Every engine there is: a row here, and the whole suite holds it to its contract."""

PERSISTENT = [name for name, kind in ENGINES.items() if kind.persists]


class Store:
    """Where one log lives. Opening it again lets go of the engine that was open."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._engine: Engine | None = None

    async def open(self) -> Engine:
        await self.close()
        self._engine = await self.kind.open(self._folder)
        return self._engine

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()


# Commands


def ident(number: int) -> TaskId:
    """The id of task *number*; the ids are in the order of the numbers."""
    return task_id(at_us=CREATED_US + 1000 * number, lane=0, entropy=number.to_bytes(ENTROPY_BYTES, "big"))


def claim(key: str = "k", *, fingerprint: str = "f", operation: str = "create", window_us: int | None = None) -> Claim:
    return Claim(account=ACCOUNT, operation=operation, key=key, fingerprint=fingerprint, window_us=window_us)


def create(task: TaskId, *claims: Claim, **changes: Any) -> Create:  # noqa: ANN401 - fields of the command
    """Create *task* for `ACCOUNT`, with ten credits held."""
    return replace(create_of_the_rules(), task_id=task, claims=claims, **changes)


def start(task: TaskId, *claims: Claim, worker: str = "w1", at_us: int = CREATED_US) -> Start:
    return Start(task_id=task, at_us=at_us, actor="w", worker=worker, claims=claims)


def complete(task: TaskId, *claims: Claim, at_us: int = CREATED_US) -> Complete:
    return Complete(task_id=task, at_us=at_us, actor="w", claims=claims)


def cancel(task: TaskId, *claims: Claim, **changes: Any) -> RequestCancel:  # noqa: ANN401 - fields of the command
    """`ACCOUNT` cancels *task*, under a contract that cancels whatever is not over."""
    asked = RequestCancel(task_id=task, at_us=CREATED_US, actor="k1", account=ACCOUNT, policy=BYTESPIKE, claims=claims)
    return replace(asked, **changes)


def delete(task: TaskId) -> Delete:
    return Delete(task_id=task, at_us=CREATED_US, actor="k1", account=ACCOUNT)


# Appends


def progressed(percent: int = 0) -> Progressed:
    return Progressed(at_us=CREATED_US + percent, percent=percent)


def entries(*events: AnyEvent, recorded_at_us: int = CREATED_US) -> tuple[Entry, ...]:
    return tuple(entry(event, actor="k1", request_id="r1", recorded_at_us=recorded_at_us) for event in events)


SEAL_KEY = bytes(range(KEY_BYTES))
"""What the content of made-up tasks is sealed under."""


def sealed(number: int, told: Sequence[Entry], *, expected: int = 0) -> tuple[Entry, ...]:
    """*told* as it is appended to task *number*, its payloads sealed under `SEAL_KEY`."""
    return tuple(
        one if one.payload is None else replace(one, payload=_sealed(number, version, one.payload))
        for version, one in enumerate(told, start=expected + 1)
    )


def _sealed(number: int, version: int, payload: bytes) -> bytes:
    return seal(
        payload, key=SEAL_KEY, nonce=version.to_bytes(NONCE_BYTES, "big"), stream=ident(number), version=version
    )


def task_row(number: int, *, version: int = 1, status: Status = Status.QUEUED, **facts: Any) -> TaskRow:  # noqa: ANN401
    """The row of task *number*."""
    facts = {"account": ACCOUNT, "contract": "lemondata", "model": "sora-2"} | facts
    return row_of(Task(task_id=ident(number), version=version, status=status, **facts))


def claim_row(key: str, *, number: int = 1, fingerprint: str = "f", version: int = 1) -> ClaimRow:
    return ClaimRow(
        account=ACCOUNT,
        operation="create",
        key=key,
        fingerprint=fingerprint,
        task_id=ident(number),
        version=version,
        appended=True,
        at_us=CREATED_US,
    )


def key_row(key_id: str, *, account: str = ACCOUNT, issued_at_us: int = CREATED_US) -> KeyRow:
    return KeyRow(
        key_id=key_id, account=account, contract="chunkr", role="client", digest="d" * 64, issued_at_us=issued_at_us
    )


def owes(number: int, amount: int, **changes: Any) -> Append:  # noqa: ANN401 - fields of Append
    """An append to task *number* that holds so many micro-credits of `ACCOUNT`."""
    return append(number, move=Move(held_micros=amount), **changes)


def credit(version: int, limit: int | None, granted: int | None = None, *, account: str = ACCOUNT) -> Append:
    """An append to an account's own stream that gives it these terms; it is event number *version*."""
    told = entries(CreditLimited(at_us=CREATED_US, limit_micros=limit))
    terms = CreditTerms(version=version, limit_micros=limit, granted_micros=granted)
    return Append(stream=account_stream(account), account=account, expected=version - 1, entries=told, terms=terms)


def append(number: int, *, expected: int = 0, events: int = 1, **rows: Any) -> Append:  # noqa: ANN401 - rows of Append
    """*events* events of task *number* and its row after them."""
    told = entries(*(progressed(expected + n) for n in range(1, events + 1)))
    rows = {"task": task_row(number, version=expected + events)} | rows
    return Append(stream=ident(number), account=ACCOUNT, expected=expected, entries=told, **rows)


def claims_only(number: int, *claims: ClaimRow, expected: int) -> Append:
    return Append(stream=ident(number), account=ACCOUNT, expected=expected, entries=(), claims=claims)


# What every log is held to


def chained(rows: Sequence[Recorded]) -> list[bytes]:
    """The hashes that *rows*, the log from its first on, must have: written anew from the description."""
    previous = hashlib.sha256(b"task-ledger log, first version").digest()
    hashes = []
    for row in rows:
        told = row.entry
        encoded = previous
        encoded += row.lane.to_bytes(2, "big") + row.position.to_bytes(8, "big")
        encoded += row.stream + row.version.to_bytes(4, "big")
        encoded += told.recorded_at_us.to_bytes(8, "big", signed=True)
        encoded += told.effective_at_us.to_bytes(8, "big", signed=True)
        encoded += b"\x00" if told.amount_micros is None else b"\x01"
        encoded += (told.amount_micros or 0).to_bytes(8, "big", signed=True)
        for field in (told.type.encode(), row.account.encode(), told.actor.encode(), told.request_id.encode()):
            encoded += len(field).to_bytes(4, "big") + field
        for blob in (told.facts, told.payload):
            encoded += b"" if blob is None else len(blob).to_bytes(4, "big") + blob
        previous = hashlib.sha256(encoded).digest()
        hashes.append(previous)
    return hashes


async def whole_log(engine: Engine) -> list[Recorded]:
    """All events, once they have been found whole: no hole in positions or versions, and the chain unbroken."""
    rows = await engine.after(0, 1_000_000)
    versions: dict[bytes, int] = {}
    for position, row in enumerate(rows, start=1):
        versions[row.stream] = versions.get(row.stream, 0) + 1
        assert (row.position, row.version) == (position, versions[row.stream])
    hashes = chained(rows)
    assert [row.hash for row in rows] == hashes
    head = await engine.head()
    assert head.position == len(rows)
    assert not hashes or head.hash == hashes[-1]
    return rows


async def whole_ledger(engine: Engine) -> list[Recorded]:
    """As `whole_log`, and every task's row is the fold of its events."""
    rows = await whole_log(engine)
    tasks = {TaskId(row.stream) for row in rows if row.entry.type == "created"}
    placed = await engine.tasks(list(tasks))
    assert placed.keys() == tasks
    for task in tasks:
        stream = [row for row in rows if row.stream == task]
        fresh = Placed(row=row_of(fold_rows(task, stream)), position=stream[-1].position)
        assert replace(placed[task], seal_key=None) == fresh
    return rows


# A fake engine


class Gate:
    """A place where a test can hold others up: open until it is shut."""

    def __init__(self) -> None:
        self._way = asyncio.Event()
        self._way.set()
        self._someone = asyncio.Event()

    def shut(self) -> None:
        self._someone.clear()
        self._way.clear()

    def open(self) -> None:
        self._way.set()

    async def someone_waits(self) -> None:
        """Returns when somebody has come to the gate since it was shut."""
        await self._someone.wait()

    async def pass_through(self) -> None:
        self._someone.set()
        await self._way.wait()


class Watched:
    """Another engine behind glass: what it is asked is noted, its answers can be held up, and it can be made to fail.

    The gates are behind the work: whoever waits there has been served but does not know it yet.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.commits: list[Sequence[Append]] = []
        self.task_reads: list[Sequence[TaskId]] = []
        self.pages: list[TaskFilter] = []
        self.key_reads: list[str] = []
        self.account_reads: list[Sequence[str] | None] = []
        self.commit_faults: deque[Exception] = deque()
        """Raised by the next commits, which then write nothing, unless *faults_come_late*."""
        self.faults_come_late = False
        self.read_faults: deque[Exception] = deque()
        self.stale_commits = 0
        """So many commits find that another node was faster, and write nothing."""
        self.commit_gate = Gate()
        self.read_gate = Gate()

    @property
    def log_id(self) -> str:
        return self.engine.log_id

    @property
    def pepper(self) -> bytes:
        return self.engine.pepper

    @property
    def end(self) -> LogEnd:
        return self.engine.end

    @property
    def lineage(self) -> Lineage:
        return self.engine.lineage

    @property
    def trouble(self) -> Trouble | None:
        return self.engine.trouble

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        self.commits.append(batch)
        fault = self.commit_faults.popleft() if self.commit_faults else None
        outcomes = [] if fault and not self.faults_come_late else await self._written(batch)
        await self.commit_gate.pass_through()
        if fault is not None:
            raise fault
        return outcomes

    async def _written(self, batch: Sequence[Append]) -> list[Outcome]:
        if self.stale_commits:
            self.stale_commits -= 1
            return [Stale(append.expected + 1) for append in batch]
        return await self.engine.commit(batch)

    async def tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Placed]:
        self.task_reads.append(ids)
        fault = self.read_faults.popleft() if self.read_faults else None
        found = {} if fault else await self.engine.tasks(ids)
        await self.read_gate.pass_through()
        if fault is not None:
            raise fault
        return found

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        self.pages.append(wanted)
        return await self.engine.page(wanted)

    async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
        return await self.engine.claims(ids)

    async def claims_after(self, claim: ClaimId | None, limit: int) -> list[ClaimRow]:
        return await self.engine.claims_after(claim, limit)

    async def key(self, key_id: str) -> KeyRow | None:
        self.key_reads.append(key_id)
        row = await self.engine.key(key_id)
        await self.read_gate.pass_through()
        return row

    async def keys(self, account: str | None) -> list[KeyRow]:
        return await self.engine.keys(account)

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        self.account_reads.append(names)
        found = await self.engine.accounts(names)
        await self.read_gate.pass_through()
        return found

    async def damage(self) -> list[str]:
        return await self.engine.damage()

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        return await self.engine.streams(names)

    async def after(self, position: int, limit: int) -> list[Recorded]:
        return await self.engine.after(position, limit)

    async def head(self) -> Head:
        return await self.engine.head()

    def snapshot(self) -> AbstractAsyncContextManager[None]:
        return self.engine.snapshot()

    async def close(self) -> None:
        await self.engine.close()

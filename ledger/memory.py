"""The engine that keeps everything in memory: for tests, and the plainest statement of what an engine does."""

import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from ledger.chain import GENESIS
from ledger.engine import ERASES, Found, Trouble, account_changes, plan
from ledger.ids import TaskId
from ledger.lineage import Lineage
from ledger.log_end import LogEnd
from ledger.records import (
    AccountRow,
    Append,
    ClaimId,
    ClaimRow,
    Head,
    KeyRow,
    Outcome,
    Placed,
    Recorded,
    TaskFilter,
)


class MemoryEngine:
    """A log in a list. Nothing survives the process, so its 2xx is as durable as the process is."""

    def __init__(self) -> None:
        self.log_id = secrets.token_hex(8)
        self.pepper = secrets.token_bytes(32)
        self.end = LogEnd()
        self.lineage: Lineage = ()
        self.trouble: Trouble | None = None
        self._log: list[Recorded] = []
        self._versions: dict[bytes, int] = {}
        self._tasks: dict[TaskId, Placed] = {}
        self._claims: dict[ClaimId, ClaimRow] = {}
        self._keys: dict[str, KeyRow] = {}
        self._accounts: dict[str, AccountRow] = {}
        self._seal_keys: dict[bytes, bytes] = {}
        self._head = Head(lane=0, position=0, hash=GENESIS)

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        terms = {one.account: self._accounts[one.account].version for one in batch if one.account in self._accounts}
        planned = plan(batch, head=self._head, found=Found(versions=self._versions, terms=terms))
        self._log += planned.rows
        for append, position in planned.written:
            self._versions[append.stream] = append.expected + len(append.entries)
            if append.task is not None:
                self._tasks[append.task.task_id] = Placed(row=append.task, position=position)
            self._claims |= {claim.id: claim for claim in append.claims}
            self._keys |= {key.key_id: key for key in append.keys}
            if append.seal_key is not None:
                self._seal_keys[append.stream] = append.seal_key
            if any(entry.type == ERASES for entry in append.entries):
                self._seal_keys.pop(append.stream, None)
        for account, change in account_changes(planned.written).items():
            self._accounts[account] = change.applied(self._accounts.get(account) or AccountRow(account=account))
        self._head = planned.head
        self.end.moved(planned.head.position, recorded_at_us=planned.head.recorded_at_us)
        return planned.outcomes

    async def tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Placed]:
        return {task: self._with_key(self._tasks[task]) for task in ids if task in self._tasks}

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        ordered = (self._with_key(self._tasks[task]) for task in sorted(self._tasks, reverse=not wanted.oldest_first))
        found: list[Placed] = []
        bytes_left = sys.maxsize if wanted.bytes_max is None else wanted.bytes_max
        for placed in ordered:
            if len(found) == wanted.limit or bytes_left <= 0:
                break
            if _fits(placed, wanted):
                found.append(placed)
                bytes_left -= len(placed.row.view)
        return found

    async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
        return {claim: self._claims[claim] for claim in ids if claim in self._claims}

    async def claims_after(self, claim: ClaimId | None, limit: int) -> list[ClaimRow]:
        return [self._claims[one] for one in sorted(self._claims) if claim is None or one > claim][:limit]

    async def key(self, key_id: str) -> KeyRow | None:
        return self._keys.get(key_id)

    async def keys(self, account: str | None) -> list[KeyRow]:
        rows = [row for row in self._keys.values() if account in (None, row.account)]
        return sorted(rows, key=lambda row: (row.issued_at_us, row.key_id))

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        wanted = sorted(self._accounts if names is None else self._accounts.keys() & set(names))
        return {account: self._accounts[account] for account in wanted}

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        wanted = set(names)
        rows = [self._openable(recorded) for recorded in self._log if recorded.stream in wanted]
        return sorted(rows, key=lambda recorded: (recorded.stream, recorded.version))

    async def after(self, position: int, limit: int) -> list[Recorded]:
        return [self._openable(recorded) for recorded in self._log[position : position + limit]]

    async def head(self) -> Head:
        return self._head

    async def damage(self) -> list[str]:
        return []

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        yield

    async def close(self) -> None:
        pass

    def _with_key(self, placed: Placed) -> Placed:
        return replace(placed, seal_key=self._seal_keys.get(placed.row.task_id))

    def _openable(self, recorded: Recorded) -> Recorded:
        return replace(recorded, seal_key=self._seal_keys.get(recorded.stream))


def _fits(placed: Placed, wanted: TaskFilter) -> bool:
    row = placed.row
    return (
        wanted.account in (None, row.account)
        and wanted.status in (None, row.status)
        and wanted.model in (None, row.model)
        and (wanted.before is None or row.task_id < wanted.before)
        and (wanted.after is None or row.task_id > wanted.after)
    )

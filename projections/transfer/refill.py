"""Refilling an empty store: the log written into it anew, event for event, and every row folded again on the way.

What an import and a cut of the tail have in common. The store's own `plan` gives positions and hashes, so they come out
as they were when the log is one that this engine could have written from its beginning, and the hash at the end proves
that nothing is missing or changed. Rows are not carried over but folded, as they were when the commands came: views,
money, accounts and keys follow from the log. Two things do not, and come beside it: the keys of the seals, and the
claims, of which those that changed nothing have no event.

Memory is a page of the log, the
tasks that were met last, and as with the audit the API keys, the accounts and their grants.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ledger.claims import FirstAnswer, claim_row
from ledger.commands import Claim
from ledger.credit import Credit, evolve_credit, move_of
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.events import CreditGranted, CreditLimited, CreditRevoked, KeyIssued, KeyRevoked
from ledger.ids import TaskId
from ledger.keys import evolve_key
from ledger.records import Append, ClaimRow, KeyRow, Placed, Recorded, Stale
from ledger.streams import is_task_stream
from ledger.task import NO_TASK, Task, evolve
from ledger.views import row_of, seen_of

TASKS_MAX = 20_000
"""Tasks whose state is kept in memory; that of others is read from the store."""


class _Known(NamedTuple):
    task: Task
    is_sealed: bool
    """Whether the store has the key of its content."""


class Refill:
    """A store while it is filled, from its first event on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: OrderedDict[bytes, _Known] = OrderedDict()
        self._keys: dict[str, KeyRow] = {}
        self._credits: dict[str, Credit] = {}
        self.keyless: set[TaskId] = set()
        """Tasks with content that nobody can open, and whose deletion is not in the log as far as it is written."""

    async def events(self, rows: Sequence[Recorded]) -> None:
        """Write *rows*, the next ones of the log.

        Raises:
            DamagedError: they do not follow on what is there, or cannot be read.
            StorageError: the store did not take them.
        """
        await self._learn({row.stream for row in rows if is_task_stream(row.stream)} - self._tasks.keys())
        last = {row.stream: row.position for row in rows}
        appends = [
            self._of_task(row, answered=answered, is_last=last[row.stream] == row.position)
            if is_task_stream(row.stream)
            else self._of_account(row)
            for row, answered in _answered(rows)
        ]
        for row, outcome in zip(rows, await self._engine.commit(appends), strict=True):
            if isinstance(outcome, Stale):
                raise DamagedError(f"the event at {row.position} is number {row.version} and follows {outcome.actual}")
        while len(self._tasks) > TASKS_MAX:
            self._tasks.popitem(last=False)

    async def claims(self, rows: Sequence[ClaimRow]) -> int:
        """Write those of *rows* whose first answer can be read here; how many those are."""
        placed = await self._engine.tasks(list({row.task_id for row in rows}))
        kept: dict[TaskId, list[ClaimRow]] = {}
        for row in rows:
            if row.task_id in placed and row.version <= placed[row.task_id].row.version:
                kept.setdefault(row.task_id, []).append(row)
        appends = [_claims_only(placed[task], claims) for task, claims in kept.items()]
        if any(isinstance(outcome, Stale) for outcome in await self._engine.commit(appends)):
            raise DamagedError("somebody else writes to the store that is being filled")
        return sum(map(len, kept.values()))

    async def _learn(self, streams: Iterable[bytes]) -> None:
        for task, placed in (await self._engine.tasks([TaskId(stream) for stream in streams])).items():
            self._tasks[task] = _Known(seen_of(placed).task, placed.seal_key is not None)

    def _of_task(self, row: Recorded, *, answered: int, is_last: bool) -> Append:
        """*is_last*: of this task in its commit, and so its row is as this leaves it."""
        task_id, event = TaskId(row.stream), row.event
        known = self._tasks.pop(task_id, None) or _Known(replace(NO_TASK, task_id=task_id), is_sealed=False)
        after = evolve(known.task, event)  # type: ignore[arg-type]  # a task's stream holds no others
        seal_key = None if row.entry.payload is None else row.seal_key
        self._tasks[task_id] = _Known(after, known.is_sealed or seal_key is not None)
        if after.deleted:
            self.keyless.discard(task_id)
        elif row.is_erased:
            self.keyless.add(task_id)
        answer = FirstAnswer(task_id, answered, appended=True)
        claims = [Claim(**msgspec.structs.asdict(one)) for one in event.claims]
        return Append(
            stream=row.stream,
            account=row.account,
            expected=row.version - 1,
            entries=(row.entry,),
            task=row_of(after) if is_last else None,
            claims=tuple(claim_row(claim, answer, at_us=row.entry.recorded_at_us) for claim in claims),
            move=move_of(known.task, after),
            seal_key=None if known.is_sealed else seal_key,
        )

    def _of_account(self, row: Recorded) -> Append:
        """Of an account's stream, or of one that has no rows, as a break's."""
        event, keys = row.event, tuple[KeyRow, ...]()
        credit = self._credits.setdefault(row.account, Credit())
        credit.version = row.version
        match event:
            case KeyIssued(key_id=key_id) | KeyRevoked(key_id=key_id):
                keys = (evolve_key(self._keys.get(key_id), event, account=row.account),)
                self._keys[key_id] = keys[0]
            case CreditLimited() | CreditGranted() | CreditRevoked():
                evolve_credit(credit, event)
            case _:
                pass
        return Append(
            stream=row.stream,
            account=row.account,
            expected=row.version - 1,
            entries=(row.entry,),
            keys=keys,
            terms=credit.terms if isinstance(event, CreditLimited | CreditGranted | CreditRevoked) else None,
        )


def _answered(rows: Sequence[Recorded]) -> Iterator[tuple[Recorded, int]]:
    """Each of *rows*, and the version at which its request was done: events in a row that one request caused."""
    ends: list[int] = []
    following: Recorded | None = None
    for row in reversed(rows):
        is_same = following is not None and (row.stream, row.entry.request_id) == (
            following.stream,
            following.entry.request_id,
        )
        ends.append(ends[-1] if is_same else row.version)
        following = row
    return zip(rows, reversed(ends), strict=True)


def _claims_only(placed: Placed, claims: Sequence[ClaimRow]) -> Append:
    row = placed.row
    return Append(stream=row.task_id, account=row.account, expected=row.version, entries=(), claims=tuple(claims))

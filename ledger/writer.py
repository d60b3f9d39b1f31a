"""Group commit: what arrives while one commit runs forms the next.

One loop takes a batch of commands, reads what they need in two reads at most, decides them one after the other, each
against the state that the ones before it left, and commits all of it at once. Nobody is answered before that commit
has returned, not even with a refusal: it may rest on an event that is not durable yet. Alternative beaten: a
transaction per request, at a sixth of the rate.

A commit that fails fails those who wait for it and nothing else: what is in memory of their tasks is forgotten, and
the next batch reads it anew. Callers who leave before their turn are passed over; later they change nothing.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from ledger.commands import Claim, Create, TaskCommand
from ledger.engine import Engine
from ledger.errors import KeyReused, Overloaded, Refusal, StorageError
from ledger.events import Claimed, LateReported, TaskEvent
from ledger.ids import TaskId
from ledger.records import Append, ClaimId, ClaimRow, Outcome, Stale, entry
from ledger.rules import decide
from ledger.settlement import violations
from ledger.task import NO_TASK, Task, evolve
from ledger.views import Seen, Views, row_of

RETRY_AFTER_SECONDS = 1
ATTEMPTS_MAX = 3
"""How often a command is decided again because another node appended to its task first."""


class Written(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The command's effect is durable, and this is the task after it."""

    task: Task
    position: int
    appended: bool
    """Whether anything changed."""
    late: bool
    """Whether it was a report after the outcome, kept as evidence."""


class Replayed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The command's idempotency key came before, with the same request; *claim* tells where the first answer is."""

    claim: ClaimRow


Answer: TypeAlias = Written | Replayed


class _Verdict(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a command comes to once its batch is durable: a task, an earlier answer, or a refusal."""

    task: Task | None = None
    rests_on: int | None = None
    """The last append of this batch to its task; None: it rests on nothing new."""
    moved_by: int | None = None
    """The last of them that has events."""
    appended: bool = False
    late: bool = False
    replay: ClaimRow | None = None
    refusal: Refusal | None = None


class _Waiter:
    __slots__ = ("answer", "attempts", "command")

    def __init__(self, command: TaskCommand) -> None:
        self.command = command
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.attempts = 1


class Writer:
    """The one who appends to the log's tasks."""

    def __init__(self, engine: Engine, views: Views, *, queue_max: int, batch_max: int) -> None:
        self._engine, self._views = engine, views
        self._queue_max, self._batch_max = queue_max, batch_max
        self._queue: deque[_Waiter] = deque()
        self._wake = asyncio.Event()
        self._recorded_at_us = 0
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Begin to take commands. Recorded time goes on from the log's last, whatever the clock says."""
        self._recorded_at_us = (await self._engine.head()).recorded_at_us
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Carry out what has been taken in, then stop."""
        self._closing = True
        self._wake.set()
        if self._loop is not None:
            await self._loop

    async def submit(self, command: TaskCommand) -> Answer:
        """Decide and append *command*; the answer comes when it is durable.

        Raises:
            Overloaded: the queue is full, or the ledger is closing; nothing was taken in.
            Refusal: as `decide`, and `KeyReused`.
            StorageError: the commit failed; nothing was written.
        """
        if len(self._queue) >= self._queue_max or self._closing:
            raise Overloaded(retry_after_seconds=RETRY_AFTER_SECONDS)
        waiter = _Waiter(command)
        self._queue.append(waiter)
        self._wake.set()
        return await waiter.answer

    @property
    def queued(self) -> int:
        """How many commands wait for their turn."""
        return len(self._queue)

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]
            await self._turn([waiter for waiter in taken if not waiter.answer.done()])

    async def _turn(self, waiters: Sequence[_Waiter]) -> None:
        """Decide and commit one batch, show it to readers, and answer those who wait."""
        try:
            batch = await self._read(waiters)
            verdicts = [batch.verdict(waiter.command) for waiter in waiters]
            outcomes = await self._engine.commit(batch.appends) if batch.appends else []
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the loop lives on
            await self._failed(waiters, error)
            return
        self._recorded_at_us = batch.recorded_at_us
        self._show(batch, outcomes)
        for waiter, verdict in zip(waiters, verdicts, strict=True):
            self._answer(waiter, verdict, batch.position(verdict, outcomes))

    async def _failed(self, waiters: Sequence[_Waiter], error: Exception) -> None:
        """Nothing was written. When it was not the store's fault, it was one command's: each gets a turn of its own."""
        if len(waiters) > 1 and not isinstance(error, StorageError):
            for waiter in waiters:
                await self._turn([waiter])
            return
        for waiter in waiters:
            self._views.drop(waiter.command.task_id)
            _fail(waiter, error)

    async def _read(self, waiters: Sequence[_Waiter]) -> "_Batch":
        """All that the commands are decided on, in two reads at most."""
        keys = [(claim.account, claim.operation, claim.key) for w in waiters for claim in w.command.claims]
        claims = await self._engine.claims(keys) if keys else {}
        ids = {waiter.command.task_id for waiter in waiters if not isinstance(waiter.command, Create)}
        ids |= {row.task_id for row in claims.values()}
        seen = [one for one in await self._views.get_all(ids) if one is not None]
        return _Batch(seen, claims, recorded_at_us=self._recorded_at_us)

    def _show(self, batch: "_Batch", outcomes: Sequence[Outcome]) -> None:
        for append, outcome in zip(batch.appends, outcomes, strict=True):
            if isinstance(outcome, Stale):
                self._views.drop(TaskId(append.stream))
            elif append.task is None:
                continue
            elif append.task.version == batch.states[append.task.task_id].version:  # the last of its task
                task = batch.states[append.task.task_id]
                self._views.put(Seen(task, outcome, len(append.task.view)))

    def _answer(self, waiter: _Waiter, verdict: _Verdict, position: int | None) -> None:
        if position is None:  # another node appended to the task first
            waiter.attempts += 1
            if waiter.attempts > ATTEMPTS_MAX:
                _fail(waiter, StorageError("the task kept changing under the command"))
            else:
                self._queue.append(waiter)
                self._wake.set()
        elif verdict.refusal is not None:
            _fail(waiter, verdict.refusal)
        elif waiter.answer.done():  # its caller has left
            return
        elif verdict.replay is not None:
            waiter.answer.set_result(Replayed(claim=verdict.replay))
        else:
            assert verdict.task is not None
            written = Written(task=verdict.task, position=position, appended=verdict.appended, late=verdict.late)
            waiter.answer.set_result(written)


def _fail(waiter: _Waiter, error: Exception) -> None:
    if not waiter.answer.done():
        waiter.answer.set_exception(error)


class _Batch:
    """Commands decided one after the other, each against the state that the ones before it left."""

    def __init__(self, seen: Sequence[Seen], claims: dict[ClaimId, ClaimRow], *, recorded_at_us: int) -> None:
        self.states = {one.task.task_id: one.task for one in seen}
        self.appends: list[Append] = []
        self.recorded_at_us = recorded_at_us
        self._claims = claims
        self._positions = {one.task.task_id: one.position for one in seen}
        self._last: dict[TaskId, int] = {}
        self._moved: dict[TaskId, int] = {}

    def verdict(self, command: TaskCommand) -> _Verdict:
        """Decide *command*, and put what it appends into the batch."""
        try:
            replay = self._first_answer(command)
        except KeyReused as refusal:
            return _Verdict(refusal=refusal, rests_on=None if refusal.task is None else self._last.get(refusal.task))
        if replay is not None:
            self._bind(command, replay)
            return _Verdict(replay=replay, rests_on=self._last.get(replay.task_id))
        task = self.states.get(command.task_id) or replace(NO_TASK, task_id=command.task_id)
        try:
            events = decide(task, command)
        except Refusal as refusal:
            self._append(task, command, refusal.evidence, claims=())
            return _Verdict(refusal=refusal, rests_on=self._last.get(command.task_id))
        after = self._append(task, command, events, claims=command.claims)
        return _Verdict(
            task=after,
            rests_on=self._last.get(command.task_id),
            moved_by=self._moved.get(command.task_id),
            appended=bool(events),
            late=is_late(events),
        )

    def position(self, verdict: _Verdict, outcomes: Sequence[Outcome]) -> int | None:
        """Where in the log the verdict's task stands; None when what it rests on was not written."""
        if verdict.rests_on is not None and isinstance(outcomes[verdict.rests_on], Stale):
            return None
        if verdict.moved_by is not None:
            outcome = outcomes[verdict.moved_by]
            assert not isinstance(outcome, Stale), "what follows a stale append is stale"
            return outcome
        return 0 if verdict.task is None else self._positions.get(verdict.task.task_id, 0)

    def _first_answer(self, command: TaskCommand) -> ClaimRow | None:
        """The claim under which this request was answered before, if it was: the first, if it brings several keys.

        Raises:
            KeyReused: one of its keys belongs to another request.
        """
        taken = [(claim, row) for claim in command.claims if (row := self._taken(claim, command.at_us)) is not None]
        for claim, row in taken:
            if row.fingerprint != claim.fingerprint:
                raise KeyReused(claim.operation, claim.key, fingerprint=row.fingerprint, task=row.task_id)
        return taken[0][1] if taken else None

    def _taken(self, claim: Claim, at_us: int) -> ClaimRow | None:
        """The row of the claim's key, unless it is free."""
        row = self._claims.get((claim.account, claim.operation, claim.key))
        return None if row is None or _lapsed(claim, row, at_us) else row

    def _bind(self, command: TaskCommand, replay: ClaimRow) -> None:
        """Let further keys of a repeated request stand for its first answer too: they are not for another one."""
        task = self.states.get(replay.task_id)
        further = [claim for claim in command.claims if self._taken(claim, command.at_us) is None]
        if task is None or not further:
            return
        rows = tuple(_claim_row(claim, replay, at_us=command.at_us) for claim in further)
        self._claims |= {row.id: row for row in rows}
        self._last[task.task_id] = len(self.appends)
        self.appends.append(
            Append(stream=task.task_id, account=task.account, expected=task.version, entries=(), claims=rows)
        )

    def _append(
        self, task: Task, command: TaskCommand, events: Sequence[TaskEvent], *, claims: Sequence[Claim]
    ) -> Task:
        if not events and not claims:
            return task
        after = reduce(evolve, events, task)
        assert not violations(after), violations(after)
        answer = _First(task.task_id, after.version, bool(events))
        rows = tuple(_claim_row(claim, answer, at_us=command.at_us) for claim in claims)
        if events and claims:
            events = [replace(events[0], claims=tuple(map(_claimed, claims))), *events[1:]]
        self.recorded_at_us = max(self.recorded_at_us, command.at_us)
        self.states[task.task_id] = after
        self._claims |= {row.id: row for row in rows}
        self._last[task.task_id] = len(self.appends)
        if events:
            self._moved[task.task_id] = len(self.appends)
        self.appends.append(
            Append(
                stream=task.task_id,
                account=after.account,
                expected=task.version,
                entries=tuple(
                    entry(event, actor=command.actor, request_id=command.request_id, recorded_at_us=self.recorded_at_us)
                    for event in events
                ),
                task=row_of(after) if events else None,
                claims=rows,
            )
        )
        return after


def is_late(events: Sequence[TaskEvent]) -> bool:
    """Whether these are what a report after the outcome leaves behind."""
    return bool(events) and isinstance(events[-1], LateReported)


def _lapsed(claim: Claim, row: ClaimRow, at_us: int) -> bool:
    return claim.window_us is not None and at_us - row.at_us >= claim.window_us


def _claimed(claim: Claim) -> Claimed:
    return Claimed(account=claim.account, operation=claim.operation, key=claim.key, fingerprint=claim.fingerprint)


class _First(NamedTuple):
    """Where the first answer to a request is."""

    task_id: TaskId
    version: int
    appended: bool


def _claim_row(claim: Claim, answer: _First | ClaimRow, *, at_us: int) -> ClaimRow:
    return ClaimRow(
        account=claim.account,
        operation=claim.operation,
        key=claim.key,
        fingerprint=claim.fingerprint,
        task_id=answer.task_id,
        version=answer.version,
        appended=answer.appended,
        at_us=at_us,
    )

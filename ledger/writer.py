"""Group commit: what arrives while one commit runs is decided meanwhile, and forms the next.

One loop takes commands, reads what they need in two reads at most, decides them one after the other, each against the
state that the ones before it left, and commits all of a batch at once. Nobody is answered before that commit has
returned, not even with a refusal: it may rest on an event that is not durable yet. Alternative beaten: a transaction
per request, at a sixth of the rate.

A batch is decided on top of the one that is being committed, so that the store and the interpreter work at the same
time. It is committed only when that one has been written as it was decided; otherwise it is decided anew. Alternative
beaten: to decide when the store is done, which left each of them waiting for the other. Callers who wait for their
answer before they ask again would all meet in one batch, with nobody left to be decided meanwhile, so a batch takes
half of those who ask. The price: on a disk that syncs slower than half of them are answered, more commits than needed.

The writer knows accounts as it knows tasks: every task that it touches moves the account that it belongs to, and new
work is admitted by the account as the commands before it left it. A refusal for want of credit appends nothing that
the store could find stale, so the account's terms are read anew before it is given.

A commit that fails fails those who wait for it and nothing else: what is in memory of their tasks is forgotten, and
the next batch reads it anew. Callers who leave before their commit begins are passed over; later they change nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from ledger.accounts import Accounts
from ledger.commands import Claim, Create, RequestUpdate, TaskCommand
from ledger.credit import move_of
from ledger.engine import Engine
from ledger.errors import InsufficientCredits, KeyReused, Overloaded, Refusal, StorageError
from ledger.events import Claimed, LateReported, TaskEvent
from ledger.ids import TaskId
from ledger.records import Append, ClaimId, ClaimRow, Entry, Outcome, Stale, entry
from ledger.rules import decide
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.settlement import violations
from ledger.tally import Places, Tally
from ledger.task import NO_TASK, Task, evolve
from ledger.views import Seen, Views, row_of

RETRY_AFTER_SECONDS = 1
ATTEMPTS_MAX = 3
"""How often a command is decided again because another node appended to its task first."""


NEW_WORK = (Create, RequestUpdate)
"""What is asked of an account's credit."""
HALVED_MIN = 8
"""Fewer commands than this are not worth two commits."""


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
    refusal: Exception | None = None
    """A `Refusal`, or the bug that the command met."""
    short: str | None = None
    """The account that had too little credit."""
    short_since: int | None = None
    """The last append of this batch to move that account; None: it rests on nothing new."""


class _Waiter:
    __slots__ = ("answer", "attempts", "command")

    def __init__(self, command: TaskCommand) -> None:
        self.command = command
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.attempts = 1


_Positions: TypeAlias = dict[TaskId, int]
_Entropy: TypeAlias = Callable[[int], bytes]


class Writer:
    """The one who appends to the log's tasks."""

    def __init__(  # noqa: PLR0913 - all that it works with, and its two bounds
        self,
        engine: Engine,
        views: Views,
        accounts: Accounts,
        *,
        entropy: _Entropy,
        queue_max: int,
        batch_max: int,
    ) -> None:
        self._engine, self._views, self._accounts, self._entropy = engine, views, accounts, entropy
        self._queue_max, self._batch_max = queue_max, batch_max
        self._queue: deque[_Waiter] = deque()
        self._wake = asyncio.Event()
        self._recorded_at_us = 0
        self._next = self._afresh()
        """What has been decided and not begun to be committed."""
        self._before = self._next
        """What was begun to be committed last."""
        self._committing: asyncio.Task[list[Outcome]] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Begin to take commands. Recorded time goes on from the log's last, whatever the clock says."""
        self._recorded_at_us = (await self._engine.head()).recorded_at_us
        self._next = self._afresh()
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
        if self.queued >= self._queue_max or self._closing:
            raise Overloaded(retry_after_seconds=RETRY_AFTER_SECONDS)
        waiter = _Waiter(command)
        self._queue.append(waiter)
        self._wake.set()
        return await waiter.answer

    @property
    def queued(self) -> int:
        """How many commands wait for their commit to begin."""
        return len(self._queue) + len(self._next.waiters)

    @property
    def _bound(self) -> int:
        """How many go into the next batch: half of all who ask, so that one half is decided while the other commits."""
        half = (len(self._before.waiters) + self.queued + 1) // 2
        return min(max(half, HALVED_MIN), self._batch_max)

    async def _run(self) -> None:
        while self._committing or self.queued or not self._closing:
            self._wake.clear()
            await self._decide(self._next, self._taken())
            if self._committing is not None and self._committing.done():
                await self._go_on(self._before, self._committing)
            elif self._committing is None and self._next.waiters:
                self._begin()
            elif (self._committing or not self._closing) and (
                not self._queue or len(self._next.waiters) >= self._bound
            ):
                await self._wake.wait()

    def _begin(self) -> None:
        """Commit what has been decided; what comes from now on is decided on top of it."""
        self._before = self._next
        self._next = self._before.successor()
        self._committing = asyncio.create_task(self._written(self._before))
        self._committing.add_done_callback(lambda _: self._wake.set())

    async def _go_on(self, batch: "_Batch", committing: asyncio.Task[list[Outcome]]) -> None:
        """The commit of *batch* has ended: begin the next one, then answer those who waited for this one."""
        self._committing = None
        outcomes: list[Outcome] | None = None
        try:
            outcomes = committing.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the loop lives on
            await self._not_written(batch, error)
        else:
            self._show(batch, outcomes)
        await self._rest_on(None if outcomes is None else batch.after(outcomes))
        if self._next.waiters:
            self._begin()
            await asyncio.sleep(0)  # it is on its way to the store before the answers take up this thread
        if outcomes is not None:
            self._answer_all(batch, outcomes)

    def _taken(self) -> list[_Waiter]:
        """Who is decided now."""
        room = self._bound - len(self._next.waiters)
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), room))]
        return [waiter for waiter in taken if not waiter.answer.done()]

    async def _decide(self, batch: "_Batch", waiters: Sequence[_Waiter]) -> None:
        """Read what the commands need, and decide them into *batch*."""
        try:
            await self._read(batch, waiters)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the loop lives on
            if len(waiters) > 1 and not isinstance(error, StorageError):  # one command's fault
                for waiter in waiters:
                    await self._decide(batch, [waiter])
            else:
                self._failed(waiters, error)
            return
        short = [waiter for waiter in waiters if not batch.decide(waiter)]
        if short:
            await self._decide_short(batch, short)

    async def _decide_short(self, batch: "_Batch", waiters: Sequence[_Waiter]) -> None:
        """Decide commands that lack credit by what is in memory: another process may have given them some."""
        try:
            rows = await self._accounts.reread({batch.account_of(waiter.command) for waiter in waiters})
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(waiters, error)
            return
        batch.accounts.learn_terms(rows)
        for waiter in waiters:
            batch.decide(waiter, for_good=True)

    async def _read(self, batch: "_Batch", waiters: Sequence[_Waiter]) -> None:
        """All that the commands are decided on, in two reads, and a third of accounts that are not at hand."""
        keys = [(claim.account, claim.operation, claim.key) for w in waiters for claim in w.command.claims]
        claims = await self._engine.claims(keys) if keys else {}
        ids = {waiter.command.task_id for waiter in waiters if not isinstance(waiter.command, Create)}
        ids |= {row.task_id for row in claims.values()}
        batch.learn([one for one in await self._views.get_all(ids) if one is not None], claims)
        accounts = batch.accounts.unknown({batch.account_of(waiter.command) for waiter in waiters})
        if accounts:
            batch.accounts.learn(await self._accounts.get_all(accounts))

    async def _written(self, batch: "_Batch") -> list[Outcome]:
        return await self._engine.commit(batch.appends) if batch.appends else []

    async def _not_written(self, batch: "_Batch", error: Exception) -> None:
        """When it was not the store's fault, it was one command's: each gets a commit of its own."""
        if len(batch.waiters) == 1 or isinstance(error, StorageError):
            self._failed(batch.waiters, error)
            return
        for waiter in batch.waiters:
            alone = self._afresh()
            await self._decide(alone, [waiter])
            try:
                outcomes = await self._written(alone)
            except Exception as error_alone:  # noqa: BLE001 - as above
                self._failed([waiter], error_alone)
            else:
                self._show(alone, outcomes)
                self._answer_all(alone, outcomes)

    async def _rest_on(self, after: "_After | None") -> None:
        """The commit before the next has ended: go on from there, or decide anew if that is not where it was to end."""
        waiters = [waiter for waiter in self._next.waiters if not waiter.answer.done()]
        if after is not None and waiters and len(waiters) == len(self._next.waiters):
            self._next.rest_on(after)
        else:
            self._next = self._afresh()
            await self._decide(self._next, waiters)

    def _afresh(self) -> "_Batch":
        return _Batch(recorded_at_us=self._recorded_at_us, entropy=self._entropy)

    def _failed(self, waiters: Sequence[_Waiter], error: Exception) -> None:
        self._accounts.forget()
        for waiter in waiters:
            self._views.drop(waiter.command.task_id)
            _fail(waiter, error)

    def _show(self, batch: "_Batch", outcomes: Sequence[Outcome]) -> None:
        """*batch* is durable: readers see it from now on."""
        self._recorded_at_us = batch.recorded_at_us
        for append, outcome in zip(batch.appends, outcomes, strict=True):
            if isinstance(outcome, Stale):
                self._views.drop(TaskId(append.stream))
            elif append.task is None:
                continue
            elif append.task.version == batch.states[append.task.task_id].version:  # the last of its task
                task = batch.states[append.task.task_id]
                self._views.put(Seen(task, outcome, len(append.task.view), batch.seal_keys.get(task.task_id)))
        if any(isinstance(outcome, Stale) for outcome in outcomes):
            self._accounts.forget()
        else:
            self._accounts.put(batch.accounts.moved(outcomes))

    def _answer_all(self, batch: "_Batch", outcomes: Sequence[Outcome]) -> None:
        for waiter, verdict in zip(batch.waiters, batch.verdicts, strict=True):
            self._answer(waiter, verdict, batch.position(verdict, outcomes))

    def _answer(self, waiter: _Waiter, verdict: _Verdict, position: int | None) -> None:
        if position is None:  # another node appended to the task first
            waiter.attempts += 1
            if waiter.attempts > ATTEMPTS_MAX:
                _fail(waiter, StorageError("the task kept changing under the command"))
            else:
                self._queue.append(waiter)
                self._wake.set()
        elif isinstance(verdict.refusal, InsufficientCredits):
            _fail(waiter, verdict.refusal.at(position))
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

    def __init__(self, *, recorded_at_us: int, entropy: _Entropy) -> None:
        self.waiters: list[_Waiter] = []
        self.verdicts: list[_Verdict] = []
        self.appends: list[Append] = []
        self.states: dict[TaskId, Task] = {}
        self.accounts = Tally()
        self.seal_keys: dict[TaskId, bytes] = {}
        """Of the states, what their payloads are sealed under, if there is any that has not been erased."""
        self.recorded_at_us = recorded_at_us
        self._entropy = entropy
        self._positions: _Positions = {}
        self._claims: dict[ClaimId, ClaimRow] = {}
        self._last: dict[TaskId, int] = {}
        self._moved: dict[TaskId, int] = {}

    def successor(self) -> "_Batch":
        """An empty batch on top of this one, before it is known where in the log that is."""
        after = _Batch(recorded_at_us=self.recorded_at_us, entropy=self._entropy)
        after.states = {task: self.states[task] for task in self._moved}
        after.accounts = self.accounts.successor()
        after.seal_keys = {task: self.seal_keys[task] for task in self._moved if task in self.seal_keys}
        after._claims = {claim.id: claim for append in self.appends for claim in append.claims}
        return after

    def rest_on(self, before: "_After") -> None:
        """The batch before has been written."""
        self._positions |= before.tasks
        self.accounts.rest_on(before.accounts)

    def learn(self, seen: Sequence[Seen], claims: dict[ClaimId, ClaimRow]) -> None:
        """Take in what has been read; what has been decided since is newer."""
        for one in seen:
            if one.task.task_id not in self.states:
                self.states[one.task.task_id] = one.task
                self._positions[one.task.task_id] = one.position
                if one.seal_key is not None:
                    self.seal_keys[one.task.task_id] = one.seal_key
        self._claims = claims | self._claims

    def account_of(self, command: TaskCommand) -> str:
        """The account that the command is about; of a task that is not there, nobody's."""
        if isinstance(command, Create):
            return command.account
        task = self.states.get(command.task_id)
        return "" if task is None else task.account

    def decide(self, waiter: _Waiter, *, for_good: bool = False) -> bool:
        """Decide the waiter's command, and put what it appends into the batch.

        False: it lacks credit, by terms that may have been changed; without *for_good* it is not in the batch then.
        """
        try:
            verdict = self._verdict(waiter.command)
        except Exception as bug:  # noqa: BLE001 - a command that meets a bug fails alone
            verdict = _Verdict(refusal=bug)
        if verdict.short is not None and not for_good:
            return False
        self.waiters.append(waiter)
        self.verdicts.append(verdict)
        return True

    def _verdict(self, command: TaskCommand) -> _Verdict:
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
            after = self._append(task, command, events, claims=command.claims)
        except InsufficientCredits as refusal:
            account = self.account_of(command)
            return _Verdict(refusal=refusal, short=account, short_since=self.accounts.moved_by(account))
        except Refusal as refusal:
            self._append(task, command, refusal.evidence, claims=())
            return _Verdict(refusal=refusal, rests_on=self._last.get(command.task_id))
        return _Verdict(
            task=after,
            rests_on=self._last.get(command.task_id),
            moved_by=self._moved.get(command.task_id),
            appended=bool(events),
            late=is_late(events),
        )

    def position(self, verdict: _Verdict, outcomes: Sequence[Outcome]) -> int | None:
        """Where in the log what the verdict is about stands; None when what it rests on was not written."""
        if verdict.short is not None:
            return self.accounts.place(verdict.short, moved_by=verdict.short_since, outcomes=outcomes)
        if verdict.rests_on is not None and isinstance(outcomes[verdict.rests_on], Stale):
            return None
        if verdict.moved_by is not None:
            outcome = outcomes[verdict.moved_by]
            assert not isinstance(outcome, Stale), "what follows a stale append is stale"
            return outcome
        return 0 if verdict.task is None else self._positions.get(verdict.task.task_id, 0)

    def after(self, outcomes: Sequence[Outcome]) -> "_After | None":
        """Where what it moved stands in the log; None when a part of it was not written."""
        places = [outcome for outcome in outcomes if not isinstance(outcome, Stale)]
        if len(places) < len(outcomes):
            return None
        return _After({task: places[last] for task, last in self._moved.items()}, self.accounts.places(outcomes))

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
        move, is_new = move_of(task, after), isinstance(command, NEW_WORK)
        account = None if move is None else self.accounts.after(after.account, move, is_new=is_new)
        answer = _First(task.task_id, after.version, bool(events))
        rows = tuple(_claim_row(claim, answer, at_us=command.at_us) for claim in claims)
        if events and claims:
            events = [replace(events[0], claims=tuple(map(_claimed, claims))), *events[1:]]
        recorded_at_us = max(self.recorded_at_us, command.at_us)
        entries = [
            entry(event, actor=command.actor, request_id=command.request_id, recorded_at_us=recorded_at_us)
            for event in events
        ]
        old_key = seal_key = self.seal_keys.get(task.task_id)
        if any(one.payload is not None for one in entries):
            assert not task.deleted, "no content after its deletion"
            seal_key = old_key or self._entropy(KEY_BYTES)
            entries = [*_sealed(entries, task, seal_key, self._entropy)]
        append = Append(
            stream=task.task_id,
            account=after.account,
            expected=task.version,
            entries=tuple(entries),
            task=row_of(after) if events else None,
            claims=rows,
            seal_key=seal_key if old_key is None else None,
            move=move,
            rests_on=account.version if account is not None and is_new else None,
        )
        # From here on nothing can go wrong: a command is in the batch whole or not at all.
        self.recorded_at_us = recorded_at_us
        self.states[task.task_id] = after
        if after.deleted:
            self.seal_keys.pop(task.task_id, None)
        elif seal_key is not None:
            self.seal_keys[task.task_id] = seal_key
        self._claims |= {row.id: row for row in rows}
        self._last[task.task_id] = len(self.appends)
        if events:
            self._moved[task.task_id] = len(self.appends)
        if account is not None:
            self.accounts.put(account, by=len(self.appends))
        self.appends.append(append)
        return after


def _sealed(entries: Iterable[Entry], task: Task, key: bytes, entropy: _Entropy) -> Iterable[Entry]:
    """What is appended to *task*, ready to be written."""
    for version, one in enumerate(entries, start=task.version + 1):
        if one.payload is None:
            yield one
        else:
            nonce = entropy(NONCE_BYTES)
            yield replace(one, payload=seal(one.payload, key=key, nonce=nonce, stream=task.task_id, version=version))


class _After(NamedTuple):
    """Where the tasks and the accounts stand that a batch has moved."""

    tasks: _Positions
    accounts: Places


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

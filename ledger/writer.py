"""Group commit: what arrives while one commit runs is decided meanwhile, and forms the next.

One loop takes commands, reads what they need in three reads at most (claims, tasks, accounts), decides them one after
the other, each against the state that the ones before it left, and commits all of a batch at once. Nobody is answered
before that commit has returned, not even with a refusal: it may rest on an event that is not durable yet. Alternative
beaten: a transaction per request, at a sixth of the rate.

A batch is decided on top of the one that is being committed, so that the store and the interpreter work at the same
time. It is committed only when that one has been written as it was decided; otherwise it is decided anew. Alternative
beaten: to decide when the store is done, which left each of them waiting for the other. Callers who wait for their
answer before they ask again would all meet in one batch, with nobody left to be decided meanwhile, so a batch takes
half of those who ask. The price: on a disk that syncs slower than half of them are answered, more commits than needed.

The writer knows accounts as it knows tasks: every task that it touches moves the account that it belongs to, and new
work is admitted by the account as the commands before it left it. A refusal for want of credit appends nothing that
the store could find stale, so the account's terms are read anew before it is given; and once more after the commit,
if that moved the account. A version is never had twice, so when it is the same all figures stood where it is told.
How many tasks are under way nobody else can move, so a refusal for want of room needs no such reading.

What an account is given (a limit, a grant) takes turns with the batches: one such append between two of them, and what
has been decided is decided anew on top of it. So this process never finds itself overtaken by itself, and neither
waits for more than one commit of the other. Another process may still come between, and is met again and again, but
its turn at the store is no longer than ours.

A commit that fails fails those who wait for it and nothing else: what is in memory of their tasks is forgotten, and
the next batch reads it anew. Callers who leave before their commit begins are passed over; later they change nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from ledger.accounts import Accounts
from ledger.batch import After, Answer, Batch, Entropy, Verdict
from ledger.commands import Create, TaskCommand
from ledger.engine import Engine
from ledger.errors import Overloaded, StorageError
from ledger.figures import CommitFigures
from ledger.ids import TaskId
from ledger.records import Append, Outcome, Stale
from ledger.views import Seen, Views
from ledger.waiters import Waiter, fail

RETRY_AFTER_SECONDS = 1
HALVED_MIN = 8
"""Fewer commands than this are not worth two commits."""


_Batch: TypeAlias = Batch[Waiter]


class Writer:
    """Takes the commands of a ledger, and commits what they cause: the only one that appends to tasks."""

    def __init__(  # noqa: PLR0913 - all that it works with, and its two bounds
        self,
        engine: Engine,
        views: Views,
        accounts: Accounts,
        *,
        entropy: Entropy,
        queue_max: int,
        batch_max: int,
    ) -> None:
        self._engine, self._views, self._accounts, self._entropy = engine, views, accounts, entropy
        self._queue_max, self._batch_max = queue_max, batch_max
        self.commits = CommitFigures()
        self._queue: deque[Waiter] = deque()
        self._turns: deque[tuple[Append, asyncio.Future[Outcome]]] = deque()
        """What accounts are given; each waits for the commit that runs."""
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
        waiter = Waiter(command)
        self._queue.append(waiter)
        self._wake.set()
        return await waiter.answer

    async def append(self, append: Append) -> Outcome:
        """Commit what an account is given, between two batches: what is decided from then on is decided on it.

        Raises:
            Overloaded: as `submit`.
            StorageError: the commit failed; nothing was written.
        """
        if len(self._turns) >= self._queue_max or self._closing:
            raise Overloaded(retry_after_seconds=RETRY_AFTER_SECONDS)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._turns.append((append, answer))
        self._wake.set()
        return await answer

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
        while self._committing or self.queued or self._turns or not self._closing:
            self._wake.clear()
            await self._decide(self._next, self._taken())
            if self._committing is not None and self._committing.done():
                await self._go_on(self._before, self._committing)
            elif self._committing is None and self._turns:
                await self._take_turn(*self._turns.popleft())
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

    async def _go_on(self, batch: _Batch, committing: asyncio.Task[list[Outcome]]) -> None:
        """The commit of *batch* has ended: begin the next one, then answer those who waited for this one."""
        self._committing = None
        outcomes: list[Outcome] | None = None
        try:
            outcomes = committing.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the loop lives on
            await self._not_written(batch, error)
        else:
            self._show(batch, outcomes)
        if not self._turns:  # otherwise that one is next, and this is done after it
            await self._rest_on(None if outcomes is None else batch.after(outcomes))
            await self._begin_any()
        if outcomes is not None:
            await self._answer_all(batch, outcomes)

    async def _take_turn(self, append: Append, answer: asyncio.Future[Outcome]) -> None:
        """Commit what an account is given, then at once what waits for its commit, decided on top of that."""
        if not answer.done():  # done: its caller has left
            try:
                (outcome,) = await self._engine.commit([append])
            except Exception as error:  # noqa: BLE001 - as above
                fail(answer, error)
            else:
                if not answer.done():
                    answer.set_result(outcome)
            self._accounts.drop(append.account)
        await self._rest_on(None)
        await self._begin_any()

    async def _begin_any(self) -> None:
        """Commit what has been decided, if anything has."""
        if self._next.waiters:
            self._begin()
            await asyncio.sleep(0)  # it is on its way to the store before the answers take up this thread

    def _taken(self) -> list[Waiter]:
        """Who is decided now."""
        room = self._bound - len(self._next.waiters)
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), room))]
        return [waiter for waiter in taken if not waiter.answer.done()]

    async def _decide(self, batch: _Batch, waiters: Sequence[Waiter]) -> None:
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

    async def _decide_short(self, batch: _Batch, waiters: Sequence[Waiter]) -> None:
        """Decide commands that lack credit by what is in memory: another process may have given them some."""
        try:
            rows = await self._accounts.reread({batch.account_of(waiter.command) for waiter in waiters})
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(waiters, error)
            return
        batch.accounts.learn_terms(rows)
        for waiter in waiters:
            batch.decide(waiter, for_good=True)

    async def _read(self, batch: _Batch, waiters: Sequence[Waiter]) -> None:
        """All that the commands are decided on, in two reads, and a third of accounts that are not at hand."""
        keys = [(claim.account, claim.operation, claim.key) for w in waiters for claim in w.command.claims]
        claims = await self._engine.claims(keys) if keys else {}
        ids = {waiter.command.task_id for waiter in waiters if not isinstance(waiter.command, Create)}
        ids |= {row.task_id for row in claims.values()}
        ids |= {w.command.follows for w in waiters if isinstance(w.command, Create) and w.command.follows is not None}
        batch.learn([one for one in await self._views.get_all(ids) if one is not None], claims)
        accounts = batch.accounts.unknown({batch.account_of(waiter.command) for waiter in waiters})
        if accounts:
            batch.accounts.learn(await self._accounts.get_all(accounts))

    async def _written(self, batch: _Batch) -> list[Outcome]:
        if not batch.appends:
            return []
        begun_ns = time.perf_counter_ns()
        outcomes = await self._engine.commit(batch.appends)
        self.commits.took_us.add((time.perf_counter_ns() - begun_ns) // 1000)
        self.commits.commands.add(len(batch.waiters))
        return outcomes

    async def _not_written(self, batch: _Batch, error: Exception) -> None:
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
                await self._answer_all(alone, outcomes)

    async def _rest_on(self, after: After | None) -> None:
        """The commit before the next has ended: go on from there, or decide anew if that is not where it was to end."""
        waiters = [waiter for waiter in self._next.waiters if not waiter.answer.done()]
        if after is not None and waiters and len(waiters) == len(self._next.waiters):
            self._next.rest_on(after)
        else:
            self._next = self._afresh()
            await self._decide(self._next, waiters)

    def _afresh(self) -> _Batch:
        return _Batch(recorded_at_us=self._recorded_at_us, entropy=self._entropy)

    def _failed(self, waiters: Sequence[Waiter], error: Exception) -> None:
        self._accounts.forget()
        for waiter in waiters:
            self._views.drop(waiter.command.task_id)
            waiter.fail(error)

    def _show(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
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
        if any(isinstance(outcome, Stale) and outcome.switched for outcome in outcomes):
            self._views.forget()
        if any(isinstance(outcome, Stale) for outcome in outcomes):
            self._accounts.forget()
        else:
            self._accounts.put(batch.accounts.moved(outcomes))

    async def _answer_all(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        unsure: list[tuple[Waiter, Verdict, int]] = []
        for waiter, verdict in zip(batch.waiters, batch.verdicts, strict=True):
            position = batch.position(verdict, outcomes)
            if position is None:
                self._again(waiter, is_overtaken=batch.is_overtaken(verdict, outcomes))
            elif batch.is_unsure(verdict, position):
                unsure.append((waiter, verdict, position))
            else:
                waiter.settle(verdict, position)
        if unsure:
            await self._answer_unsure(unsure)

    async def _answer_unsure(self, unsure: Sequence[tuple[Waiter, Verdict, int]]) -> None:
        """Refuse for want of credit those whose accounts' terms are still the same; the others are decided again."""
        try:
            rows = await self._accounts.reread({verdict.short for _, verdict, _ in unsure if verdict.short is not None})
        except Exception as error:  # noqa: BLE001 - as above
            self._failed([waiter for waiter, _, _ in unsure], error)
            return
        versions = {row.account: row.version for row in rows}
        for waiter, verdict, position in unsure:
            if verdict.short is not None and versions[verdict.short] == verdict.short_version:
                waiter.settle(verdict, position)
            else:
                self._again(waiter, is_overtaken=False)

    def _again(self, waiter: Waiter, *, is_overtaken: bool) -> None:
        """Decide it again: another node was faster with its task, or its account's terms have changed."""
        given_up = waiter.once_more(is_overtaken=is_overtaken)
        if given_up is not None:
            waiter.fail(given_up)
        else:
            self._queue.append(waiter)
            self._wake.set()

"""The running ledger: one object over one engine that reads tasks and carries out commands."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Self

import msgspec
from msgspec.structs import replace

from ledger.accounts import Accounts
from ledger.batch import Replayed
from ledger.breaks import switch_stream
from ledger.callback_log import CallbackLog
from ledger.commands import RecordCallback, Report, TaskCommand
from ledger.engine import Engine
from ledger.entropy import Entropy
from ledger.errors import DamagedError, TaskNotFound
from ledger.heard import Heard
from ledger.ids import TaskId
from ledger.keyring import Keyring
from ledger.records import Recorded, TaskFilter
from ledger.task import Task, fold
from ledger.unread import UnreadReports
from ledger.views import OVERHEAD_BYTES, Seen, Views, seen_of
from ledger.writer import Writer

QUEUE_MAX = 4096
BATCH_MAX = 256
VIEWS_MAX_BYTES = 96 * 2**20
CHUNK = 100
"""Tasks read at once for a list, and no more than are wanted to begin with."""
CHUNK_MAX_BYTES = 8 * 2**20
"""Of views: what is read at once for a list, and what is looked at for one page of it, is at most one task more."""
TURN_BYTES = 256 * 1024
"""Of views that are decoded before others have their turn: about a millisecond."""
LOOKED_AT_MAX = 2000
"""Tasks looked at for one page of a list."""


class Outcome(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a command came to: the task after it, or, replayed, after the first request with its key."""

    task: Task
    position: int
    appended: bool
    late: bool
    replayed: bool


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks of an account to list: newest first unless *oldest_first*, between *after* and *before*."""

    account: str
    limit: int
    fits: Callable[[Task], bool] = lambda _: True
    skip: int = 0
    """How many of those that fit come before the page, for lists that are counted in pages: each is looked at."""
    before: TaskId | None = None
    after: TaskId | None = None
    oldest_first: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks as `Wanted`; *beyond*: from where the list goes on, None at its end.

    A page is short, with more to come, when few of many tasks fit, or when they are large: none looks at more than
    `LOOKED_AT_MAX`, or on after `CHUNK_MAX_BYTES`, beyond those that it skips.
    """

    tasks: list[Task]
    beyond: TaskId | None


class _Filling:
    """A page while tasks are looked at for it, one after the other."""

    def __init__(self, wanted: Wanted, gone: Callable[[Task], bool]) -> None:
        self._wanted, self._gone = wanted, gone
        self._to_skip, self._left_bytes = wanted.skip, CHUNK_MAX_BYTES
        self._tasks: list[Task] = []
        self._last: TaskId | None = None
        self.missing = wanted.skip + wanted.limit + 1
        """So many tasks that fit are to be found until it is known that there are more than the page has."""

    def takes(self, seen: Seen) -> bool:
        """Whether the page goes on with this task, or over it; False: it ends before it."""
        task = seen.task
        fits = not (task.deleted or self._gone(task)) and self._wanted.fits(task)
        self.missing -= fits
        if self._left_bytes <= 0 or not self.missing:
            return False
        if fits and self._to_skip:
            self._to_skip -= 1
        elif not self._to_skip:
            self._left_bytes -= seen.weight_bytes - OVERHEAD_BYTES  # what is left is its view
            if fits:
                self._tasks.append(task)
        self._last = task.task_id
        return True

    def ended(self, *, is_whole: bool) -> Page:
        """The page, as far as it has come; *is_whole*: there are no more tasks."""
        return Page(tasks=self._tasks, beyond=None if is_whole else self._last)


class Ledger:
    """The log of one engine, its writer and its readers."""

    def __init__(  # noqa: PLR0913 - what it is of, and its bounds
        self,
        engine: Engine,
        *,
        pepper: bytes | None = None,
        entropy: Callable[[int], bytes] | None = None,
        queue_max: int = QUEUE_MAX,
        batch_max: int = BATCH_MAX,
        views_max_bytes: int = VIEWS_MAX_BYTES,
    ) -> None:
        """*entropy* None: the system's, which it must be wherever anyone's content is sealed."""
        self.engine = engine
        self._switches = 0
        self.keys = Keyring(engine, pepper=pepper)
        self.callbacks = CallbackLog(engine, pepper=pepper)
        self.views = Views(engine, weight_max_bytes=views_max_bytes)
        self.heard = Heard()
        self.unread = UnreadReports()
        self.attempts: Counter[str] = Counter()
        """Attempts to call back since it began, by whether they *delivered* or *failed*."""
        self.accounts = Accounts(engine, append=lambda one: self.writer.append(one))  # noqa: PLW0108 - there is none yet
        self.writer = Writer(
            engine, self.views, self.accounts, entropy=entropy or Entropy(), queue_max=queue_max, batch_max=batch_max
        )

    async def start(self) -> Self:
        """Begin to take commands. When that fails, the store is let go: its thread would outlive the program."""
        try:
            await self.writer.start()
        except BaseException:
            await self.engine.close()
            raise
        return self

    async def close(self) -> None:
        """Carry out what has been taken in, then let go of the store."""
        await self.writer.close()
        await self.engine.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def heed_switches(self) -> None:
        """Read anew what is in memory, if another process has replaced rows in the store since this was asked last."""
        switches = len(await self.engine.streams([switch_stream()]))
        if switches != self._switches:
            self._switches = switches
            self.views.forget()
            self.accounts.forget()

    async def handle(self, command: TaskCommand) -> Outcome:
        """Carry out *command*; what it did is durable when this returns.

        Raises:
            Overloaded, Refusal, StorageError: as `Writer.submit`.
        """
        answer = await self.writer.submit(command)
        if isinstance(command, Report) and (isinstance(answer, Replayed) or not answer.appended):
            self.heard.note(command.task_id, command.at_us)
        if isinstance(answer, Replayed):
            return await self._replayed(answer)
        if isinstance(command, RecordCallback) and answer.appended:
            self.attempts["delivered" if command.delivered else "failed"] += 1
        return Outcome(
            task=answer.task,
            position=answer.position,
            appended=answer.appended,
            late=answer.late,
            replayed=False,
        )

    async def task(
        self,
        task: TaskId,
        *,
        account: str | None,
        gone: Callable[[Task], bool] = lambda _: False,
        tells_foreign: bool = False,
    ) -> Seen:
        """The task as of its last commit, for *account*; None stands for those who may see all.

        Raises:
            TaskNotFound: absent, deleted, *gone* by the asker's contract, or another account's: one answer, at the
                cost of one read. With *tells_foreign* it tells the last, of tasks that are there still.
        """
        seen = self.views.cached(task)
        if seen is None or account not in (None, seen.task.account):
            seen = await self.views.read(task, account=None if tells_foreign else account)
        if seen is None or (account is not None and (seen.task.deleted or gone(seen.task))):
            raise TaskNotFound
        if account not in (None, seen.task.account):
            raise TaskNotFound(foreign=True)
        return seen

    async def task_by_key(self, account: str, operation: str, key: str) -> TaskId | None:
        """The task that the request with this idempotency key was about."""
        claim = (account, operation, key)
        row = (await self.engine.claims([claim])).get(claim)
        return None if row is None else row.task_id

    async def page(self, wanted: TaskFilter) -> tuple[list[Seen], bool]:
        """Tasks as *wanted*, in the order that it asks for, and whether there are more; large ones are fewer."""
        seen, is_end = await self._chunk(replace(wanted, limit=wanted.limit + 1))
        return (seen, False) if is_end else (seen[:-1] or seen, True)  # the last shows that there are more

    async def browse(self, wanted: Wanted, *, gone: Callable[[Task], bool] = lambda _: False) -> Page:
        """The account's tasks as *wanted*, without those that are deleted or *gone* by the asker's contract."""
        filling, left = _Filling(wanted, gone), LOOKED_AT_MAX + wanted.skip
        where = TaskFilter(
            account=wanted.account, before=wanted.before, after=wanted.after, oldest_first=wanted.oldest_first
        )
        chunk_max = min(CHUNK, filling.missing)
        while left:
            chunk, is_end = await self._chunk(replace(where, limit=min(chunk_max, left)))
            if not all(map(filling.takes, chunk)):
                return filling.ended(is_whole=False)
            if is_end:
                return filling.ended(is_whole=True)
            last = chunk[-1].task.task_id
            where = replace(where, after=last) if wanted.oldest_first else replace(where, before=last)
            chunk_max, left = min(CHUNK, 2 * chunk_max), left - len(chunk)
        return filling.ended(is_whole=False)

    async def _chunk(self, wanted: TaskFilter) -> tuple[list[Seen], bool]:
        """Tasks as *wanted*, fewer when they are large, and whether those are the last."""
        rows = await self.engine.page(replace(wanted, bytes_max=CHUNK_MAX_BYTES))
        seen: list[Seen] = []
        read_bytes = turns = 0
        for placed in rows:
            read_bytes += len(placed.row.view)
            if read_bytes // TURN_BYTES > turns:
                turns = read_bytes // TURN_BYTES
                await asyncio.sleep(0)
            seen.append(seen_of(placed))
        return seen, len(rows) < wanted.limit and read_bytes < CHUNK_MAX_BYTES

    async def history(self, task: TaskId) -> list[Recorded]:
        """The task's events, oldest first.

        Raises:
            TaskNotFound: it has none.
        """
        rows = await self.engine.streams([task])
        if not rows:
            raise TaskNotFound
        return rows

    async def _replayed(self, answer: Replayed) -> Outcome:
        """The first answer again: the task as it stood then, folded from its history."""
        claim = answer.claim
        rows = (await self.engine.streams([claim.task_id]))[: claim.version]
        if not rows:
            raise DamagedError(f"claim {claim.key!r} names a task without events")
        return Outcome(
            task=fold_rows(claim.task_id, rows),
            position=rows[-1].position,
            appended=claim.appended,
            late=claim.appended and rows[-1].entry.type == "late-reported",
            replayed=True,
        )


def fold_rows(task: TaskId, rows: list[Recorded]) -> Task:
    """The task that these rows of its stream, oldest first, leave behind."""
    return fold([row.event for row in rows], task)  # type: ignore[misc]  # its stream holds no other events

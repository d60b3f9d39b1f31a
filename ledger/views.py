"""Tasks as they are read: a bounded cache in front of the engine, and one read for all who miss at once.

Measured against a bare handler: bytes out of a dictionary serve at its speed, one aiosqlite call per GET at a
quarter of it; misses that share a call get half. A million views in memory took 400 to 750 MB, so the cache is
bounded by weight, and the answers that are kept with a task weigh as well. A direct look-up on the event loop's thread
(a third sqlite3 connection, 8 us a look in isolation) was measured against joined misses in the real server by turns,
64 connections: 0.22 to 0.32 of a bare GET against 0.30 to 0.48; answers that go out one at a time wake the peer for
each, those of a shared read go out together. So joined misses stay.

Whoever misses while a read is under way waits for the next one. A task that was committed or dropped while it was being
read is not cached from that read: the commit has put the newer one there, or nobody knows what the store has.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Any, TypeAlias

import msgspec

from ledger.changes import Changes
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.ids import TaskId
from ledger.records import Placed, TaskRow
from ledger.task import Task

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Task] = msgspec.json.Decoder(Task)

OVERHEAD_BYTES = 4096
"""What an entry weighs beyond its encoded view and its answers: the decoded task, and what holds all of it."""
ANSWERS_MAX = 8
"""Renderings kept with a task: contracts times what varies their answer."""


_Waiters: TypeAlias = "list[tuple[asyncio.Future[Seen | None], str | None]]"
"""Who waits for a task, and as which account; None: as one who may see all."""


class Seen:
    """A task as of its last commit, with the answers already rendered from it, by whatever varies them."""

    __slots__ = ("__weakref__", "answers", "position", "seal_key", "task", "weight_bytes")

    def __init__(self, task: Task, position: int, weight_bytes: int, seal_key: bytes | None = None) -> None:
        self.task = task
        self.position = position
        self.seal_key = seal_key
        self.weight_bytes = weight_bytes + OVERHEAD_BYTES
        self.answers: dict[Hashable, Any] = {}
        """To be added to by `Views.keep_answer` only, which weighs them."""


def row_of(task: Task) -> TaskRow:
    """The task as its engine keeps it."""
    return TaskRow(
        task_id=task.task_id,
        account=task.account,
        contract=task.contract,
        capability=task.capability,
        model=task.model,
        status=task.status,
        version=task.version,
        created_at_us=task.created_at_us,
        authorised_micros=task.authorised_micros,
        held_micros=task.held_micros,
        released_micros=task.released_micros,
        charged_micros=task.charged_micros,
        refunded_micros=task.refunded_micros,
        view=_encoder.encode(task),
    )


def seen_of(placed: Placed) -> Seen:
    """The task of a row.

    Raises:
        DamagedError: its view is not one that was written.
    """
    try:
        task = _decoder.decode(placed.row.view)
    except ValueError as error:  # msgspec's errors are ValueErrors, and so is a broken character
        raise DamagedError(f"the view of task {placed.row.task_id.hex()} cannot be read: {error}") from error
    return Seen(task, placed.position, len(placed.row.view), placed.seal_key)


class Views:
    """The tasks of an engine, each as of its last commit."""

    def __init__(self, engine: Engine, *, weight_max_bytes: int) -> None:
        self.changes = Changes()
        """Who waits for what is put or dropped here."""
        self._engine = engine
        self._weight_max_bytes = weight_max_bytes
        self._weight_bytes = 0
        self._cache: OrderedDict[TaskId, Seen] = OrderedDict()
        self._wanted: dict[TaskId, _Waiters] = {}
        self._outdated: set[TaskId] = set()
        """What a read that is under way may bring of these was so before, and is not cached."""
        self._lost = 0
        """How often all were forgotten."""
        self._reading: asyncio.Task[None] | None = None

    def cached(self, task: TaskId) -> Seen | None:
        """The task, if it is at hand."""
        seen = self._cache.get(task)
        if seen is not None:
            self._cache.move_to_end(task)
        return seen

    async def get(self, task: TaskId) -> Seen | None:
        """The task, or None if there is none.

        Raises:
            StorageError: the store could not be read.
            DamagedError: what was read is not what was written.
        """
        seen = self.cached(task)
        return seen if seen is not None else await self.read(task)

    async def read(self, task: TaskId, *, account: str | None = None) -> Seen | None:
        """The task as the store has it, past the cache, or None: there is none, or it is not *account*'s.

        A foreign one is told by its row and not decoded, for it should cost about what an absent one does.
        """
        waiter: asyncio.Future[Seen | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(task, []).append((waiter, account))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_wanted())
        return await waiter

    async def get_all(self, tasks: Collection[TaskId]) -> list[Seen | None]:
        """As `get`, for many: those at hand, and the others in one read."""
        found = [self.cached(task) for task in tasks]
        if None not in found:
            return found
        return list(await asyncio.gather(*(self.get(task) for task in tasks)))

    def put(self, seen: Seen) -> None:
        """The task has been committed as *seen*."""
        self.drop(seen.task.task_id)
        self._keep(seen)

    def drop(self, task: TaskId) -> None:
        """Forget what is in memory of *task*, and what is just being read of it."""
        if self._reading is not None:
            self._outdated.add(task)
        self._forget(task)
        self.changes.tell(task)

    def forget(self) -> None:
        """Forget all tasks, and what is just being read of any: rows have been replaced in the store."""
        self._lost += 1
        self._cache.clear()
        self._weight_bytes = 0
        self.changes.tell_all()

    def keep_answer(self, seen: Seen, variant: Hashable, answer: Any, *, weight_bytes: int) -> None:  # noqa: ANN401
        """Keep *answer* with the task that it was rendered from, if that is in memory still and has room for it."""
        if len(seen.answers) >= ANSWERS_MAX or self._cache.get(seen.task.task_id) is not seen:
            return
        seen.answers[variant] = answer
        seen.weight_bytes += weight_bytes
        self._weight_bytes += weight_bytes
        self._evict()

    def _forget(self, task: TaskId) -> None:
        seen = self._cache.pop(task, None)
        if seen is not None:
            self._weight_bytes -= seen.weight_bytes

    def _keep(self, seen: Seen) -> None:
        self._forget(seen.task.task_id)
        self._cache[seen.task.task_id] = seen
        self._weight_bytes += seen.weight_bytes
        self._evict()

    def _evict(self) -> None:
        while self._weight_bytes > self._weight_max_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._weight_bytes -= oldest.weight_bytes

    async def _read_wanted(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            self._outdated.clear()
            lost = self._lost
            try:
                found = await self._engine.tasks(list(wanted))
            except Exception as error:  # noqa: BLE001 - every waiter is told, whatever it is
                for waiters in wanted.values():
                    _fail(waiters, error)
                continue
            if lost != self._lost:
                self._outdated.update(wanted)
            for task, waiters in wanted.items():
                self._answer(task, waiters, found.get(task))
        self._reading = None

    def _answer(self, task: TaskId, waiters: _Waiters, placed: Placed | None) -> None:
        if placed is None:
            _tell(waiters, None)
            return
        owner = placed.row.account
        _tell([one for one in waiters if one[1] not in (None, owner)], None)
        allowed = [one for one in waiters if one[1] in (None, owner)]
        if not allowed:
            return
        try:
            seen = seen_of(placed)
        except DamagedError as error:
            _fail(allowed, error)
            return
        if task not in self._outdated:
            self._keep(seen)
        _tell(allowed, seen)


def _tell(waiters: _Waiters, seen: Seen | None) -> None:
    for waiter, _ in waiters:
        if not waiter.done():  # done: its caller has left
            waiter.set_result(seen)


def _fail(waiters: _Waiters, error: Exception) -> None:
    for waiter, _ in waiters:
        if not waiter.done():
            waiter.set_exception(error)

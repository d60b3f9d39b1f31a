"""What is due: of each live task when it expires and when its worker was last heard, and what was reported too late.

In a side file, so that what is due is found by an index, and not by a look at every live task: a million of them take
no memory, and a look at what is due takes as long as there is something due. A task that has ended is in it no more.
Alternative beaten: a heap in memory, which would have to be filled from the log at every start, a minute for a million.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import aiosqlite
import msgspec

from ledger.engine import Engine
from ledger.events import TaskEvent
from ledger.ids import TaskId
from ledger.records import Recorded
from ledger.task import TERMINAL
from ledger.views import seen_of
from projections.deadlines.deadlines_sql import (
    ADD_KIND,
    ADD_LATE,
    BEGIN,
    END,
    EXPIRED,
    HEARD,
    KINDS,
    LATE_OF,
    LATE_SINCE,
    LATE_TASKS,
    SEE_TO,
    SEEN_TO,
    SHAPE,
    SILENT,
    STALLED,
    STALLED_COUNT,
    STEP,
)
from projections.deadlines.late_reports import Late, grouped, late_rows
from projections.facts import facts_of
from projections.side_file import SideFile, SideFileError, beside, open_side_file

_TYPES = frozenset(str(event.__struct_config__.tag) for event in get_args(TaskEvent))
_ENDS = frozenset({*(status.value for status in TERMINAL), "update-reverted"})
_BEGINS = frozenset({"created", "update-requested"})


class DeadlinesError(SideFileError):
    """The deadlines did not answer, or did not take a page; the log itself may be well."""


class Kind(NamedTuple):
    """What a task is, as far as its patience goes."""

    contract: str
    model: str


class Silent(NamedTuple):
    """A running task, the version that it had when nothing more had been recorded of it, and its last report's time."""

    task: TaskId
    version: int
    heard_at_us: int


class _Created(msgspec.Struct, gc=False):
    contract: str
    model: str
    expires_at_us: int | None = None


class _Begun(NamedTuple):
    task: bytes
    kind: Kind
    version: int
    expires_at_us: int | None


_created = msgspec.json.Decoder(_Created).decode


class Deadlines(SideFile):
    """The deadlines of one log's live tasks. `open_deadlines` is the way to get them."""

    shape = SHAPE
    error = DeadlinesError

    def __init__(self, file: aiosqlite.Connection) -> None:
        super().__init__(file)
        self._numbers: dict[Kind, int] = {}
        self._engine: Engine | None = None

    async def follow_only(self, engine: Engine) -> None:
        self._engine = engine
        await super().follow_only(engine)

    def _forget(self) -> None:
        self._numbers.clear()

    async def _post(self, rows: Sequence[Recorded]) -> None:
        rows = [row for row in rows if row.entry.type in _TYPES]
        is_over = _over(rows)
        begun = [_begun(row) for row in rows if row.entry.type == "created" and not is_over[row.stream]]
        begun += await self._again({row.stream for row in rows if row.entry.type == "update-requested"})
        alive = [one for one in begun if not is_over[one.task]]
        await self._file.executemany(
            BEGIN, [(one.task, await self._number(one.kind), one.version, one.expires_at_us) for one in alive]
        )
        steps = [
            (row.stream, row.version, row.entry.type, row.entry.recorded_at_us)
            for row in rows
            if not is_over.get(row.stream, False)
        ]
        await self._file.executemany(STEP, steps)
        await self._file.executemany(END, [(task,) for task, over in is_over.items() if over])
        await self._file.executemany(ADD_LATE, late_rows(rows))

    async def _again(self, tasks: Iterable[bytes]) -> list[_Begun]:
        """Tasks that had ended and are run once more. What is asked of them never changes, so their rows tell it."""
        assert self._engine is not None, "it follows an engine from its opening on"
        found = await self._engine.tasks([TaskId(task) for task in tasks])
        seen = [seen_of(placed).task for placed in found.values()]
        return [_Begun(task.task_id, Kind(task.contract, task.model), 0, task.expires_at_us) for task in seen]

    async def _number(self, kind: Kind) -> int:
        if kind not in self._numbers:
            self._numbers = {Kind(contract, model): number for number, contract, model in await self._read(KINDS)}
        if kind not in self._numbers:
            added = await self._file.execute(ADD_KIND, kind)
            assert added.lastrowid is not None
            self._numbers[kind] = added.lastrowid
        return self._numbers[kind]

    # What is due

    async def expired(self, now_us: int, *, limit: int) -> list[TaskId]:
        """Live tasks whose deadline has passed, the longest passed first."""
        return [TaskId(task) for (task,) in await self.ask(EXPIRED, (now_us, limit))]

    async def silent(self, before_us: Callable[[Kind], int | None], *, limit: int) -> list[Silent]:
        """Running tasks of which nothing was recorded after *before_us* of their kind, and that are not stalled yet.

        None for a kind: none of it is.
        """
        kinds = [(number, Kind(contract, model)) for number, contract, model in await self.ask(KINDS)]
        bounds = [(number, before) for number, kind in kinds if (before := before_us(kind)) is not None]
        rows = await self.ask(SILENT, (msgspec.json.encode(bounds).decode(), limit)) if bounds else []
        return [Silent(TaskId(task), version, heard_at) for task, version, heard_at in rows]

    async def hear(self, heard: Iterable[tuple[TaskId, int]]) -> None:
        """Note when workers were heard whose reports said nothing new, so that the log does not have them."""
        async with self._turn, self._transaction():
            await self._file.executemany(HEARD, heard)

    async def stalled(self, *, beyond: TaskId | None, oldest_first: bool, limit: int) -> list[TaskId]:
        """The stalled tasks, in the order of their creation, *beyond* one of them."""
        return [TaskId(task) for (task,) in await self.ask(STALLED[oldest_first], (beyond, limit))]

    async def stalled_count(self) -> int:
        """How many there are."""
        return int((await self.ask(STALLED_COUNT))[0][0])

    # What was reported too late

    async def late_since(self, *, limit: int) -> tuple[list[TaskId], int]:
        """Tasks of which something was reported too late that nobody has seen to yet, and up to which position."""
        seen = await self.ask(SEEN_TO)
        rows = await self.ask(LATE_SINCE, (seen[0][0] if seen else 0, limit))
        return [*dict.fromkeys(TaskId(task) for task, _ in rows)], rows[-1][1] if rows else 0

    async def see_to(self, position: int) -> None:
        """All that was reported too late up to *position* has been seen to."""
        async with self._turn, self._transaction():
            await self._file.execute(SEE_TO, (position,))

    async def late_tasks(self, *, beyond: TaskId | None, limit: int) -> list[TaskId]:
        """All tasks of which something was reported too late, in the order of their creation."""
        return [TaskId(task) for (task,) in await self.ask(LATE_TASKS, (beyond, limit))]

    async def late_of(self, tasks: Sequence[TaskId]) -> dict[TaskId, list[Late]]:
        """What was reported of these tasks too late."""
        return grouped([row for task in tasks for row in await self.ask(LATE_OF, (task, task))])


def _over(rows: Sequence[Recorded]) -> dict[bytes, bool]:
    """Whether the task has ended, after these rows, for each whose beginning or end is among them."""
    return {row.stream: row.entry.type in _ENDS for row in rows if row.entry.type in _ENDS | _BEGINS}


def _begun(row: Recorded) -> _Begun:
    """The task, as it was created."""
    created = facts_of(row, _created)
    return _Begun(row.stream, Kind(created.contract, created.model), row.version, created.expires_at_us)


def deadlines_of(ledger: Path) -> Path:
    """Where the deadlines of the ledger in that file are."""
    return beside(ledger, "deadlines")


async def open_deadlines(path: Path, engine: Engine) -> Deadlines:
    """The deadlines of *engine*'s log in the file *path*, begun if there are none.

    Raises:
        CannotOpenError: the file cannot be made or written, is none of ours, or newer than this program.
        StorageError: the log could not be read.
    """
    return await open_side_file(Deadlines, path, engine)

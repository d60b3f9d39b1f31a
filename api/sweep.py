"""The sweep: deadlines end their tasks, running tasks that nobody hears of are stalled, late truth becomes a break.

What is due is known from the deadlines, a follower's file, and done by commands through the ledger: so a report that
comes at the same moment wins or loses in the commit, never both. A task is marked as stalled at the version at which
nothing more had been recorded of it; whatever was recorded since refuses the mark. A deadline is on the clock on the
wall, since that is what its customer named; silence is measured as `ledger.silence` says. Swept twice,
nothing happens; ended in between, it goes on where it was, for what is due is due still.

Alternative beaten: a timer for each task, a million of which would have to be set anew at every start.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from api.followers import Duty
from api.keepers import Keeper
from ledger.break_log import BreakLog
from ledger.breaks import OpenBreak
from ledger.commands import Expire, MarkStalled
from ledger.errors import Overloaded, Refusal, StorageError
from ledger.ids import TaskId
from ledger.ledger import Ledger
from ledger.silence import Listening, Patience, silent_before
from ledger.unread import unread_truth
from projections.deadlines.deadlines import Deadlines, DeadlinesError, Kind, Silent, open_deadlines
from projections.reconciliation.self_check import LATE_PAGE_MAX, late_truths_of

NAME = "sweep"
REST_SECONDS = 0.5
"""Between two sweeps: what is due is ended within a second or two."""
CHUNK_MAX = 100
"""Tasks that expire, and that are marked as stalled, in one go: the queue is everybody's."""


def passed_us() -> int:
    """Microseconds as they pass, from no moment in particular; not while the machine sleeps."""
    return time.monotonic_ns() // 1000


class Sweeper(Keeper[Deadlines]):
    """Ends what is due in *ledger*, which it knows by the deadlines in the file at *path*."""

    pause_seconds = 0.05

    def __init__(
        self,
        ledger: Ledger,
        path: Path,
        *,
        clock: Callable[[], int],
        patience: Patience | None = None,
        passed_us: Callable[[], int] = passed_us,
    ) -> None:
        super().__init__(ledger.engine, path, open_deadlines)
        self._ledger, self._patience = ledger, patience or Patience()
        self._clock, self._passed_us = clock, passed_us
        self._listening = Listening(clock(), clock(), passed_us())

    @property
    def duty(self) -> Duty:
        """How the service has it follow the log."""
        return Duty(NAME, self.sweep, REST_SECONDS)

    async def sweep(self) -> int:
        """Bring the deadlines to the end of the log, and do what is due; the position of that end.

        Raises:
            DeadlinesError, CannotOpenError, DamagedError, StorageError: why it cannot be done.
        """
        try:
            async with self._opened() as deadlines:
                return await self._sweep(deadlines)
        except DeadlinesError:  # the log may be well all the same
            raise
        except StorageError:  # then it took no reports either
            self._listening = Listening(self._clock(), self._clock(), self._passed_us())
            raise

    async def _sweep(self, deadlines: Deadlines) -> int:
        while True:
            head = await self._catch_up(deadlines, pause_seconds=self.pause_seconds)
            now_us = self._clock()
            self._listening = self._listening.on(now_us, self._passed_us())
            commands: list[Expire | MarkStalled] = [
                *await self._expire(deadlines, now_us),
                *await self._stall(deadlines, now_us),
            ]
            if not await self._any_done(commands):
                await self._open_late(deadlines)
                await self._open_unread()
                return head.position

    async def _expire(self, deadlines: Deadlines, now_us: int) -> list[Expire]:
        due = await deadlines.expired(now_us, limit=CHUNK_MAX)
        return [Expire(task_id=task, at_us=now_us, actor=NAME) for task in due]

    async def _stall(self, deadlines: Deadlines, now_us: int) -> list[MarkStalled]:
        """Mark those that are silent; those that were heard without news wait for their turn again."""
        while True:
            silent = await deadlines.silent(self._silent_before, limit=CHUNK_MAX)
            heard = self._heard(silent)
            if not heard:
                break
            await deadlines.hear(heard)
        return [
            MarkStalled(
                task_id=one.task,
                at_us=now_us,
                actor=NAME,
                expected_version=one.version,
                silent_since_us=one.heard_at_us,
            )
            for one in silent
        ]

    def _heard(self, silent: Sequence[Silent]) -> list[tuple[TaskId, int]]:
        """Those that were heard all the same since their last report that said something new, and when."""
        noted = [(one, self._ledger.heard.take(one.task)) for one in silent]
        return [(one.task, at_us) for one, at_us in noted if at_us is not None and at_us > one.heard_at_us]

    def _silent_before(self, kind: Kind) -> int | None:
        return silent_before(self._listening, self._patience.us(*kind))

    async def _any_done(self, commands: Sequence[Expire | MarkStalled]) -> bool:
        """Send them; whether any did something, so that it is worth looking again at once.

        Raises:
            StorageError: the store did not take one; the others were sent all the same.
        """
        outcomes = await asyncio.gather(*map(self._ledger.handle, commands), return_exceptions=True)
        broken = [one for one in outcomes if isinstance(one, BaseException) and not isinstance(one, Refusal)]
        if broken:
            raise broken[0]
        if any(isinstance(one, Overloaded) for one in outcomes):
            return False  # others are at it: what is due is due still at the next sweep
        return any(not isinstance(one, BaseException) and one.appended for one in outcomes)

    async def _open_late(self, deadlines: Deadlines) -> None:
        """Open a break for each task of which something else was reported after its outcome; it is one, ever."""
        while True:
            tasks, position = await deadlines.late_since(limit=LATE_PAGE_MAX)
            if not tasks:
                return
            found = await late_truths_of(self._engine, deadlines, tasks)
            await BreakLog(self._engine).open([OpenBreak(at_us=self._clock(), found=one) for one in found], by=NAME)
            await deadlines.see_to(position)

    async def _open_unread(self) -> None:
        """Open a break for each live task of which something was reported that cannot be read; it is one, ever."""
        noted = self._ledger.unread.all()
        for start in range(0, len(noted), LATE_PAGE_MAX):
            page = noted[start : start + LATE_PAGE_MAX]
            seen = await self._ledger.views.get_all([task for task, _ in page])
            found = [
                unread_truth(one.task, unread) for one, (_, unread) in zip(seen, page, strict=True) if one is not None
            ]
            opens = [OpenBreak(at_us=self._clock(), found=one) for one in found if one is not None]
            await BreakLog(self._engine).open(opens, by=NAME)
            for task, unread in page:
                self._ledger.unread.done(task, unread)

"""Following the log: what reads it in order from a checkpoint, and saves what it made of it together with the next.

A follower that dies goes on from its checkpoint; one that is dropped is built anew from the beginning. It sees every
event once: a page begins right after the checkpoint, and a hole in it is a fault, never passed over.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.records import Head, Recorded

PAGE = 4000
"""Events read at once. Alone a quarter of it is as fast; but in a busy service each turn of a page waits for the event
loop, some ten times: beside a writer at 6,000 events/s books lagged 1.1 s with 1000, and 0.5 s with this."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told from time to time how much is done, and of how much."""


class Checkpoint(NamedTuple):
    """How far a follower is: the position of the last event that it has seen, 0 for none, and the hash there."""

    position: int
    hash: bytes


class Follower(Protocol):
    """Something that is folded from the log, in order."""

    async def checkpoint(self) -> Checkpoint:
        """Where it stands."""

    async def apply(self, rows: Sequence[Recorded], *, after: Checkpoint) -> bool:
        """Save what *rows* come to, and the checkpoint at the last of them, in one transaction.

        False, and nothing is saved: the checkpoint is not *after* any more, since another process has been here.
        """


def nobody(_done: int, _total: int) -> None:
    """Nobody is told."""


async def catch_up(
    engine: Engine,
    follower: Follower,
    *,
    until: int | None = None,
    progress: Progress = nobody,
    pause_seconds: float = 0,
) -> Head:
    """Bring *follower* to the end of the log as it is now, or further; that end. It rests between two pages.

    With *until* it goes to that position, or is beyond it already.

    Raises:
        DamagedError: the log has a hole, or is not the one that was followed.
    """
    at = await follower.checkpoint()
    head = await engine.head()  # after the checkpoint: another process may follow as well
    if until is None and at.position > head.position:
        raise DamagedError(f"the follower stands at {at.position}, the log ends at {head.position}: not its log")
    end = head.position if until is None else until
    while at.position < end:
        rows = await engine.after(at.position, min(PAGE, end - at.position))
        expected = range(at.position + 1, at.position + 1 + len(rows))
        if not rows or [row.position for row in rows] != [*expected]:
            raise DamagedError(f"the log has a hole after position {at.position}: run `task-ledger verify`")
        await follower.apply(rows, after=at)
        at = await follower.checkpoint()
        progress(at.position, end)
        await asyncio.sleep(pause_seconds)
    return head

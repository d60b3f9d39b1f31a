"""Waiting for a task: until it has changed, once, or for each of its states in turn.

A reader is woken when his task is committed, and reads it as it stands then. So what he sees is never older than what
was told to anyone before, and what passes while a slow one is busy is left out: he gets the state after it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from api import sse
from api.contracts.shape import Asked, ByTask, Contract, Follow, Streamed
from api.deps import Deps
from api.stays import Stay
from api.visible import visible
from ledger.ids import TaskId
from ledger.task import LIVE
from ledger.views import Seen


async def await_task(
    deps: Deps, asked: Asked, task: TaskId, *, seconds: float, is_news: Callable[[Seen], bool]
) -> None:
    """Return once the task *is news*, or after *seconds*, or when the service stops.

    Raises:
        TaskNotFound, StorageError: as `Ledger.task`.
        Overloaded: too many wait already.
        RevokedKey: the asker's key has died meanwhile.
    """
    if is_news(await deps.ledger.task(task, account=None)):
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    stay = deps.stays.enter(account=asked.account, key_id=asked.key_id, is_gone=asked.is_gone)
    with stay, deps.ledger.views.changes.of(task) as changed:
        while stay.why is None:
            changed.clear()
            if is_news(await deps.ledger.task(task, account=None)):
                break
            if not await stay.wait(changed.wait(), seconds=until - loop.time()):
                break
    stay.check()


async def follow(deps: Deps, contract: Contract, operation: Follow, asked: Asked) -> Streamed:
    """The task's states from now on, until it is over.

    Raises:
        TaskNotFound: as `visible`; then there is no stream.
        Overloaded: too many follow already.
    """
    seen = await visible(deps, contract, operation.target(asked), asked)
    stay = deps.stays.enter(account=asked.account, key_id=asked.key_id, is_gone=asked.is_gone)
    frames = _states(deps, contract, operation, asked, task=seen.task.task_id, stay=stay)
    return Streamed(stay, frames, operation.farewell)


async def _states(  # noqa: PLR0913 - whose, what, and from where
    deps: Deps, contract: Contract, operation: Follow, asked: Asked, *, task: TaskId, stay: Stay
) -> AsyncGenerator[bytes, None]:
    """A frame a state, the current one first, and a heartbeat when there is nothing to tell.

    Raises:
        TaskNotFound: it has been deleted.
    """
    last = b""
    with deps.ledger.views.changes.of(task) as changed:
        while stay.why is None:
            changed.clear()
            seen = await visible(deps, contract, ByTask(task), asked._replace(now_us=deps.clock()))
            frame = _frame(deps, operation, seen)
            if frame != last:
                yield frame
                last = frame
            if seen.task.status not in LIVE:
                return
            while not await stay.wait(changed.wait(), seconds=deps.stays.limits.heartbeat_seconds) and not stay.why:
                yield sse.HEARTBEAT


def _frame(deps: Deps, operation: Follow, seen: Seen) -> bytes:
    """The task's state as it is sent, rendered once for all who follow it."""
    frame: bytes | None = seen.answers.get(operation.frame)
    if frame is None:
        frame = operation.frame(seen.task)
        deps.ledger.views.keep_answer(seen, operation.frame, frame, weight_bytes=len(frame))
    return frame

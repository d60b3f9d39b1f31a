"""The list of the stalled tasks: those that run, and that nothing is heard of.

Which they are is known from the deadlines, by an index of their own; so a page costs what it shows, however many tasks
run. Alternative beaten: a column and an index of the tasks' own rows, which every commit would pay for.
"""

from api.contracts.shape import Asked
from api.deps import Deps
from api.refusals import Invalid, Unavailable
from ledger.ids import TaskId
from ledger.ledger import CHUNK_MAX_BYTES
from ledger.records import TaskFilter
from ledger.views import OVERHEAD_BYTES, Seen


async def stalled_page(deps: Deps, asked: Asked, wanted: TaskFilter) -> tuple[list[Seen], TaskId | None]:
    """The stalled tasks that are *wanted*, and from where the list goes on; None: that is all.

    A page is short, with more to come, when other tasks among the stalled do not fit, or when they are large.

    Raises:
        Invalid: what is asked is not *true*.
        Unavailable: it cannot be told just now which they are.
    """
    if asked.query["stalled"] != "true":
        raise Invalid("stalled is true, or left out", param="stalled")
    if deps.sweeper is None:
        raise Unavailable
    beyond = wanted.after if wanted.oldest_first else wanted.before
    tasks = await deps.sweeper.consult(
        lambda found: found.stalled(beyond=beyond, oldest_first=wanted.oldest_first, limit=wanted.limit + 1)
    )
    page: list[Seen] = []
    left_bytes, looked_at = CHUNK_MAX_BYTES, 0
    for task in tasks[: wanted.limit]:
        if left_bytes <= 0:
            break
        seen = await deps.ledger.task(task, account=None)
        left_bytes -= seen.weight_bytes - OVERHEAD_BYTES
        looked_at += 1
        if _fits(seen, wanted):
            page.append(seen)
    return page, tasks[looked_at - 1] if looked_at < len(tasks) else None


def _fits(seen: Seen, wanted: TaskFilter) -> bool:
    task = seen.task
    return (
        task.run.stalled_since_us is not None  # it may have been heard of in between
        and wanted.account in (None, task.account)
        and wanted.status in (None, task.status)
        and wanted.model in (None, task.model)
    )

"""The tasks that were ordered in the place of another one: found by looking through what its account ordered since.

A follower is never born before the one that it follows, so what is looked at lies between that one and now, and a page
looks at `LOOKED_AT_MAX` tasks at most. Alternatives beaten: an index of its own, which every commit would pay for, for
what hardly any task has; and an event of the one that is followed, whose history is over.
"""

from msgspec import UnsetType
from msgspec.structs import replace

from api.contracts import parse_any
from api.contracts.shape import Asked
from api.deps import Deps
from api.refusals import Invalid
from ledger.errors import TaskNotFound
from ledger.ids import Spelling, TaskId, born_us, earliest_id
from ledger.ledger import CHUNK, LOOKED_AT_MAX
from ledger.records import TaskFilter
from ledger.views import Seen


def followed_in(text: str | UnsetType | None) -> TaskId | None:
    """The task that a new one is to follow, in the spelling of any contract; None: it follows none.

    Raises:
        TaskNotFound: it is spelled in none of them.
    """
    task = parse_any(text) if isinstance(text, str) else None
    if isinstance(text, str) and task is None:
        raise TaskNotFound
    return task


async def followers_page(deps: Deps, asked: Asked, wanted: TaskFilter) -> tuple[list[Seen], TaskId | None]:
    """The tasks that follow the one that is asked for, as *wanted*, and from where the list goes on; None: that is all.

    Of a task that there is not there are none. A page is short, with more to come, when few of many tasks fit.

    Raises:
        Invalid: ``follows`` is no task's id, or stands beside ``stalled`` or ``at``.
    """
    task = parse_any(asked.query["follows"])
    if task is None:
        raise Invalid("follows is a task's id", param="follows")
    if {"stalled", "at"} & set(asked.query):
        raise Invalid("follows is of now, and of all tasks: leave out stalled and at", param="follows")
    try:
        followed = (await deps.ledger.task(task, account=None)).task
    except TaskNotFound:
        return [], None
    if wanted.account not in (None, followed.account):
        return [], None
    since = max(earliest_id(born_us(task)), wanted.after or earliest_id(0))
    return await _looked_through(
        deps, Spelling.UUID.spell(task), replace(wanted, account=followed.account, after=since)
    )


async def _looked_through(deps: Deps, followed: str, wanted: TaskFilter) -> tuple[list[Seen], TaskId | None]:
    found: list[Seen] = []
    where, looked_at, last = replace(wanted, limit=CHUNK), 0, None
    while looked_at < LOOKED_AT_MAX:
        chunk, more = await deps.ledger.page(where)
        for seen in chunk:
            if len(found) == wanted.limit:
                return found, last
            if seen.task.follows == followed:
                found.append(seen)
            last = seen.task.task_id
        if not more:
            return found, None
        looked_at += len(chunk)
        where = replace(where, after=last) if wanted.oldest_first else replace(where, before=last)
    return found, last

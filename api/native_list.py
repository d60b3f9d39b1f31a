"""The list of tasks: as they are now, those that are silent, or as they stood."""

from collections.abc import Sequence

from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_follows import followers_page
from api.native_queries import limit_in, moment_in, only
from api.native_shapes import task_view
from api.native_stalled import stalled_page
from api.refusals import Invalid
from ledger.cursors import cursor, task_of
from ledger.records import TaskFilter
from ledger.task import Status
from ledger.views import Seen
from projections.reports.as_of import Stood, tasks_as_of


async def list_tasks(deps: Deps, asked: Asked) -> Answer:
    """Newest first, or oldest first with ``order=asc``, which is how a dispatcher takes queued work."""
    wanted, log_id = _wanted(asked), asked.log_id
    moment = await moment_in(deps, asked, of_now="stalled")
    page: Sequence[Seen | Stood]
    if "follows" in asked.query:
        page, beyond = await followers_page(deps, asked, wanted)
    elif "stalled" in asked.query:
        page, beyond = await stalled_page(deps, asked, wanted)
    elif moment is not None:
        page, beyond = await tasks_as_of(deps.ledger.engine, wanted, moment)
    else:
        page, more = await deps.ledger.page(wanted)
        beyond = page[-1].task.task_id if more else None
    body = {
        "tasks": [task_view(one.task, position=one.position, log_id=log_id) for one in page],
        "next_cursor": None if beyond is None else cursor(log_id, beyond),
        "has_more": beyond is not None,
    }
    return json_answer(200, body)


LIST_PARAMS = frozenset({"status", "account", "model", "follows", "stalled", "cursor", "limit", "order", "at", "clock"})


def _wanted(asked: Asked) -> TaskFilter:
    query = asked.query
    only(asked, LIST_PARAMS)
    status = query.get("status")
    statuses = [one for one in Status if one is not Status.ABSENT]
    if status is not None and status not in statuses:
        raise Invalid(f"status is one of {', '.join(statuses)}", param="status")
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise Invalid("order is asc or desc", param="order")
    limit = limit_in(asked)
    beyond = task_of(asked.log_id, query["cursor"]) if "cursor" in query else None
    if "cursor" in query and beyond is None:
        raise Invalid("cursor is not one that a list of this log gave", param="cursor")
    oldest_first = order == "asc"
    return TaskFilter(
        account=query.get("account"),
        status=status,
        model=query.get("model"),
        oldest_first=oldest_first,
        limit=limit,
        after=beyond if oldest_first else None,
        before=None if oldest_first else beyond,
    )

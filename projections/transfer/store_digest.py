"""The digest of a store: one of all views, one of all accounts, and the totals, to be held against another's.

It says that two stores are alike; that an event is in a log is what `ledger.proofs` prove.
"""

from hashlib import sha256

import msgspec

from ledger.engine import Engine
from ledger.ids import TaskId
from ledger.records import TaskFilter
from projections.transfer.log_lines import StoreDigest

PAGE = 500
PAGE_MAX_BYTES = 8 * 2**20


async def digest_of(engine: Engine) -> StoreDigest:
    """What the store's rows come to. Positions are left out: a log that was moved may have others."""
    views, tasks = sha256(), 0
    after: TaskId | None = None
    while page := await engine.page(TaskFilter(after=after, oldest_first=True, limit=PAGE, bytes_max=PAGE_MAX_BYTES)):
        for placed in page:
            views.update(placed.row.task_id + len(placed.row.view).to_bytes(8, "big") + placed.row.view)
        tasks += len(page)
        after = page[-1].row.task_id
    rows = (await engine.accounts(None)).values()
    accounts = sha256()
    for row in rows:
        accounts.update(msgspec.json.encode(msgspec.structs.replace(row, position=0)))
    return StoreDigest(
        tasks=tasks,
        views=views.hexdigest(),
        accounts=accounts.hexdigest(),
        held_micros=sum(row.held_micros for row in rows),
        charged_micros=sum(row.charged_micros for row in rows),
        refunded_micros=sum(row.refunded_micros for row in rows),
    )

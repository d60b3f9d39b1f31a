"""The common invariant of all scenarios, summed up anew from the log's rows: not with the ledger's own sums."""

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from ledger.engine import Engine
from ledger.ids import TaskId
from ledger.ledger import fold_rows
from ledger.records import Placed, Recorded
from ledger.views import row_of
from projections.audit import audit

OUTCOMES = frozenset({"completed", "failed", "cancelled", "expired", "update-reverted"})


async def common_invariant(engine: Engine) -> dict[TaskId, list[Recorded]]:
    """The tasks' histories, once all of it has been found true.

    For each hold, captured, voided and still held are what was authorised; no more is given back than was taken; a
    run of a task has one outcome at most; a fold from scratch equals the stored view byte for byte; the chain holds.
    """
    report = await audit(engine)
    assert report.found == 0, report.findings
    histories: dict[TaskId, list[Recorded]] = {}
    for row in await engine.after(0, 1_000_000):
        if row.entry.type not in {"key-issued", "key-revoked"}:
            histories.setdefault(TaskId(row.stream), []).append(row)
    placed = await engine.tasks([*histories])
    assert placed.keys() == histories.keys()
    for task, rows in histories.items():
        _one_task(placed[task], rows)
    return histories


def _one_task(placed: Placed, rows: Sequence[Recorded]) -> None:
    moved: Counter[str] = Counter()
    for row in rows:
        moved[row.entry.type] += row.entry.amount_micros or 0
    captured = moved["charged"] if moved["held"] else 0
    assert captured + moved["released"] + placed.row.held_micros == moved["held"]
    assert 0 <= moved["refunded"] <= moved["charged"]
    types = [row.entry.type for row in rows]
    assert sum(name in OUTCOMES for name in types) <= 1 + types.count("update-requested")
    fresh = Placed(row=row_of(fold_rows(placed.row.task_id, [*rows])), position=rows[-1].position)
    assert replace(placed, seal_key=None) == fresh

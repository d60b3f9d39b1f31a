"""The common invariant of all scenarios, summed up anew from the log's rows: not with the ledger's own sums."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ledger.engine import Engine
from ledger.ids import TaskId
from ledger.ledger import fold_rows
from ledger.records import AccountRow, Placed, Recorded
from ledger.streams import is_task_stream
from ledger.views import row_of
from projections.audit.audit import audit
from projections.books.books import Books, open_books
from projections.reports.report import By, Wanted, draw

OUTCOMES = frozenset({"completed", "failed", "cancelled", "expired", "update-reverted"})


async def books_agree(engine: Engine, books: Books) -> None:
    """Check that the books that were kept all along tell what books tell that are made anew, by whatever."""
    with TemporaryDirectory(prefix="task-ledger-") as folder:
        anew = await open_books(Path(folder, "books"), engine)
        try:
            for by in By:
                wanted = Wanted(by=by)
                assert await draw(engine, books, wanted) == await draw(engine, anew, wanted)
        finally:
            await anew.close()


async def common_invariant(engine: Engine) -> dict[TaskId, list[Recorded]]:
    """The tasks' histories, once all of it has been found true.

    For each hold, captured, voided and still held are what was authorised; no more is given back than was taken; a
    run of a task has one outcome at most; a fold from scratch equals the stored view byte for byte; what an account's
    tasks cost is the sum of what each does, and as many are under way as are counted; the chain holds.
    """
    report = await audit(engine)
    assert report.found == 0, report.findings
    histories: dict[TaskId, list[Recorded]] = {}
    log = await engine.after(0, 1_000_000)
    for row in log:
        if is_task_stream(row.stream):
            histories.setdefault(TaskId(row.stream), []).append(row)
    placed = await engine.tasks([*histories])
    assert placed.keys() == histories.keys()
    for task, rows in histories.items():
        _one_task(placed[task], rows)
    kept = {name: _sums_of(row) for name, row in (await engine.accounts(None)).items()}
    assert {name: sums for name, sums in kept.items() if any(sums)} == exposures(log)
    return histories


class Sums(NamedTuple):
    """What an account's tasks cost, in micro-credits, and how many are under way."""

    held: int
    charged: int
    refunded: int
    expected: int
    live: int

    @property
    def exposure(self) -> int:
        return self.held + self.charged - self.refunded + self.expected


def exposures(rows: Sequence[Recorded]) -> dict[str, Sums]:
    """What every account's tasks cost by these rows of the log, from its first on, added up from their columns."""
    by_account: dict[str, list[Recorded]] = {}
    for row in rows:
        by_account.setdefault(row.account, []).append(row)
    accounts = {account: _exposure(own) for account, own in by_account.items()}
    return {account: sums for account, sums in accounts.items() if any(sums)}


def _exposure(rows: Sequence[Recorded]) -> Sums:
    moved, schools, expected = Counter[str](), dict[bytes, dict[str, Any]](), dict[bytes, int]()
    live: set[bytes] = set()
    for row in rows:
        kind, amount = row.entry.type, row.entry.amount_micros or 0
        if kind == "created":
            schools[row.stream] = msgspec.json.decode(row.entry.facts)["terms"]
        if kind in {"created", "update-requested"}:
            live.add(row.stream)
        elif kind in OUTCOMES:
            live.remove(row.stream)
        terms = schools.get(row.stream, {"school": "none"})
        if kind in {"created", "update-requested"} and terms["school"] == "on-success":
            expected[row.stream] = terms["estimated_micros"]
        elif kind in OUTCOMES:
            expected.pop(row.stream, None)
        moved[kind] += amount
        moved["captured"] += amount if kind == "charged" and terms["school"] == "hold" else 0
    held = moved["held"] - moved["released"] - moved["captured"]
    return Sums(held, moved["charged"], moved["refunded"], sum(expected.values()), len(live))


def _sums_of(row: AccountRow) -> Sums:
    return Sums(row.held_micros, row.charged_micros, row.refunded_micros, row.expected_micros, row.live_tasks)


def _one_task(placed: Placed, rows: Sequence[Recorded]) -> None:
    moved: Counter[str] = Counter()
    for row in rows:
        moved[row.entry.type] += row.entry.amount_micros or 0
    captured = moved["charged"] if moved["held"] else 0
    assert captured + moved["released"] + placed.row.held_micros == moved["held"]
    assert 0 <= moved["refunded"] <= moved["charged"]
    terms = msgspec.json.decode(rows[0].entry.facts)["terms"]
    if terms["school"] != "on-success":  # what is paid on success is authorised by each run, and by what it reports
        authorised = moved["held"] if terms["school"] == "hold" else terms["estimated_micros"]
        assert moved["charged"] - moved["refunded"] <= authorised
    types = [row.entry.type for row in rows]
    assert sum(name in OUTCOMES for name in types) <= 1 + types.count("update-requested")
    fresh = Placed(row=row_of(fold_rows(placed.row.task_id, [*rows])), position=rows[-1].position)
    assert replace(placed, seal_key=None) == fresh

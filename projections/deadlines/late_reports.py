"""Late reports: what was said of a task after its outcome, where it says something else. The outcome stands.

Of what several late reports of a task say, one difference is told, as of the same money everywhere: another status
before another amount. Whether a task completed moves its money; in which way it did not complete does not.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ledger.breaks import Difference
from ledger.events import BreakKind
from ledger.ids import Spelling, TaskId
from ledger.money import credits_text
from ledger.records import Recorded
from ledger.task import TERMINAL, Status, Task
from projections.facts import facts_of

_VERDICTS = frozenset({"completed", "failed", "cancelled"})
_TELLING = _VERDICTS | {"charged"}


class Late(NamedTuple):
    """A report after the outcome: what it said, and what it would have had the customer charged, if it said so."""

    reported: str
    claimed_micros: int | None


class _Told(msgspec.Struct, gc=False):
    reported: str
    claimed_micros: int | None = None


_told = msgspec.json.Decoder(_Told).decode


def late_rows(rows: Iterable[Recorded]) -> list[tuple[bytes, str, int | None, int]]:
    """What these events say of tasks that are over: the task, what was reported, what it claims, and the position.

    Raises:
        DamagedError: the facts of one cannot be read.
    """
    late = [(row, facts_of(row, _told)) for row in rows if row.entry.type == "late-reported"]
    return [
        (row.stream, told.reported, told.claimed_micros, row.position)
        for row, told in late
        if told.reported in _TELLING
    ]


def late_truth(task: Task, reports: Sequence[Late]) -> Difference | None:
    """How these reports differ from the outcome of *task*; None: they do not, or it has none at present."""
    if task.status not in TERMINAL:
        return None
    return next(iter([*_other_status(task, reports), *_other_amount(task, reports)]), None)


def _other_status(task: Task, reports: Iterable[Late]) -> Iterator[Difference]:
    for late in reports:
        said_done = late.reported == Status.COMPLETED
        if late.reported in _VERDICTS and said_done is not (task.status is Status.COMPLETED):
            due_micros = late.claimed_micros
            if due_micros is None:
                due_micros = task.terms.estimated_micros if said_done else 0
            yield _about(task, BreakKind.STATUS_CONFLICT, late, due_micros)


def _other_amount(task: Task, reports: Iterable[Late]) -> Iterator[Difference]:
    for late in reports:
        if late.claimed_micros is None:
            continue
        due_micros = late.claimed_micros + (task.net_micros if late.reported == "charged" else 0)
        if due_micros != task.net_micros:
            yield _about(task, BreakKind.AMOUNT, late, due_micros)


def _about(task: Task, kind: BreakKind, late: Late, due_micros: int) -> Difference:
    """The same difference as that which a provider's statement would show of the task."""
    spelled = Spelling.UUID.spell(task.task_id)
    claim = "" if late.claimed_micros is None else f" and {credits_text(late.claimed_micros)} credits to be charged"
    return Difference(
        provider=task.provider,
        kind=kind,
        about=f"task {spelled}",
        at_stake_micros=abs(due_micros - task.net_micros),
        since_us=task.run.finished_at_us or task.updated_at_us,
        detail=f"{late.reported}{claim} was reported after it was {task.status} here, "
        f"and charged {credits_text(task.net_micros)}",
        task=spelled,
    )


def grouped(rows: Iterable[tuple[bytes, str, int | None]]) -> dict[TaskId, list[Late]]:
    """Rows of a task, what was reported of it and what that claimed, by task, in their order."""
    reports: dict[TaskId, list[Late]] = {}
    for task, reported, claimed_micros in rows:
        reports.setdefault(TaskId(task), []).append(Late(reported, claimed_micros))
    return reports

"""What events do to the rows of tasks in the books. Pure.

Of an event's facts only a few are read, and no payload ever.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from ledger.events import School
from ledger.records import Recorded
from ledger.task import TERMINAL
from projections.facts import facts_of


class _Terms(msgspec.Struct, gc=False):
    school: str
    estimated_micros: int


class _Created(msgspec.Struct, gc=False):
    terms: _Terms
    resolved_model: str | None = None


class _Started(msgspec.Struct, gc=False):
    provider_task_id: str | None = None


class _Wished(msgspec.Struct, gc=False):
    unsupported: bool = False


_created = msgspec.json.Decoder(_Created).decode
_started = msgspec.json.Decoder(_Started).decode
_wished = msgspec.json.Decoder(_Wished).decode


class Step(NamedTuple):
    """What an event does to the state in its task's row: the parameters of `booked_sql.STEP`."""

    type: str
    at_us: int
    status: str | None
    asked: bool
    identified: bool
    task: bytes


_STATUSES = {status.value: status.value for status in TERMINAL} | {"started": "running", "update-requested": "queued"}
_STEPPING = {*_STATUSES, "cancel-requested", "update-reverted"}


def begun(row: Recorded) -> tuple[int, str | None, int]:
    """When the task was created, the model that makes it, where its own name stands for another, and micro-credits.

    They are what each of its runs is expected to be charged that is charged only when it succeeds.
    """
    created = facts_of(row, _created)
    expected_micros = created.terms.estimated_micros if created.terms.school == School.ON_SUCCESS else 0
    return row.entry.effective_at_us, created.resolved_model, expected_micros


def steps(rows: Iterable[Recorded]) -> list[Step]:
    """What these events do to the states of their tasks, in order."""
    return [_step(row) for row in rows if row.entry.type in _STEPPING]


def moved(rows: Iterable[Recorded], *, captures: Collection[int]) -> list[tuple[Any, ...]]:
    """What these movements, in order, come to for each task: the parameters of `booked_sql.MOVE_MONEY`.

    *captures* holds the positions of charges that are taken out of a hold.
    """
    sums: dict[bytes, tuple[int | None, int, int, int]] = {}
    for row in rows:
        entry, task = row.entry, row.stream
        kind, amount = entry.type, entry.amount_micros or 0
        held_at_us, held, charged, refunded = sums.get(task, (None, 0, 0, 0))
        match kind:
            case "held":
                sums[task] = (entry.effective_at_us, held + amount, charged, refunded)
            case "released":
                sums[task] = (held_at_us, held - amount, charged, refunded)
            case "charged":
                taken = amount if row.position in captures else 0
                sums[task] = (held_at_us, held - taken, charged + amount, refunded)
            case "refunded":
                sums[task] = (held_at_us, held, charged, refunded + amount)
    return [(*told, task) for task, told in sums.items()]


def provider_ids(rows: Iterable[Recorded]) -> list[tuple[str, bytes]]:
    """The provider's ids that these events tell, each with its task."""
    told = ((facts_of(row, _started).provider_task_id, row.stream) for row in rows if row.entry.type == "started")
    return [(provider_id, task) for provider_id, task in told if provider_id is not None]


def _step(row: Recorded) -> Step:
    entry = row.entry
    kind = entry.type
    return Step(
        type=kind,
        at_us=entry.effective_at_us,
        status=_STATUSES.get(kind),
        asked=kind == "cancelled" or (kind == "cancel-requested" and not facts_of(row, _wished).unsupported),
        identified=kind == "started" and facts_of(row, _started).provider_task_id is not None,
        task=row.stream,
    )

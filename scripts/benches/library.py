"""The yardstick of P6: the same history in aggregates of the `eventsourcing` library, over its own SQLite module."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from ledger.events import Charged, Completed, Created, Held, Progressed, Released, Started, TaskEvent
from scripts.benches.load import LoadError
from scripts.benches.measure import Figure


class Job(Aggregate):
    """A task, as far as a bench's history goes."""

    @event("Created")
    def __init__(self, account: str, model: str, terms: dict[str, Any], asked: dict[str, Any]) -> None:
        self.account, self.model, self.terms, self.asked = account, model, terms, asked
        self.status = "queued"
        self.held = self.charged = self.released = 0
        self.keys: dict[str, int] = {}
        self.percent: int | None = None

    @event("Held")
    def hold(self, amount: int, key: str) -> None:
        self.held += amount
        self.keys[key] = amount

    @event("Started")
    def start(self, worker: str, provider_task_id: str) -> None:
        self.status, self.worker, self.provider_task_id = "running", worker, provider_task_id

    @event("Progressed")
    def progress(self, percent: int, stage: str) -> None:
        self.percent, self.stage = percent, stage

    @event("Completed")
    def complete(self, output: dict[str, Any], usage: dict[str, Any]) -> None:
        self.status, self.percent, self.output, self.usage = "completed", 100, output, usage

    @event("Charged")
    def charge(self, amount: int, key: str) -> None:
        self.held -= amount
        self.charged += amount
        self.keys[key] = amount

    @event("Released")
    def release(self, amount: int, key: str) -> None:
        self.held -= amount
        self.released += amount
        self.keys[key] = amount


class History:
    """Lives of tasks in the library's store."""

    def __init__(self, path: Path, lives: Sequence[Sequence[TaskEvent]]) -> None:
        env = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
        self._application: Application[UUID] = Application(env=env)
        self._ids: list[UUID] = []
        self._events = 0
        for life in lives:
            job = _lived(life)
            self._application.save(job)
            self._ids.append(job.id)
            self._events += len(life)

    def replayed(self) -> Figure:
        """Events a second."""
        repository = self._application.repository
        began_at = time.perf_counter()
        statuses = {_status(repository.get(job)) for job in self._ids}
        seconds = time.perf_counter() - began_at
        if statuses != {"completed"}:
            raise LoadError(f"the library's tasks are {statuses}")
        return Figure(self._events / seconds)


def _status(job: Any) -> str:  # noqa: ANN401 - the library does not tell which aggregate it gives
    assert isinstance(job, Job)
    return job.status


def _lived(life: Sequence[TaskEvent]) -> Job:
    created = life[0]
    assert isinstance(created, Created), "a life begins so"
    terms = {"school": created.terms.school.value, "estimated_micros": created.terms.estimated_micros}
    job = Job(created.account, created.model, terms, created.content.input or {})
    for one in life[1:]:
        match one:
            case Held():
                job.hold(one.amount_micros, one.key)
            case Started():
                job.start(one.worker or "", one.provider_task_id or "")
            case Progressed():
                job.progress(one.percent or 0, one.stage or "")
            case Completed():
                job.complete(one.content.output or {}, one.usage or {})
            case Charged():
                job.charge(one.amount_micros, one.key)
            case Released():
                job.release(one.amount_micros, one.key)
            case _:
                raise LoadError(f"the yardstick knows no {type(one).__name__}")
    return job

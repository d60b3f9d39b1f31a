"""What Prometheus reads at ``/metrics``: counted as it happens in plain integers, and put into words only when asked.

Alternative beaten: the client library's own counters, which take a lock and a look-up of labels at each request.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from api.connections import Connections
from api.contracts.shape import Answer, Asked
from api.deps import Deps
from api.followers import State
from api.native_queries import only
from api.refusals import Unavailable
from ledger.breaks import Life
from ledger.events import BreakKind
from ledger.figures import Histogram
from ledger.ledger import Ledger
from ledger.money import MICROS_PER_CREDIT
from ledger.times import US_PER_SECOND
from projections.books.booked import Holds, open_holds
from projections.books.books import Books
from projections.books.break_rows import Count, count_breaks
from projections.deadlines.deadlines import Deadlines

Requests: TypeAlias = Counter[tuple[str, str, str, int]]
"""Requests by contract, method, route and status; the method and the route of those that found none are empty."""


class Kept(NamedTuple):
    """What the followers know, as of their last page; None: it cannot be told just now."""

    holds: Holds | None
    breaks: dict[BreakKind, Count] | None
    stalled: int | None


async def metrics(deps: Deps, asked: Asked) -> Answer:
    """All figures, in Prometheus' text format."""
    only(asked, set())
    families = [
        *_of_requests(deps.requests, deps.connections),
        GaugeMetricFamily("task_ledger_staying", "Long polls and streams that are open.", value=len(deps.stays)),
        *_of_the_ledger(deps.ledger),
        *_of_followers(deps.followers.states),
        *_of_what_is_kept(await _kept(deps)),
    ]
    registry = CollectorRegistry()
    registry.register(_Once(families))
    return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)


class _Once(Collector):
    """Figures as they are now."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


async def _kept(deps: Deps) -> Kept:
    async def of_books(books: Books) -> tuple[Holds, dict[BreakKind, Count]]:
        return await open_holds(books), await count_breaks(books, life=Life.OPEN)

    async def of_deadlines(deadlines: Deadlines) -> int:
        return await deadlines.stalled_count()

    holds = breaks = stalled = None
    with suppress(Unavailable):  # a figure that is missing is told by its absence, and why by the follower's
        holds, breaks = await deps.books.peek(of_books)
    with suppress(Unavailable):
        stalled = None if deps.sweeper is None else await deps.sweeper.peek(of_deadlines)
    return Kept(holds, breaks, stalled)


def _of_requests(requests: Requests, connections: Connections) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "task_ledger_requests", "Requests answered.", labels=("contract", "method", "route", "status")
    )
    for (contract, method, route, status), count in [*requests.items()]:
        answered.add_metric((contract, method, route, str(status)), count)
    yield answered
    yield GaugeMetricFamily("task_ledger_connections", "Connections that are open.", value=len(connections))
    cut = CounterMetricFamily(
        "task_ledger_connections_cut_off",
        "Connections cut off by what they kept us waiting with, or not let in (full).",
        labels=("reason",),
    )
    for reason, count in connections.cut.items():
        cut.add_metric((reason,), count)
    yield cut


def _of_the_ledger(ledger: Ledger) -> Iterator[Metric]:
    commits = ledger.writer.commits
    yield _histogram("task_ledger_commit_seconds", "How long commits took.", commits.took_us, unit=US_PER_SECOND)
    yield _histogram("task_ledger_commit_commands", "For how many commands commits were.", commits.commands)
    yield GaugeMetricFamily(
        "task_ledger_queue_depth", "Commands that wait for their commit to begin.", value=ledger.writer.queued
    )
    called = CounterMetricFamily("task_ledger_callbacks", "Attempts to call back, by outcome.", labels=("outcome",))
    for outcome in ("delivered", "failed"):
        called.add_metric((outcome,), ledger.attempts[outcome])
    yield called
    yield CounterMetricFamily(
        "task_ledger_unread_reports_let_go",
        "Reports that could not be read and open no break: too many came between two sweeps.",
        value=ledger.unread.let_go,
    )


def _histogram(name: str, what: str, counted: Histogram, *, unit: int = 1) -> Metric:
    counts = counted.cumulated
    bounds = [*(f"{bound / unit:g}" for bound in counted.bounds), "+Inf"]
    return HistogramMetricFamily(
        name, what, buckets=[*zip(bounds, counts, strict=True)], sum_value=counted.total / unit
    )


def _of_followers(states: Sequence[State]) -> Iterator[Metric]:
    lag = GaugeMetricFamily("task_ledger_follower_lag_events", "Events it is behind the log.", labels=("follower",))
    failing = GaugeMetricFamily("task_ledger_follower_failing", "1: it cannot go on.", labels=("follower",))
    skipped = CounterMetricFamily(
        "task_ledger_follower_skipped_events",
        "Events passed over: none, for a follower whose next page has a hole stops there and is failing.",
        labels=("follower",),
    )
    for state in states:
        lag.add_metric((state.name,), state.lag)
        failing.add_metric((state.name,), state.failure is not None)
        skipped.add_metric((state.name,), 0)
    yield from (lag, failing, skipped)


def _of_what_is_kept(kept: Kept) -> Iterator[Metric]:
    if kept.holds is not None:
        yield GaugeMetricFamily("task_ledger_open_holds", "Tasks for which something is held.", value=kept.holds.tasks)
        held = kept.holds.held_micros / MICROS_PER_CREDIT
        yield GaugeMetricFamily("task_ledger_held_credits", "Credits that are held.", value=held)
    if kept.breaks is not None:
        breaks = GaugeMetricFamily("task_ledger_open_breaks", "Breaks that are open.", labels=("kind",))
        for kind in BreakKind:
            breaks.add_metric((kind,), kept.breaks.get(kind, Count(0, 0)).breaks)
        yield breaks
    if kept.stalled is not None:
        what = "Running tasks that nobody hears of."
        yield GaugeMetricFamily("task_ledger_stalled_tasks", what, value=kept.stalled)

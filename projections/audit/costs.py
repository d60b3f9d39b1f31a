"""The audit of what providers bill: each line against what it came to before, and against the task that it names.

Memory is a number for each line that was ever billed.
"""

import hashlib

from ledger.breaks import provider_stream
from ledger.costs import signed_micros
from ledger.engine import Engine
from ledger.events import CostEvent, tag_of
from ledger.ids import Spelling, TaskId
from ledger.records import Placed, Recorded
from ledger.views import seen_of
from projections.audit.findings import Check, Findings, sound
from projections.facts import brief


class CostBooks:
    """What every line should come to, gathered as the log goes by."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._lines: dict[bytes, int] = {}
        self._page: list[tuple[Recorded, CostEvent]] = []

    def take(self, row: Recorded, event: CostEvent) -> bytes:
        """Fold an event; the name of the stream that it belongs in."""
        line = hashlib.sha256(f"{event.provider}\x00{event.line}".encode()).digest()[:16]
        known = self._lines.get(line, 0)
        if event.line_micros != known + signed_micros(event):
            detail = f"{tag_of(event)} of {event.amount_micros} makes {event.line_micros} of the {known} of its line"
            self._add(row, detail)
        self._lines[line] = event.line_micros
        self._page.append((row, event))
        return provider_stream(event.provider)

    async def compare(self, engine: Engine) -> None:
        """Check the tasks that the events of this page name: they are there, the provider's, and as they are told."""
        page, self._page = self._page, []
        named = [(row, event, None if event.task is None else Spelling.UUID.parse(event.task)) for row, event in page]
        ids = list({task for _, _, task in named if task is not None})
        if not named:
            return
        try:
            placed = sound(await engine.tasks(ids), dict[TaskId, Placed]) if ids else {}
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            detail = f"the tasks that are billed cannot be read: {brief(error)}"
            self._found.add(Check.UNREADABLE, detail, position=page[0][0].position)
            return
        for row, event, task in named:
            problem = _problem(event, None if task is None else placed.get(task))
            if problem is not None:
                self._add(row, f"{tag_of(event)} {problem}")

    def _add(self, row: Recorded, detail: str) -> None:
        self._found.add(Check.COSTS, detail, position=row.position)


def _problem(event: CostEvent, placed: Placed | None) -> str | None:
    """What is wrong with whom it bills."""
    if event.task is None:
        return "is of no task, and of an account or a contract" if event.account or event.contract else None
    if placed is None:
        return f"bills task {event.task}, which is not there"
    row = placed.row
    if (event.account, event.contract, event.model) != (row.account, row.contract, row.model):
        return f"says of task {event.task} what its row does not"
    if _provider(placed) not in {None, event.provider}:
        return f"bills task {event.task} of another provider"
    return None


def _provider(placed: Placed) -> str | None:
    """Who made the task; None: its view cannot be read, which is told of its row."""
    try:
        return seen_of(placed).task.provider
    except Exception:  # noqa: BLE001 - whatever damage makes a decoder raise
        return None

"""The audit of accounts: their rows against the sums of their tasks and the fold of their own events."""

from collections.abc import Mapping, Sequence

from ledger.credit import Credit, credit_violations, evolve_credit, moves
from ledger.engine import Engine
from ledger.events import CreditEvent, TaskEvent
from ledger.records import AccountRow, Recorded
from ledger.task import Task
from projections.audit.findings import Check, Findings, differences, sound
from projections.facts import brief
from projections.replay.account_sums import Sums


class AccountBooks:
    """What every account should come to, gathered by both passes: in memory, an entry an account."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._sums: dict[str, Sums] = {}
        self._credits: dict[str, Credit] = {}

    def credit(self, row: Recorded, event: CreditEvent) -> None:
        """Fold an event of an account's own stream."""
        before = self._credits.setdefault(row.account, Credit())
        for detail in credit_violations(before, event):
            self._found.add(Check.MONEY, detail, position=row.position)
        credit = self._credits[row.account] = evolve_credit(before, event)
        credit.version = row.version
        sums = self._of(row.account)
        sums.set_terms(credit)
        sums.move_on(row.position)

    def task(self, task: Task, positions: Sequence[int], events: Sequence[TaskEvent]) -> None:
        """Add what a task, folded from these events, costs its account, and whether it is under way."""
        moved_at = [position for position, event in zip(positions, events, strict=True) if moves(event)]
        if moved_at:
            sums = self._of(task.account)
            sums.add(task)
            sums.move_on(max(moved_at))

    def part(self, sums: Mapping[str, Sums]) -> None:
        """Add what a part of all tasks comes to."""
        for account, one in sums.items():
            self._of(account).merge(one)

    async def compare(self, engine: Engine) -> None:
        """Compare the accounts' rows with what was gathered."""
        try:
            rows = sound(await engine.accounts(None), dict[str, AccountRow])
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            self._found.add(Check.UNREADABLE, f"the accounts cannot be read: {brief(error)}")
            return
        for account, sums in self._sums.items():
            for detail in differences(f"account {account!r}", rows.pop(account, None), sums.row(account)):
                self._found.add(Check.ACCOUNTS, detail, position=sums.position)
        for account in rows:
            self._found.add(Check.ACCOUNTS, f"account {account!r}: nothing in the log moves it")

    def _of(self, account: str) -> Sums:
        return self._sums.setdefault(account, Sums())

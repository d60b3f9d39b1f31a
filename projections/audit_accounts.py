"""The audit of accounts: their rows against the sums of their tasks and the fold of their own events."""

from collections.abc import Iterable, Sequence

from ledger.credit import Credit, evolve_credit, expected_of, moves
from ledger.engine import Engine
from ledger.events import CreditEvent, CreditGranted, CreditRevoked
from ledger.records import SUM_MAX_MICROS, AccountRow, Recorded
from ledger.task import LIVE, Task
from projections.audit_findings import Check, Findings, brief, differences, sound


class _Sums:
    """What one account comes to, as far as it has been read."""

    __slots__ = ("charged", "credit", "expected", "held", "live_tasks", "position", "refunded")

    def __init__(self) -> None:
        self.position = 0
        self.credit = Credit()
        self.held = self.charged = self.refunded = self.expected = self.live_tasks = 0

    def row(self, account: str) -> AccountRow:
        return AccountRow(
            account=account,
            position=self.position,
            version=self.credit.version,
            limit_micros=self.credit.limit_micros,
            granted_micros=self.credit.granted_micros,
            held_micros=min(self.held, SUM_MAX_MICROS),
            charged_micros=min(self.charged, SUM_MAX_MICROS),
            refunded_micros=min(self.refunded, SUM_MAX_MICROS),
            expected_micros=min(self.expected, SUM_MAX_MICROS),
            live_tasks=self.live_tasks,
        )


def _credit_breaks(before: Credit, event: CreditEvent) -> Iterable[str]:
    """What is wrong with this event after *before*."""
    match event:
        case CreditGranted(key=key) if key in before.grants:
            yield f"key {key!r} grants a second time"
        case CreditRevoked(key=key) if key in before.revoked:
            yield f"key {key!r} takes back a second time"
        case CreditRevoked(grant=grant, amount_micros=amount) if amount > before.left_of(grant):
            yield f"more is taken back of grant {grant!r} than was left of it"
        case _:
            pass


class AccountBooks:
    """What every account should come to, gathered by both passes: in memory, an entry an account."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._sums: dict[str, _Sums] = {}

    def credit(self, row: Recorded, event: CreditEvent) -> None:
        """Fold an event of an account's own stream."""
        sums = self._of(row.account)
        before = sums.credit
        for detail in _credit_breaks(before, event):
            self._found.add(Check.MONEY, detail, position=row.position)
        sums.credit = evolve_credit(before, event)
        sums.credit.version = row.version
        sums.position = max(sums.position, row.position)

    def task(self, task: Task, rows: Sequence[Recorded]) -> None:
        """Add what a task, folded from these rows, costs its account, and whether it is under way."""
        places = [row.position for row in rows if moves(row.entry.type)]
        if not places:
            return
        sums = self._of(task.account)
        sums.held += task.held_micros
        sums.charged += task.charged_micros
        sums.refunded += task.refunded_micros
        sums.expected += expected_of(task)
        sums.live_tasks += task.status in LIVE
        sums.position = max(sums.position, *places)

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

    def _of(self, account: str) -> _Sums:
        return self._sums.setdefault(account, _Sums())

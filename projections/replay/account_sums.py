"""What an account's tasks come to, added up as they are folded, with the terms that it was given."""

import msgspec

from ledger.credit import Credit, expected_of
from ledger.records import SUM_MAX_MICROS, AccountRow
from ledger.task import LIVE, Task


class Sums(msgspec.Struct):
    """Of one account, or of a part of its tasks; *position*: where in the log it was moved last, as far as that."""

    position: int = 0
    version: int = 0
    limit_micros: int | None = None
    granted_micros: int | None = None
    held_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    expected_micros: int = 0
    live_tasks: int = 0

    def add(self, task: Task, *, sign: int = 1) -> None:
        """Add a task, or with *sign* -1 take it away."""
        self.held_micros += sign * task.held_micros
        self.charged_micros += sign * task.charged_micros
        self.refunded_micros += sign * task.refunded_micros
        self.expected_micros += sign * expected_of(task)
        self.live_tasks += sign * (task.status in LIVE)

    def move_on(self, position: int) -> None:
        """It was moved there, or later."""
        self.position = max(self.position, position)

    def merge(self, other: "Sums") -> None:
        """Add what another part of the log has of the same account."""
        self.move_on(other.position)
        self.held_micros += other.held_micros
        self.charged_micros += other.charged_micros
        self.refunded_micros += other.refunded_micros
        self.expected_micros += other.expected_micros
        self.live_tasks += other.live_tasks
        if other.version > self.version:
            self.version, self.limit_micros, self.granted_micros = (
                other.version,
                other.limit_micros,
                other.granted_micros,
            )

    def set_terms(self, credit: Credit) -> None:
        """Its own stream gives it these."""
        self.version, self.limit_micros, self.granted_micros = (
            credit.version,
            credit.limit_micros,
            credit.granted_micros,
        )

    def row(self, account: str) -> AccountRow:
        """The account's row; a sum is kept at what every engine holds."""
        return AccountRow(
            account=account,
            position=self.position,
            version=self.version,
            limit_micros=self.limit_micros,
            granted_micros=self.granted_micros,
            held_micros=min(self.held_micros, SUM_MAX_MICROS),
            charged_micros=min(self.charged_micros, SUM_MAX_MICROS),
            refunded_micros=min(self.refunded_micros, SUM_MAX_MICROS),
            expected_micros=min(self.expected_micros, SUM_MAX_MICROS),
            live_tasks=self.live_tasks,
        )

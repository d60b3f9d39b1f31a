"""The accounts of one batch, each as the commands that were decided into it so far have left it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from ledger.accounts import with_terms
from ledger.commands import NewWork
from ledger.credit import admit, moved
from ledger.records import AccountRow, Move, Outcome, Stale

Places: TypeAlias = Mapping[str, int]
"""Where in the log accounts stand, by their names."""


class Tally:
    """Accounts by name; each that any command of the batch touches has been learned before."""

    def __init__(self) -> None:
        self._rows: dict[str, AccountRow] = {}
        self._moved_by: dict[str, int] = {}
        """The last append of the batch to move an account, by its place in the batch."""
        self._places: dict[str, int] = {}
        """Where accounts stood before the batch."""
        self._read_at: dict[str, int] = {}
        """How far the log had come, at the least, when the terms of accounts were read."""

    def successor(self) -> "Tally":
        """The tally of a batch on top of this one's, before it is known where in the log that is."""
        after = Tally()
        after._rows = {account: self._rows[account] for account in self._moved_by}
        return after

    def rest_on(self, places: Places) -> None:
        """The batch before has been written, and the accounts that it moved stand at *places*."""
        for account, place in places.items():
            self._places[account] = max(place, self._places.get(account, 0))

    def unknown(self, accounts: set[str]) -> set[str]:
        """Those that have not been learned."""
        return accounts - self._rows.keys()

    def learn(self, rows: Iterable[AccountRow]) -> None:
        """Take in accounts that were unknown."""
        for row in rows:
            self._rows[row.account] = row
            self._places[row.account] = row.position

    def learn_terms(self, rows: Iterable[AccountRow]) -> None:
        """Take in terms that have just been read; what the accounts' tasks cost is known better here."""
        for row in rows:
            known = self._rows[row.account]
            self._read_at[row.account] = row.position
            if row.version > known.version:
                self._rows[row.account] = with_terms(known, row)
                self.rest_on({row.account: row.position})

    def after(self, account: str, move: Move, *, new: NewWork | None) -> AccountRow:
        """The account as *move* leaves it, which *new* asks for, if it is new work.

        Raises:
            TooManyTasks, InsufficientCredits: as `ledger.credit.admit`.
        """
        row = self._rows[account]
        if new is not None:
            admit(row, move, tasks_max=new.tasks_max)
        return moved(row, move)

    def put(self, row: AccountRow, *, by: int) -> None:
        """The append at this place in the batch leaves the account so."""
        self._rows[row.account] = row
        self._moved_by[row.account] = by

    def moved_by(self, account: str) -> int | None:
        """The last append to move the account; None: it stands as it stood before the batch."""
        return self._moved_by.get(account)

    def place(self, account: str, *, moved_by: int | None, outcomes: Sequence[Outcome]) -> int | None:
        """Where the account stood after that append; None: unknown, because a part of the batch was not written."""
        if any(isinstance(outcome, Stale) for outcome in outcomes):
            return None
        before = self._places.get(account, 0)
        outcome = before if moved_by is None else outcomes[moved_by]
        assert not isinstance(outcome, Stale), "just looked"
        return max(before, outcome)

    def version(self, account: str) -> int:
        """The version of the account's terms."""
        return self._rows[account].version

    def terms_stood_at(self, account: str, place: int) -> bool:
        """Whether the account's terms were read when the log had come as far as *place*."""
        return place <= self._read_at.get(account, 0)

    def places(self, outcomes: Sequence[Outcome]) -> Places:
        """Where the accounts stand that the batch has moved, when all of it was written."""
        return {account: _written(outcomes[last]) for account, last in self._moved_by.items()}

    def moved(self, outcomes: Sequence[Outcome]) -> list[AccountRow]:
        """The accounts that the batch has moved, when all of it was written."""
        return [replace(self._rows[account], position=place) for account, place in self.places(outcomes).items()]


def _written(outcome: Outcome) -> int:
    assert not isinstance(outcome, Stale), "all of it was written"
    return outcome

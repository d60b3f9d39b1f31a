"""Idempotency keys, as a batch decides by them: which are taken, by which request, and what its twins get.

The first request that brings a key is carried out and takes it, in the same append; the same request again gets the
first answer, and another one is refused.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ledger.commands import Claim, TaskCommand
from ledger.errors import KeyReused
from ledger.events import Claimed
from ledger.ids import TaskId
from ledger.records import ClaimId, ClaimRow


class FirstAnswer(NamedTuple):
    """Where the first answer to a request is: the task as of *version*."""

    task_id: TaskId
    version: int
    appended: bool


class Claims:
    """The keys that a batch knows to be taken; all that its commands bring have been looked up before."""

    def __init__(self, rows: Mapping[ClaimId, ClaimRow]) -> None:
        self._rows = dict(rows)

    def learn(self, rows: Mapping[ClaimId, ClaimRow]) -> None:
        """Take in what has been read; what has been decided since is newer."""
        self._rows = {**rows, **self._rows}

    def put(self, rows: Sequence[ClaimRow]) -> None:
        """These are taken from now on."""
        self._rows.update((row.id, row) for row in rows)

    def first_answer(self, command: TaskCommand) -> ClaimRow | None:
        """The claim under which this request was answered before, if it was: the first, if it brings several keys.

        Raises:
            KeyReused: one of its keys belongs to another request.
        """
        taken = [(claim, row) for claim in command.claims if (row := self._taken(claim, command.at_us)) is not None]
        for claim, row in taken:
            if row.fingerprint != claim.fingerprint:
                raise KeyReused(claim.operation, claim.key, fingerprint=row.fingerprint, task=row.task_id)
        return taken[0][1] if taken else None

    def free(self, command: TaskCommand) -> list[Claim]:
        """Those of the request's keys that nobody has."""
        return [claim for claim in command.claims if self._taken(claim, command.at_us) is None]

    def _taken(self, claim: Claim, at_us: int) -> ClaimRow | None:
        """The row of the claim's key, unless it is free."""
        row = self._rows.get((claim.account, claim.operation, claim.key))
        return None if row is None or _lapsed(claim, row, at_us) else row


def _lapsed(claim: Claim, row: ClaimRow, at_us: int) -> bool:
    return claim.window_us is not None and at_us - row.at_us >= claim.window_us


def claimed(claim: Claim) -> Claimed:
    """The claim as the event keeps it that its request caused."""
    return Claimed(account=claim.account, operation=claim.operation, key=claim.key, fingerprint=claim.fingerprint)


def claim_row(claim: Claim, answer: FirstAnswer | ClaimRow, *, at_us: int) -> ClaimRow:
    """The claim as it is looked up: taken at *at_us*, for *answer*."""
    return ClaimRow(
        account=claim.account,
        operation=claim.operation,
        key=claim.key,
        fingerprint=claim.fingerprint,
        task_id=answer.task_id,
        version=answer.version,
        appended=answer.appended,
        at_us=at_us,
    )

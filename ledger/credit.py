"""What an account may spend, and have under way: its limit, its grants, and the admission of new work. Pure.

An account without a limit that was never granted anything is unlimited. Any other has available what its limit (or
nothing) and its grants come to, less its exposure: what its tasks hold, and were charged and not given back, and what
the live runs of a model that is charged on success are expected to cost. Without the last, any number of them could
be under way on credit for one.

Only new work is refused: a create, and an update, which is a further run. What a worker reports is a fact, and is
taken even when it passes the limit: then nothing new is admitted until there is room again. So a limit may be set
below the exposure, and cancels nothing. What costs nothing is always admitted.

How many tasks an account may have under way at once is not the log's to say: that is a setting of whoever serves, and
comes with the command. How many there are is counted beside the exposure, and moved with it. Of an account that has
neither room nor credit it is said that it has no room: that passes by itself (chosen: the vendor who caps is silent).

A grant is corrected by a new event that names it, for at most what is left of it; an account whose grants have all been
taken back has nothing, and is not unlimited again. Alternatives beaten: a balance that charges are written off
from, a second book that could disagree with the tasks'; and grants without keys, which a retry would double.
"""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from ledger.errors import AmountExceeds, InsufficientCredits, KeyReused, TooManyTasks
from ledger.events import (
    Cancelled,
    Completed,
    Created,
    CreditEvent,
    CreditGranted,
    CreditLimited,
    CreditRevoked,
    Expired,
    Failed,
    MoneyEvent,
    School,
    TaskEvent,
    UpdateRequested,
    UpdateReverted,
)
from ledger.money import AMOUNT_MAX_MICROS
from ledger.records import AccountRow, CreditTerms, Move
from ledger.task import LIVE, Task

# Exposure, and tasks under way


def expected_of(task: Task) -> int:
    """What the run that is under way will be charged when it succeeds, as it was estimated."""
    live = task.status in LIVE and task.terms.school is School.ON_SUCCESS
    return task.terms.estimated_micros if live else 0


def move_of(before: Task, after: Task) -> Move | None:
    """How the account moves when the task does; None: not at all."""
    held = after.held_micros - before.held_micros
    charged = after.charged_micros - before.charged_micros
    refunded = after.refunded_micros - before.refunded_micros
    expected = expected_of(after) - expected_of(before)
    live = (after.status in LIVE) - (before.status in LIVE)
    if held or charged or refunded or expected or live:
        return Move(
            held_micros=held,
            charged_micros=charged,
            refunded_micros=refunded,
            expected_micros=expected,
            live_tasks=live,
        )
    return None


def moves(event: TaskEvent) -> bool:
    """Whether the event moves its account: as `move_of`, told by the event alone."""
    return isinstance(event, _MOVING)


_MOVING = (MoneyEvent, Created, UpdateRequested, Completed, Failed, Cancelled, Expired, UpdateReverted)
"""Movements of money, and the bounds of a run."""


def moved(row: AccountRow, move: Move) -> AccountRow:
    """The account after *move*."""
    return replace(
        row,
        held_micros=row.held_micros + move.held_micros,
        charged_micros=row.charged_micros + move.charged_micros,
        refunded_micros=row.refunded_micros + move.refunded_micros,
        expected_micros=row.expected_micros + move.expected_micros,
        live_tasks=row.live_tasks + move.live_tasks,
    )


# Admission


def admit(row: AccountRow, move: Move, *, tasks_max: int | None) -> None:
    """Take in new work that moves the account by *move*; *tasks_max* as in `ledger.commands.NewWork`.

    Raises:
        TooManyTasks: the account has no room for one more.
        InsufficientCredits: it is more than the account has available.
    """
    if tasks_max is not None and row.live_tasks + move.live_tasks > tasks_max:
        raise TooManyTasks(live_tasks=row.live_tasks, tasks_max=tasks_max)
    if row.unlimited:
        return
    asked_micros = move.held_micros + move.charged_micros + move.expected_micros
    if asked_micros > max(row.available_micros, 0):
        raise InsufficientCredits(
            asked_micros=asked_micros,
            limit_micros=row.limit_micros,
            granted_micros=row.granted_micros,
            exposure_micros=row.exposure_micros,
        )


# Limits and grants


class Credit(msgspec.Struct, kw_only=True):
    """The fold of an account's events about its credit. *version* counts all events of its stream.

    Not frozen as other folds are: a copy at each event would have a grant cost the square of those before it.
    Alternative beaten: a row for each key of a grant, a table for what a fold in linear time tells as well.
    """

    version: int = 0
    limit_micros: int | None = None
    granted_micros: int | None = None
    """All that stands; None: nothing was ever granted."""
    grants: dict[str, int] = {}
    """What was granted under each key."""
    revoked: dict[str, tuple[str, int]] = {}
    """What was taken back under each key: of which grant, and how much."""
    left: dict[str, int] = {}
    """What has not been taken back of each grant."""

    def left_of(self, grant: str) -> int:
        """What has not been taken back of a grant; 0 when there is none of this key."""
        return self.left.get(grant, 0)

    @property
    def terms(self) -> CreditTerms:
        """What new work is admitted by."""
        return CreditTerms(version=self.version, limit_micros=self.limit_micros, granted_micros=self.granted_micros)


class SetLimit(msgspec.Struct, frozen=True, kw_only=True):
    """*limit_micros* None: no limit."""

    at_us: int
    limit_micros: int | None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Give the account *amount_micros* > 0, once per *key*."""

    at_us: int
    amount_micros: int
    key: str
    reason: str | None = None


class RevokeGrant(msgspec.Struct, frozen=True, kw_only=True):
    """Take *amount_micros* > 0 of the grant *grant* back, once per *key*."""

    at_us: int
    amount_micros: int
    key: str
    grant: str
    reason: str | None = None


CreditCommand: TypeAlias = SetLimit | Grant | RevokeGrant


def decide_credit(credit: Credit, command: CreditCommand) -> list[CreditEvent]:
    """The events that *command* causes; none, when it has been carried out before.

    Raises:
        KeyReused: the key has moved another amount, or a part of another grant.
        AmountExceeds: more than an account may be granted in all, or than is left of the grant.
    """
    match command:
        case SetLimit(at_us=at_us, limit_micros=limit_micros):
            unchanged = credit.limit_micros == limit_micros
            return [] if unchanged else [CreditLimited(at_us=at_us, limit_micros=limit_micros)]
        case Grant():
            return _grant(credit, command)
        case RevokeGrant():
            return _revoke(credit, command)


def _grant(credit: Credit, command: Grant) -> list[CreditEvent]:
    before = credit.grants.get(command.key)
    if before is not None:
        if before != command.amount_micros:
            raise KeyReused("grant", command.key, amount_micros=before, task=None)
        return []
    left_micros = AMOUNT_MAX_MICROS - (credit.granted_micros or 0)
    if command.amount_micros > left_micros:
        raise _exceeds("amount_credits", command, left_micros=left_micros, settled_by=tuple(credit.grants))
    amount, reason = command.amount_micros, command.reason
    return [CreditGranted(at_us=command.at_us, amount_micros=amount, key=command.key, reason=reason)]


def _revoke(credit: Credit, command: RevokeGrant) -> list[CreditEvent]:
    before = credit.revoked.get(command.key)
    if before is not None:
        if before != (command.grant, command.amount_micros):
            raise KeyReused("revoke", command.key, amount_micros=before[1], task=None)
        return []
    left_micros = credit.left_of(command.grant)
    if command.amount_micros > left_micros:
        taken = tuple(key for key, (grant, _) in credit.revoked.items() if grant == command.grant)
        what = "amount_credits" if command.grant in credit.grants else f"there is no grant {command.grant!r}"
        raise _exceeds(what, command, left_micros=left_micros, settled_by=taken)
    return [
        CreditRevoked(
            at_us=command.at_us,
            amount_micros=command.amount_micros,
            key=command.key,
            reason=command.reason,
            grant=command.grant,
        )
    ]


def evolve_credit(credit: Credit, event: CreditEvent) -> Credit:
    """*credit* itself, which has taken *event* in, but for the version: that counts the stream's other events too."""
    match event:
        case CreditLimited(limit_micros=limit_micros):
            credit.limit_micros = limit_micros
        case CreditGranted(key=key, amount_micros=amount):
            if key not in credit.grants:  # under one key it changes once
                credit.grants[key] = amount
                credit.left[key] = credit.left_of(key) + amount
                credit.granted_micros = (credit.granted_micros or 0) + amount
        case CreditRevoked(key=key, grant=grant, amount_micros=amount):
            if key not in credit.revoked:
                credit.revoked[key] = (grant, amount)
                credit.left[grant] = credit.left_of(grant) - amount
                credit.granted_micros = (credit.granted_micros or 0) - amount
    return credit


def credit_violations(before: Credit, event: CreditEvent) -> Iterable[str]:
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


def _exceeds(
    what: str, command: Grant | RevokeGrant, *, left_micros: int, settled_by: tuple[str, ...]
) -> AmountExceeds:
    return AmountExceeds(what, asked_micros=command.amount_micros, left_micros=left_micros, settled_by=settled_by)

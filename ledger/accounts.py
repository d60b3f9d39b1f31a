"""Accounts, live: a bounded memory of their rows for the writer and the readers, and their limits and grants as events.

A row has two halves. What an account's tasks cost is moved by the one writer, so what is in memory of it is true. Its
terms may be changed by another process too (the command line): they are read anew when a request asks that shows
them, once in `REMEMBERED_SECONDS` at most, and before any refusal. An admission on terms that have changed is found by
the engine. Alternative beaten: to read the row at each create, an engine's read for what hardly ever changes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ledger.attempts import AppendOne, append_decided, committing
from ledger.credit import Credit, CreditCommand, Grant, RevokeGrant, SetLimit, decide_credit, evolve_credit
from ledger.engine import Engine
from ledger.events import CreditGranted, CreditLimited, CreditRevoked
from ledger.keys import account_stream
from ledger.records import AccountRow, Append, Entry, Recorded, entry

REMEMBERED_SECONDS = 1.0
REMEMBERED_MAX = 10_000


class CreditChange(NamedTuple):
    """A change of credit that is carried out once a key, whoever asks, and how often: by whom it was, and when."""

    row: AccountRow
    """The account as it is now."""
    by: str
    at_us: int
    is_repeat: bool
    """It had been carried out before: whoever has more to do about it than we know of is the one who was first."""


class Accounts:
    """What each account may spend, and what its tasks may cost it."""

    def __init__(self, engine: Engine, *, append: AppendOne | None = None) -> None:
        self._engine = engine
        self._append = append or committing(engine)
        """How limits and grants are written: where there is a writer, in turn with what it writes."""
        self._rows: OrderedDict[str, AccountRow] = OrderedDict()
        self._fresh_until: dict[str, float] = {}
        """When the terms of those rows are to be read again, by the monotonic clock."""
        self._lost = 0
        """How often rows were forgotten that had been at hand."""
        self._appending = asyncio.Lock()

    # Reading

    def cached(self, account: str) -> AccountRow | None:
        """The account's row, if it is at hand."""
        return self._rows.get(account)

    async def get_all(self, accounts: Collection[str]) -> list[AccountRow]:
        """The accounts' rows: those at hand, and the others in one read. They are for the writer, who moves them."""
        known = {account: row for account in accounts if (row := self._rows.get(account)) is not None}
        missing = [account for account in accounts if account not in known]
        return [*known.values(), *((await self._read(missing)).values() if missing else ())]

    async def reread(self, accounts: Collection[str]) -> list[AccountRow]:
        """The accounts as the store has them; what is in memory of their terms is no older afterwards."""
        return [*(await self._read([*accounts])).values()]

    async def refresh(self, account: str) -> None:
        """Have the account at hand, with terms that stood a second ago at the earliest."""
        if account not in self._rows or time.monotonic() >= self._fresh_until.get(account, 0.0):
            await self._read([account])

    async def row(self, account: str) -> AccountRow:
        """The account as of the last commit."""
        return (await self._engine.accounts([account])).get(account) or AccountRow(account=account)

    async def rows(self) -> list[AccountRow]:
        """All accounts that ever had a task, a limit or a grant, in the order of their names."""
        return [*(await self._engine.accounts(None)).values()]

    async def _read(self, accounts: Sequence[str]) -> dict[str, AccountRow]:
        lost = self._lost
        found = await self._engine.accounts(accounts)
        read = {account: found.get(account) or AccountRow(account=account) for account in accounts}
        for account, row in read.items():
            known = self._rows.get(account)
            if known is None and lost != self._lost:
                continue  # what was forgotten meanwhile may have been newer
            self._keep(row if known is None else with_terms(known, row))
            self._fresh_until[account] = time.monotonic() + REMEMBERED_SECONDS
        return read

    # What the writer tells

    def put(self, rows: Iterable[AccountRow]) -> None:
        """The accounts have been committed as these."""
        for row in rows:
            known = self._rows.get(row.account)
            self._keep(row if known is None else with_terms(row, known))

    def forget(self) -> None:
        """Forget all rows: what was committed is not known."""
        self._lost += 1
        self._rows.clear()
        self._fresh_until.clear()

    def drop(self, account: str) -> None:
        """Forget the account's row: its terms have been changed, or may have been."""
        self._lost += 1
        self._rows.pop(account, None)
        self._fresh_until.pop(account, None)

    def _keep(self, row: AccountRow) -> None:
        self._rows[row.account] = row
        self._rows.move_to_end(row.account)
        while len(self._rows) > REMEMBERED_MAX:
            self._lost += 1
            oldest, _ = self._rows.popitem(last=False)
            self._fresh_until.pop(oldest, None)

    # Changing

    async def set_limit(self, account: str, limit_micros: int | None, *, by: str, at_us: int) -> AccountRow:
        """Let the account owe so much, or, with None, take its limit away; the account after that.

        Here and below, beside a writer:

        Raises:
            Overloaded: as `Writer.append`.
        """
        row, _ = await self._carry_out(account, SetLimit(at_us=at_us, limit_micros=limit_micros), by=by)
        return row

    async def grant(self, account: str, command: Grant, *, by: str) -> CreditChange:
        """Give the account credit, once a key; the account after that, and who it was.

        Raises:
            KeyReused, AmountExceeds: as `decide_credit`.
        """
        return await self._once(account, command, by=by)

    async def revoke(self, account: str, command: RevokeGrant, *, by: str) -> CreditChange:
        """Take back a grant or a part of it, once a key; the account after that, and who it was.

        Raises:
            KeyReused, AmountExceeds: as `decide_credit`.
        """
        return await self._once(account, command, by=by)

    async def _once(self, account: str, command: Grant | RevokeGrant, *, by: str) -> CreditChange:
        row, appended = await self._carry_out(account, command, by=by)
        if appended is not None:
            return CreditChange(row, by=by, at_us=appended.entries[0].recorded_at_us, is_repeat=False)
        first = first_move(await self._engine.streams([account_stream(account)]), command)
        return CreditChange(row, by=first.actor, at_us=first.recorded_at_us, is_repeat=True)

    async def _carry_out(self, account: str, command: CreditCommand, *, by: str) -> tuple[AccountRow, Append | None]:
        """The account after *command*, and what that appended, if anything."""
        async with self._appending:  # one after the other: attempts are for what other processes append
            decided = lambda: self._decided(account, command, by=by)  # noqa: E731 - the line that it stands in is long
            appended = await append_decided(decided, self._append, what="the account")
        (row,) = await self.reread([account])
        return row, appended

    async def _decided(self, account: str, command: CreditCommand, *, by: str) -> Append | None:
        """What *command* comes to; None: nothing."""
        stream = account_stream(account)
        credit = fold_credit(await self._engine.streams([stream]))
        events = decide_credit(credit, command)
        if not events:
            return None
        recorded_at_us = max(command.at_us, (await self._engine.head()).recorded_at_us)
        expected = credit.version
        for event in events:
            evolve_credit(credit, event)
        credit.version += len(events)
        return Append(
            stream=stream,
            account=account,
            expected=expected,
            entries=tuple(entry(event, actor=by, recorded_at_us=recorded_at_us) for event in events),
            terms=credit.terms,
        )


def first_move(rows: Sequence[Recorded], command: Grant | RevokeGrant) -> Entry:
    """What moved the credit under the command's key, in the account's stream; it is there."""
    kind = CreditGranted if isinstance(command, Grant) else CreditRevoked
    return next(row.entry for row in rows if isinstance(row.event, kind) and row.event.key == command.key)


def with_terms(row: AccountRow, other: AccountRow) -> AccountRow:
    """*row* with the terms of *other*, if those are newer."""
    if other.version <= row.version:
        return row
    return replace(
        row,
        position=max(row.position, other.position),
        version=other.version,
        limit_micros=other.limit_micros,
        granted_micros=other.granted_micros,
    )


def fold_credit(rows: Sequence[Recorded]) -> Credit:
    """The credit that an account's stream, oldest first, leaves behind."""
    credit = Credit()
    for row in rows:
        event = row.event
        if isinstance(event, CreditLimited | CreditGranted | CreditRevoked):
            evolve_credit(credit, event)
        credit.version = row.version
    return credit

"""The API keys of a log, live: looked up at every request, issued, revoked and rotated as events of their account.

Keys are remembered for `REMEMBERED_SECONDS`: that is how long a key that another process has revoked may still open.
What this process revokes is dead at once.
"""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict

import msgspec
from msgspec.structs import replace

from ledger.attempts import append_decided, committing
from ledger.commands import Claim
from ledger.engine import Engine
from ledger.events import KeyIssued
from ledger.keys import (
    ID_BYTES,
    SECRET_BYTES,
    IssueKey,
    KeyCommand,
    RevokeKey,
    Role,
    RotateKey,
    Token,
    account_stream,
    decide_key,
    digest,
    evolve_key,
    fits,
    is_dead,
    mint,
    opens,
)
from ledger.records import Append, KeyRow, entry

REMEMBERED_SECONDS = 1.0
REMEMBERED_MAX = 10_000


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that has just been issued. Its text is shown this once and kept nowhere."""

    key_id: str
    key: str


class Keyring:
    """The API keys of a log: looked up through a short memory, changed by events of their accounts."""

    def __init__(self, engine: Engine, *, pepper: bytes | None = None) -> None:
        self._engine = engine
        self._pepper = engine.pepper if pepper is None else pepper
        self._remembered: OrderedDict[str, tuple[float, KeyRow | None]] = OrderedDict()
        self._appending = asyncio.Lock()

    def mark(self, shown: str) -> bytes:
        """A digest by which credentials can be recognised without being kept."""
        return hashlib.blake2b(shown.encode("utf-8", "surrogateescape"), key=self._pepper[:64], digest_size=16).digest()

    def keyed(self, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        """*claims* as they may be kept: their fingerprints say nothing of the requests to whoever lacks the pepper.

        They stand in the log for ever, and a bare digest of what has been erased would confirm any guess at it.
        Alternative beaten: the task's own key, which goes when it is erased; then nobody could tell any more whether a
        request that comes again is the first one.
        """
        return tuple(replace(claim, fingerprint=digest(claim.fingerprint, pepper=self._pepper)) for claim in claims)

    def known(self, key_id: str, *, at_us: int) -> KeyRow | None:
        """The key, if it has been read a moment ago and is alive; None says nothing: ask `holder`."""
        remembered = self._remembered.get(key_id)
        if remembered is None or time.monotonic() >= remembered[0]:
            return None
        row = remembered[1]
        return None if row is None or is_dead(row, self._no_earlier(at_us)) else row

    async def holder(self, token: Token, *, at_us: int) -> KeyRow | None:
        """The row of the key that *token* is; None when it is unknown, wrong or dead.

        Raises:
            StorageError: the store could not be read.
        """
        row = await self._row(token.key_id)
        return row if opens(row, token, pepper=self._pepper, at_us=self._no_earlier(at_us)) else None

    async def was_revoked(self, token: Token) -> bool:
        """Whether *token* was a key once: for contracts that tell a revoked key from an unknown one."""
        return fits(await self._row(token.key_id), token, pepper=self._pepper)

    async def issue(self, *, account: str, contract: str, role: Role, by: str, at_us: int) -> NewKey:
        """A new key for *account*, durable when it is returned."""
        token, text = mint(secrets.token_bytes(ID_BYTES + SECRET_BYTES))
        command = IssueKey(
            at_us=at_us,
            account=account,
            contract=contract,
            role=role,
            key_id=token.key_id,
            digest=digest(token.secret, pepper=self._pepper),
        )
        await self._carry_out(command, account=account, by=by)
        return NewKey(key_id=token.key_id, key=text)

    async def revoke(self, key_id: str, *, by: str, at_us: int) -> KeyRow:
        """The key, dead from now on.

        Raises:
            UnknownKey: there is no such live key.
        """
        account = await self._account_of(key_id)
        return (await self._carry_out(RevokeKey(at_us=at_us, key_id=key_id), account=account, by=by))[-1]

    async def rotate(self, key_id: str, *, overlap_us: int, by: str, at_us: int) -> NewKey:
        """A new key in the place of *key_id*, which stays alive for *overlap_us* more.

        Raises:
            UnknownKey: there is no such live key.
        """
        token, text = mint(secrets.token_bytes(ID_BYTES + SECRET_BYTES))
        command = RotateKey(
            at_us=at_us,
            key_id=key_id,
            new_key_id=token.key_id,
            digest=digest(token.secret, pepper=self._pepper),
            overlap_us=overlap_us,
        )
        await self._carry_out(command, account=await self._account_of(key_id), by=by)
        return NewKey(key_id=token.key_id, key=text)

    async def rows(self, account: str | None = None) -> list[KeyRow]:
        """The keys of *account*, or all, oldest first, the dead ones too."""
        return await self._engine.keys(account)

    def _no_earlier(self, at_us: int) -> int:
        """By the log's time, if a clock was set back: what was revoked at once stays so."""
        return max(at_us, self._engine.end.recorded_at_us)

    async def _row(self, key_id: str) -> KeyRow | None:
        memory = self._remembered
        remembered = memory.get(key_id)
        if remembered is not None and time.monotonic() < remembered[0]:
            return remembered[1]
        row = await self._engine.key(key_id)
        memory[key_id] = (time.monotonic() + REMEMBERED_SECONDS, row)
        memory.move_to_end(key_id)
        while len(memory) > REMEMBERED_MAX:
            memory.popitem(last=False)
        return row

    async def _account_of(self, key_id: str) -> str:
        row = await self._engine.key(key_id)
        return "" if row is None else row.account

    async def _carry_out(self, command: KeyCommand, *, account: str, by: str) -> list[KeyRow]:
        """Append what *command* causes to the account's stream; the rows it changed."""
        async with self._appending:  # one after the other: attempts are for what other processes append
            append = await append_decided(
                lambda: self._decided(command, account=account, by=by),
                committing(self._engine),
                what="the account's keys",
            )
        assert append is not None, "whatever is decided of a key is an event"
        self._remembered = OrderedDict()  # a new one: what is being read at this moment may be from before
        return list(append.keys)

    async def _decided(self, command: KeyCommand, *, account: str, by: str) -> Append:
        """What *command* comes to. The stream is read before the key: who changes the key later makes this stale."""
        stream = account_stream(account)
        expected = len(await self._engine.streams([stream]))
        old = None if isinstance(command, IssueKey) else await self._engine.key(command.key_id)
        events = decide_key(old, command)
        rows = (evolve_key(None if isinstance(event, KeyIssued) else old, event, account=account) for event in events)
        recorded_at_us = max(command.at_us, (await self._engine.head()).recorded_at_us)
        return Append(
            stream=stream,
            account=account,
            expected=expected,
            entries=tuple(entry(event, actor=by, recorded_at_us=recorded_at_us) for event in events),
            keys=tuple(rows),
        )

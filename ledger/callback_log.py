"""What accounts have arranged about callbacks, live: read from their streams, and changed by events of them."""

from collections.abc import Sequence

from ledger.callbacks import (
    Arranged,
    CallbackCommand,
    account_secret,
    callbacks_stream,
    decide_callback,
    evolve_arranged,
    fold_arranged,
)
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.records import Append, Recorded, Stale, entry

ATTEMPTS_MAX = 20
"""How often a change is decided anew because another one came first."""


class CallbackLog:
    """Webhooks, secrets and what is to be sent again, account by account."""

    def __init__(self, engine: Engine, *, pepper: bytes | None = None) -> None:
        self._engine = engine
        self.pepper = engine.pepper if pepper is None else pepper

    async def arranged(self, account: str) -> Arranged:
        """What the account has arranged by now."""
        rows = await self._engine.streams([callbacks_stream(account)])
        return arranged_by(rows)

    async def carry_out(self, command: CallbackCommand, *, account: str, by: str) -> Arranged:
        """What the account has arranged after *command*, durable when it returns.

        Raises:
            TooManyWebhooks, UnknownWebhook: as `decide_callback`.
        """
        for _ in range(ATTEMPTS_MAX):
            known = await self.arranged(account)
            events = decide_callback(known, command)
            if not events:
                return known
            recorded_at_us = max(command.at_us, (await self._engine.head()).recorded_at_us)
            append = Append(
                stream=callbacks_stream(account),
                account=account,
                expected=known.version,
                entries=tuple(entry(event, actor=by, recorded_at_us=recorded_at_us) for event in events),
            )
            (outcome,) = await self._engine.commit([append])
            if not isinstance(outcome, Stale):
                for event in events:
                    known = evolve_arranged(known, event)
                return known
        raise StorageError("other changes of the account's callbacks kept coming first")

    async def secrets(self, account: str, *, at_us: int) -> Sequence[str]:
        """What the account's callbacks are signed with at *at_us*, the newest first: two while one replaces another."""
        numbers = (await self.arranged(account)).generations(at_us)
        return [account_secret(self.pepper, account, number) for number in numbers]


def arranged_by(rows: Sequence[Recorded]) -> Arranged:
    """What the rows of an account's stream leave behind; it holds no other events, or `verify` says so."""
    return fold_arranged([row.event for row in rows])  # type: ignore[misc]

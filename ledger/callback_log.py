"""What accounts have arranged about callbacks, live: read from their streams, and changed by events of them."""

from collections.abc import Sequence

from ledger.attempts import append_decided, committing
from ledger.callbacks import (
    Arranged,
    CallbackCommand,
    account_secret,
    callbacks_stream,
    decide_callback,
    fold_arranged,
)
from ledger.engine import Engine
from ledger.records import Append, Recorded, entry


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

        async def decided() -> Append | None:
            known = await self.arranged(account)
            events = decide_callback(known, command)
            if not events:
                return None
            recorded_at_us = max(command.at_us, (await self._engine.head()).recorded_at_us)
            return Append(
                stream=callbacks_stream(account),
                account=account,
                expected=known.version,
                entries=tuple(entry(event, actor=by, recorded_at_us=recorded_at_us) for event in events),
            )

        await append_decided(decided, committing(self._engine), what="the account's callbacks")
        return await self.arranged(account)

    async def secrets(self, account: str, *, at_us: int) -> Sequence[str]:
        """What the account's callbacks are signed with at *at_us*, the newest first: two while one replaces another."""
        numbers = (await self.arranged(account)).generations(at_us)
        return [account_secret(self.pepper, account, number) for number in numbers]


def arranged_by(rows: Sequence[Recorded]) -> Arranged:
    """What the rows of an account's stream leave behind; it holds no other events, or `verify` says so."""
    return fold_arranged([row.event for row in rows])  # type: ignore[misc]

"""The statements of a log, live: that one was read, in its own stream, and which were replaced, in their provider's."""

from ledger.attempts import append_decided, committing
from ledger.break_log import append_of
from ledger.breaks import replaced_stream, statement_stream
from ledger.engine import Engine
from ledger.events import StatementRead, StatementReplaced
from ledger.records import Append, Recorded, Stale
from ledger.statement_rules import Replaced, decide_replaced, replaced_in


class StatementLog:
    """What has been read, and what stands."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def is_read(self, provider: str, statement: str, *, until: int | None = None) -> bool:
        """Whether it has been read to its end, up to the position *until*."""
        return bool(await self._rows(statement_stream(provider, statement), until=until))

    async def replaced(self, provider: str, *, until: int | None = None) -> Replaced:
        """Those that were replaced up to the position *until*."""
        return replaced_in(row.event for row in await self._rows(replaced_stream(provider), until=until))

    async def read(self, event: StatementRead, *, by: str) -> bool:
        """Put on record that a statement was read; False: it is already."""
        if await self.is_read(event.provider, event.statement):
            return False
        stream = statement_stream(event.provider, event.statement)
        since_us = (await self._engine.head()).recorded_at_us
        (outcome,) = await self._engine.commit([append_of(stream, 0, [event], by=by, since_us=since_us)])
        return not isinstance(outcome, Stale)

    async def replace(self, order: StatementReplaced, *, by: str) -> None:
        """Put on record that a statement is replaced.

        Raises:
            StatementSuperseded, NotReplaceable: as `decide_replaced`.
        """
        stream = replaced_stream(order.provider)

        async def decided() -> Append | None:
            is_read = await self.is_read(order.provider, order.statement)  # and stays so, whatever others do
            rows = await self._rows(stream)
            events = decide_replaced(replaced_in(row.event for row in rows), order, is_read=is_read)
            since_us = (await self._engine.head()).recorded_at_us
            return append_of(stream, len(rows), events, by=by, since_us=since_us) if events else None

        await append_decided(decided, committing(self._engine), what="the statements")

    async def _rows(self, stream: bytes, *, until: int | None = None) -> list[Recorded]:
        rows = await self._engine.streams([stream])
        return [row for row in rows if until is None or row.position <= until]

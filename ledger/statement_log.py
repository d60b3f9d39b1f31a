"""The statements of a log, live: that one was read, and that one was replaced, as events of their streams."""

from ledger.attempts import append_decided, committing
from ledger.break_log import append_of
from ledger.breaks import statement_stream
from ledger.engine import Engine
from ledger.events import StatementRead, StatementReplaced
from ledger.records import Append, Stale
from ledger.statement_rules import Standing, decide_replaced, standing_of


class StatementLog:
    """What has been read, and what stands."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def standing(self, provider: str, statement: str, *, until: int | None = None) -> Standing:
        """What the log says of it, up to the position *until*."""
        rows = await self._engine.streams([statement_stream(provider, statement)])
        return standing_of(row.event for row in rows if until is None or row.position <= until)

    async def read(self, event: StatementRead, *, by: str) -> bool:
        """Put on record that a statement was read; False: it is already."""
        stream = statement_stream(event.provider, event.statement)
        if await self._engine.streams([stream]):
            return False
        since_us = (await self._engine.head()).recorded_at_us
        (outcome,) = await self._engine.commit([append_of(stream, 0, [event], by=by, since_us=since_us)])
        return not isinstance(outcome, Stale)

    async def replace(self, order: StatementReplaced, *, by: str) -> None:
        """Put on record that a statement is replaced.

        Raises:
            NotReplaceable: as `decide_replaced`.
        """
        stream = statement_stream(order.provider, order.statement)

        async def decided() -> Append | None:
            rows = await self._engine.streams([stream])
            events = decide_replaced(standing_of(row.event for row in rows), order)
            since_us = (await self._engine.head()).recorded_at_us
            return append_of(stream, len(rows), events, by=by, since_us=since_us) if events else None

        await append_decided(decided, committing(self._engine), what="the statement")

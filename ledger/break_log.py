"""The breaks of a log, live: opened by the hundred, explained and corrected one by one, as events of their streams.

A reconciliation that dies leaves whole chunks behind; run again, it finds those breaks and opens the others.
"""

from collections.abc import Sequence
from itertools import groupby

from ledger.attempts import append_decided, committing
from ledger.breaks import (
    Break,
    CorrectBreak,
    ExplainBreak,
    Life,
    OpenBreak,
    break_stream,
    decide_break,
    fold_break,
)
from ledger.engine import Engine
from ledger.errors import UnknownBreak
from ledger.events import AnyEvent
from ledger.records import Append, Recorded, Stale, entry

CHUNK_MAX = 256
"""Breaks in one commit: the service's own commits wait no longer than that takes."""
NOBODY = ""
"""In the log's account column: these streams are no customer's."""


class BreakLog:
    """What is known to differ."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def open(self, commands: Sequence[OpenBreak], *, by: str) -> int:
        """Open those of the breaks that are not known yet, durable when it returns; how many that were."""
        opened = 0
        for start in range(0, len(commands), CHUNK_MAX):
            opened += await self._open(commands[start : start + CHUNK_MAX], by=by)
        return opened

    async def correct_all(self, commands: Sequence[CorrectBreak], *, by: str) -> list[str]:
        """Correct those that are open; their ids. One that somebody else changes meanwhile is left to the next time."""
        corrected: list[str] = []
        for start in range(0, len(commands), CHUNK_MAX):
            corrected += await self._correct(commands[start : start + CHUNK_MAX], by=by)
        return corrected

    async def known(self, break_ids: Sequence[str]) -> dict[str, Break]:
        """Those of the breaks that there are."""
        found: dict[str, Break] = {}
        for start in range(0, len(break_ids), CHUNK_MAX):
            streams = [break_stream(name) for name in break_ids[start : start + CHUNK_MAX]]
            for rows in await self._histories([name for name in streams if name is not None]):
                known = _fold(rows)
                found[known.break_id] = known
        return found

    async def explain(self, command: ExplainBreak, *, by: str) -> Break:
        """The break, explained.

        Raises:
            UnknownBreak, BreakClosed: as `decide_break`.
        """
        return await self._carry_out(command, by=by)

    async def correct(self, command: CorrectBreak, *, by: str) -> Break:
        """The break, corrected.

        Raises:
            UnknownBreak, BreakClosed: as `decide_break`.
        """
        return await self._carry_out(command, by=by)

    async def _open(self, commands: Sequence[OpenBreak], *, by: str) -> int:
        wanted = {command.found.break_id: command for command in commands}
        known = await self.known(list(wanted))
        new = [command for break_id, command in wanted.items() if break_id not in known]
        if not new:
            return 0
        since_us = (await self._engine.head()).recorded_at_us
        appends = [
            append_of(_stream(command.found.break_id), 0, decide_break(None, command), by=by, since_us=since_us)
            for command in new
        ]
        outcomes = await self._engine.commit(appends)
        return sum(not isinstance(outcome, Stale) for outcome in outcomes)  # stale: another process just opened it

    async def _correct(self, commands: Sequence[CorrectBreak], *, by: str) -> list[str]:
        wanted = {_stream(command.break_id): command for command in commands}
        histories = await self._histories(list(wanted))
        still = [rows for rows in histories if _fold(rows).life is Life.OPEN]
        if not still:
            return []
        since_us = (await self._engine.head()).recorded_at_us
        appends = []
        for rows in still:
            stream = rows[0].stream
            events = decide_break(_fold(rows), wanted[stream])
            appends.append(append_of(stream, len(rows), events, by=by, since_us=since_us))
        outcomes = await self._engine.commit(appends)
        return [
            append.stream.hex()
            for append, outcome in zip(appends, outcomes, strict=True)
            if not isinstance(outcome, Stale)
        ]

    async def _carry_out(self, command: ExplainBreak | CorrectBreak, *, by: str) -> Break:
        stream = _stream(command.break_id)

        async def decided() -> Append | None:
            rows = await self._engine.streams([stream])
            events = decide_break(_fold(rows) if rows else None, command)
            if not events:
                return None
            since_us = (await self._engine.head()).recorded_at_us
            return append_of(stream, len(rows), events, by=by, since_us=since_us)

        await append_decided(decided, committing(self._engine), what="the break")
        return _fold(await self._engine.streams([stream]))

    async def _histories(self, streams: Sequence[bytes]) -> list[list[Recorded]]:
        rows = await self._engine.streams(streams)
        return [list(group) for _, group in groupby(rows, key=lambda row: row.stream)]


def append_of(stream: bytes, expected: int, events: Sequence[AnyEvent], *, by: str, since_us: int) -> Append:
    """*events*, recorded when they happened, but not before *since_us*: the log's time never runs backwards."""
    entries = tuple(entry(event, actor=by, recorded_at_us=max(event.at_us, since_us)) for event in events)
    return Append(stream=stream, account=NOBODY, expected=expected, entries=entries)


def _stream(break_id: str) -> bytes:
    stream = break_stream(break_id)
    if stream is None:
        raise UnknownBreak(break_id)
    return stream


def _fold(rows: Sequence[Recorded]) -> Break:
    """The break that its stream leaves behind; a stream holds no other events, or `verify` says so."""
    known = fold_break([row.event for row in rows])  # type: ignore[misc]
    assert known is not None, "a stream of a break begins with its opening"
    return known

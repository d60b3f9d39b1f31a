"""What providers bill, live: appended to the log as events of each provider's stream, decided against the books.

The books know what each line comes to, and how long the stream was when they knew it: an append that finds it longer
is refused, the books follow, and what is still to be said is decided anew. So a line is billed once, whoever reads its
statement at the same time, and a run that dies leaves whole chunks behind.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from ledger.attempts import append_decided, committing
from ledger.break_log import NOBODY
from ledger.breaks import provider_stream
from ledger.costs import UNKNOWN, Owed, Source, decide_cost
from ledger.engine import Engine
from ledger.records import Append, entry
from ledger.statement_log import StatementLog
from projections.books.books import Books
from projections.books.cost_rows import lines_known, stream_version
from projections.books.statement_rows import turn_of
from projections.follow import catch_up

CHUNK_MAX = 1000
"""Lines decided for one commit: the service's own commits wait no longer than that takes."""


class CostLog:
    """What providers have billed, and in which statements."""

    def __init__(self, engine: Engine, books: Books) -> None:
        self._engine, self.books = engine, books
        self.statements = StatementLog(engine)

    async def post(self, owed: Iterable[Owed], source: Source, *, by: str, now_us: int) -> int:
        """Append what these lines, no two of one name, bill otherwise than is known; how many events that took."""
        lines, posted = iter(owed), 0
        while some := list(islice(lines, CHUNK_MAX)):
            posted += await self._post(some, source, by=by, now_us=now_us)
        return posted

    async def _post(self, some: Sequence[Owed], source: Source, *, by: str, now_us: int) -> int:
        """Post one chunk; how many events it took."""
        names = [one.line for one in some]

        async def decided() -> Append | None:
            await catch_up(self._engine, self.books)  # with the chunk before, and what another process has posted
            version = await stream_version(self.books, source.provider)  # first: an older one is refused
            turn = await turn_of(self.books, source.provider, source.statement)
            known = await lines_known(self.books, source.provider, names)
            recorded_at_us = max(now_us, (await self._engine.head()).recorded_at_us)
            entries = tuple(
                entry(event, actor=by, recorded_at_us=recorded_at_us)
                for one in some
                for event in decide_cost(known.get(one.line, UNKNOWN), one, source, turn)
            )
            if not entries:
                return None
            stream = provider_stream(source.provider)
            return Append(stream=stream, account=NOBODY, expected=version, entries=entries)

        append = await append_decided(decided, committing(self._engine), what="what the provider bills")
        return 0 if append is None else len(append.entries)

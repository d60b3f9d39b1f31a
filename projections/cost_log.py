"""What providers bill, live: appended to the log as events of each provider's stream, decided against the books.

The books know what each line comes to, and how long the stream was when they knew it: an append that finds it longer
is refused, the books follow, and what is still to be said is decided anew. So a line is billed once, whoever reads its
statement at the same time, and a run that dies leaves whole chunks behind.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from ledger.attempts import ATTEMPTS_MAX
from ledger.break_log import NOBODY
from ledger.breaks import provider_stream
from ledger.costs import NOTHING, Owed, Source, decide_cost
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.records import Append, Entry, Stale, entry
from projections.books import Books
from projections.cost_rows import lines_known, stream_version
from projections.follow import catch_up

CHUNK_MAX = 1000
"""Lines decided for one commit: the service's own commits wait no longer than that takes."""


class CostLog:
    """What providers have billed."""

    def __init__(self, engine: Engine, books: Books) -> None:
        self._engine, self.books = engine, books

    async def post(self, owed: Iterable[Owed], source: Source, *, by: str, now_us: int) -> int:
        """Append what these lines, no two of one name, bill otherwise than is known; how many events that took."""
        lines, posted = iter(owed), 0
        version = await stream_version(self.books, source.provider)
        while some := list(islice(lines, CHUNK_MAX)):
            version, count = await self._post(some, source, version, by=by, now_us=now_us)
            posted += count
        return posted

    async def _post(
        self, some: Sequence[Owed], source: Source, version: int, *, by: str, now_us: int
    ) -> tuple[int, int]:
        """Post one chunk on top of the stream's *version*; its version then, and how many events it took."""
        names = [one.line for one in some]
        for _ in range(ATTEMPTS_MAX):
            known = await lines_known(self.books, source.provider, names)
            recorded_at_us = max(now_us, (await self._engine.head()).recorded_at_us)
            entries: tuple[Entry, ...] = tuple(
                entry(event, actor=by, recorded_at_us=recorded_at_us)
                for one in some
                for event in decide_cost(known.get(one.line, NOTHING), one, source)
            )
            if not entries:
                return version, 0
            append = Append(stream=provider_stream(source.provider), account=NOBODY, expected=version, entries=entries)
            (outcome,) = await self._engine.commit([append])
            if not isinstance(outcome, Stale):
                return version + len(entries), len(entries)
            await catch_up(self._engine, self.books)  # another process has posted
            version = await stream_version(self.books, source.provider)
        raise StorageError("other processes kept posting what the provider bills")

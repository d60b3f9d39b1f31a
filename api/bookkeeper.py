"""The books of the service: a follower of the log, and the reports that are drawn from them.

The service does not depend on it. What goes wrong with the books while a report is drawn is logged once as
``books.failed`` and said by the billing routes, and nothing else knows of it. Alternative beaten: booking in the commit
itself, which would make every create wait for what is read once a month.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from api.faults import fault_text, log_fault
from api.followers import Duty
from api.keepers import Keeper
from api.refusals import Unavailable
from ledger.engine import Engine
from ledger.errors import Refusal
from projections.books.books import Books, open_books
from projections.places import NoSuchPlaceError
from projections.reports.report import Report, Wanted, draw

REST_SECONDS = 0.1
"""Between two looks for what is new. Measured once beside creates at full speed, about 6,000 events a second: with this
the books were 0.55 s behind at worst, with 0.25 and twice the pause 1.3 s. What creates lost was within the noise."""


class BooksUnavailable(Unavailable):
    """The books cannot be kept just now; all else goes on."""


class Bookkeeper(Keeper[Books]):
    """The books in the file at *path*, kept up to the log, and the reports that are drawn from them."""

    unavailable = BooksUnavailable

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__(engine, path, open_books)
        self._failure: str | None = None
        """What went wrong at the last request that needed the books; None: nothing did."""

    @property
    def duty(self) -> Duty:
        """How the service has the books follow the log."""
        return Duty("books", self.follow, REST_SECONDS)

    async def draw(self, wanted: Wanted) -> Report:
        """The report that is *wanted*, with the books brought up to its position.

        Raises:
            BooksUnavailable: the books could not be opened, read or written, or the log does not make any.
            StorageError: the log could not be read.
            NoSuchPlaceError: its place is none of this log.
        """
        with self._refusing():
            async with self._asked() as books:
                return await draw(self._engine, books, wanted)

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[Books]:
        """The books, for a request. What goes wrong is logged, once until it has gone well."""
        try:
            async with self._opened() as books:
                yield books
        except (NoSuchPlaceError, Refusal):  # the request is wrong, or something else that it needs, not the books
            raise
        except Exception as error:
            if fault_text(error) != self._failure:
                self._failure = fault_text(error)
                log_fault("books.failed", error)
            raise
        self._failure = None

"""The books of the service: a follower of the log, and the reports that are drawn from them.

The service does not depend on it. What goes wrong with the books while a report is drawn is logged once as
``books.failed`` and said by the billing routes, and nothing else knows of it. Alternative beaten: booking in the commit
itself, which would make every create wait for what is read once a month.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

import structlog

from api.followers import Duty
from api.refusals import Unavailable
from ledger.engine import Engine
from ledger.errors import CannotOpenError, DamagedError, Fault, StorageError
from projections.books import Books, BooksError
from projections.books_file import open_books
from projections.follow import catch_up
from projections.places import NoSuchPlaceError
from projections.report import Report, Wanted, draw

REST_SECONDS = 0.1
"""Between two looks for what is new. Measured once beside creates at full speed, about 6,000 events a second: with this
the books were 0.55 s behind at worst, with 0.25 and twice the pause 1.3 s. What creates lost was within the noise."""
PAUSE_SECONDS = 0.01
"""Between two pages of a log that is behind, in which everybody else is served."""

T = TypeVar("T")


class BooksUnavailable(Unavailable):
    """The books cannot be kept just now; all else goes on."""


class Bookkeeper:
    """Books in the file at *path*, which is opened when they are first asked for."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine, self.path = engine, path
        self._books: Books | None = None
        self._opening = asyncio.Lock()
        self._failure: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the file."""
        async with self._opening:
            books, self._books = self._books, None
        if books is not None:
            await books.close()

    @property
    def duty(self) -> Duty:
        """How the service has the books follow the log."""
        return Duty("books", self.follow, REST_SECONDS)

    async def follow(self) -> int:
        """Bring the books to the end of the log as it is now; the position of that end.

        Raises:
            BooksError, CannotOpenError, DamagedError, StorageError: why they cannot be.
        """
        books = await self._opened()
        try:
            head = await catch_up(self._engine, books, pause_seconds=PAUSE_SECONDS)
        except BooksError:
            await self.close()  # they are opened anew: they may have been put right by then, or moved away
            raise
        return head.position

    async def draw(self, wanted: Wanted) -> Report:
        """The report that is *wanted*, with the books brought up to its position.

        Raises:
            BooksUnavailable: the books could not be opened, read or written, or the log does not make any.
            StorageError: the log could not be read.
            NoSuchPlaceError: its place is none of this log.
        """
        try:
            return await self._with_books(lambda books: draw(self._engine, books, wanted))
        except (BooksError, CannotOpenError, DamagedError) as fault:
            raise BooksUnavailable from fault  # why is in the log: answers tell nothing of our disks

    async def consult(self, work: Callable[[Books], Awaitable[T]]) -> T:
        """What *work* makes of the books, which have been brought up to the end of the log.

        Raises:
            BooksUnavailable, StorageError: as `draw`; the log may not have taken all that *work* wrote.
        """

        async def caught_up(books: Books) -> T:
            await catch_up(self._engine, books)
            return await work(books)

        try:
            return await self._with_books(caught_up)
        except (BooksError, CannotOpenError, DamagedError) as fault:
            raise BooksUnavailable from fault

    async def peek(self, work: Callable[[Books], Awaitable[T]]) -> T:
        """What *work* makes of the books as they are, up to their last page.

        Raises:
            BooksUnavailable: as `draw`.
        """
        try:
            return await self._with_books(work)
        except (BooksError, CannotOpenError, DamagedError, StorageError) as fault:
            raise BooksUnavailable from fault

    async def _with_books(self, work: Callable[[Books], Awaitable[T]]) -> T:
        """What *work* makes of the books."""
        try:
            done = await work(await self._opened())
        except NoSuchPlaceError:
            raise
        except BooksError as error:
            await self.close()
            self._failed(error)
            raise
        except Exception as error:
            self._failed(error)
            raise
        self._failure = None
        return done

    async def _opened(self) -> Books:
        async with self._opening:
            if self._books is None:
                self._books = await open_books(self.path, self._engine)
            return self._books

    def _failed(self, error: Exception) -> None:
        """Log *error*, unless it is the one before still; with its traceback when it is a bug."""
        if str(error) != self._failure:
            self._failure = str(error)
            bug = None if isinstance(error, Fault) else error
            structlog.get_logger().warning("books.failed", fault=self._failure, exc_info=bug)
